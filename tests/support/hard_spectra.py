"""Hermitian pencils on which eigensolvers go wrong, with their exact spectra; and what right means.

No spectrum here is computed by jax_peig: they are prescribed, closed formulas, or LAPACK's.
"""

from typing import NamedTuple

import numpy as np
import scipy.linalg

from jax_peig import Status
from tests.support import spectra

EPS = float(np.finfo(np.float64).eps)
TOL = EPS ** (2 / 3)  # the documented default


class Problem(NamedTuple):
    """A X = M X diag(values)."""

    A: np.ndarray  # (n, n), or (n,) for a diagonal one
    M: np.ndarray | None  # (n, n); None is the identity
    values: np.ndarray  # (n,), ascending

    def negated(self) -> "Problem":
        """Give the problem whose smallest pairs are the largest of this one."""
        return Problem(-self.A, self.M, -self.values[::-1])


# -- what is right -----------------------------------------------------------------------------


UNFINISHED = (Status.NOT_SHOWN_COMPLETE, Status.MAX_STEPS, Status.STAGNATED)


def is_claimed(result, problem: Problem, which: str = "smallest", *, tol=TOL, accuracy=1e-8):
    """Whether ``result`` claims convergence. If it does, all that this promises is asserted.

    The eigenvalues are the k extreme ones, each as often as it is there, to ``accuracy`` times the
    largest of all; X^H M X = I to 1e-10; and the residuals, computed here, are within ``tol``.
    """
    if int(result.info.status) != Status.CONVERGED:
        message = result.info.message
        assert int(result.info.status) in UNFINISHED, message
        return False
    w, x = np.asarray(result.eigenvalues), np.asarray(result.eigenvectors)
    k, n = w.size, problem.values.size
    wanted = problem.values[:k] if which == "smallest" else problem.values[::-1][:k]
    scale = np.max(np.abs(problem.values))
    error = np.max(np.abs(w - wanted))
    assert error <= accuracy * scale, f"WRONG SET claimed: {w} instead of {wanted}"
    assert int(result.info.converged) == k

    a = np.diag(problem.A) if problem.A.ndim == 1 else problem.A
    m = np.eye(n) if problem.M is None else problem.M
    np.testing.assert_allclose(x.conj().T @ m @ x, np.eye(k), rtol=0, atol=1e-10)
    r = np.linalg.norm(a @ x - m @ x * w, axis=0)
    size = np.linalg.norm(a, 2) + np.abs(w) * np.linalg.norm(m, 2)
    assert np.all(r <= (tol + 100 * EPS) * size * np.linalg.norm(x, axis=0)), "residuals"
    return True


# -- prescribed spectra ------------------------------------------------------------------------


def diagonal(values) -> Problem:
    """diag(values): copies are equal to the last bit, and nothing couples them."""
    values = np.asarray(values, np.float64)
    return Problem(np.diag(values), None, np.sort(values))


def grid(values) -> Problem:
    """The spectrum of a grid as a diagonal operator (n,): copies as exact as can be."""
    return Problem(np.asarray(values), None, np.asarray(values))


def turned(values, **options) -> Problem:
    """`spectra.pencil`: copies are equal up to rounding, which couples everything."""
    made = spectra.pencil(values, **options)
    return Problem(made.A, made.M, made.values)


def cluster(n: int, first: int, size: int) -> np.ndarray:
    """1, 2, ..., n, of which ``size`` from index ``first`` on are equal."""
    values = np.arange(1.0, n + 1)
    values[first : first + size] = values[first]
    return np.sort(values)


def square_laplacian(edge: int) -> np.ndarray:
    """Spectrum of P1, the 5-point Laplacian on edge^2 points: all but the diagonal in pairs."""
    angle = np.pi * np.arange(1, edge + 1) / (edge + 1)
    line = 2 - 2 * np.cos(angle)
    return np.sort(np.add.outer(line, line).ravel())


def oscillator(edge: int) -> np.ndarray:
    """Spectrum of P2, the oscillator on edge^3 points: copies of three and of six."""
    x, h = np.linspace(-5.5, 5.5, edge, retstep=True)
    line = scipy.linalg.eigvalsh_tridiagonal(1 / h**2 + x**2 / 2, np.full(edge - 1, -0.5 / h**2))
    return np.sort(np.add.outer(np.add.outer(line, line), line).ravel())


# -- matrices with a name ----------------------------------------------------------------------


def tridiagonal(diagonal, off) -> np.ndarray:
    return np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1)


def wilkinson(half: int) -> np.ndarray:
    """W+ of order 2 half + 1; its largest eigenvalues are pairs that agree to rounding."""
    return tridiagonal(np.abs(np.arange(-half, half + 1.0)), np.ones(2 * half))


def by_lapack(a: np.ndarray, m: np.ndarray | None = None) -> Problem:
    return Problem(a, m, spectra.reference(a, m)[0])


def wilkinson_21_within(n: int) -> Problem:
    """W21+ beside n - 21 numbers in the middle of its spectrum."""
    return by_lapack(scipy.linalg.block_diag(wilkinson(10), np.diag(np.linspace(0, 5, n - 21))))


def path(n: int) -> Problem:
    """Laplacian of a path: one zero mode, slow without a preconditioner."""
    a = tridiagonal(np.r_[1.0, np.full(n - 2, 2.0), 1.0], -np.ones(n - 1))
    return Problem(a, None, 2 - 2 * np.cos(np.pi * np.arange(n) / n))


def ring(n: int) -> Problem:
    """Laplacian of a ring: a zero mode and pairs."""
    a = 2 * np.eye(n) - np.roll(np.eye(n), 1, axis=0) - np.roll(np.eye(n), -1, axis=0)
    return Problem(a, None, np.sort(2 - 2 * np.cos(2 * np.pi * np.arange(n) / n)))


def bipartite(n: int, left: int) -> Problem:
    """Laplacian of a complete bipartite graph: 0, left (right - 1 times), right (left - 1), n."""
    right = n - left
    side = np.arange(n) < left
    a = np.diag(np.where(side, right, left)) - (side[:, None] != side[None, :]).astype(float)
    values = np.r_[0, np.full(right - 1, left), np.full(left - 1, right), n]
    return Problem(a, None, np.sort(values.astype(float)))


def low_rank_plus_identity(n: int, shifts, seed: int = 0) -> Problem:
    """I + Q diag(shifts) Q^T: all but a few eigenvalues are one."""
    shifts = np.asarray(shifts, np.float64)
    q = spectra.unitary(np.random.default_rng(seed), n)[:, : shifts.size]
    values = np.sort(np.r_[1 + shifts, np.ones(n - shifts.size)])
    return Problem(spectra.hermitian(np.eye(n) + q * shifts @ q.T), None, values)


def mikota(n: int) -> Problem:
    """Masses 1/j between springs n - j: the frequencies are exactly 1, 2, ..., n."""
    j = np.arange(1, n + 1)
    springs = np.arange(n - 1, 0, -1.0)
    a = tridiagonal(2.0 * (n - j) + 1, -springs)
    return Problem(a, np.diag(1 / j), j.astype(float) ** 2)


def rod(n: int) -> Problem:
    """A free elastic rod, linear elements with consistent mass: a zero mode and (pi j)^2."""
    h = 1 / (n - 1)
    ends, off = np.r_[1.0, np.full(n - 2, 2.0), 1.0], np.ones(n - 1)
    c = np.cos(np.pi * np.arange(n) * h)
    values = 6 / h**2 * (1 - c) / (2 + c)
    return Problem(tridiagonal(ends, -off) / h, tridiagonal(2 * ends, off) * h / 6, values)


def rescaled(problem: Problem, mass: float) -> Problem:
    """The same with M times ``mass``."""
    return Problem(problem.A, mass * problem.M, problem.values / mass)
