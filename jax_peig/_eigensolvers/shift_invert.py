"""Shift-and-invert Lanczos (Ericsson and Ruhe, 1980): few solves for stiff and interior problems.

The iteration stands in ``shift_invert_iteration.py``. Here is what it is given, and what is told of
its pairs.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jax_peig._core import blocks, tolerances
from jax_peig._core.checks import check_positive
from jax_peig._core.types import Array, Block
from jax_peig._eigensolvers.shift_invert_basis import WIDTH
from jax_peig._eigensolvers.shift_invert_iteration import (
    COMPLETE,
    Iteration,
    Order,
    State,
)
from jax_peig._factorizations.shift_inverse import (
    Matrices,
    ShiftInverse,
    factorize_shifted,
    shift_inverse_of,
)
from jax_peig._factorizations.store import UNKNOWN
from jax_peig._operators.operator import Operator
from jax_peig._operators.probe import STEPS
from jax_peig._problem.convergence import SAFETY, Inverted, Ritz, block_width, multiply
from jax_peig._problem.iterative import IterativeMethod, Task
from jax_peig._problem.problem import Structure

# A computed eigenvalue or residual is off by so many of its roundings.
ROUNDINGS = 10
# The shift of an inertia lies behind the k-th eigenvalue by this part of the gap to the next. That
# one is known less well.
NEAR = 0.01
# Lanczos steps of the probe of a full M: a negative eigenvalue apart from the others is seen.
MASS_STEPS = 30
# Steps of subspace iteration at the end, at most; most often none is needed.
REFINEMENTS = 3


def default_basis(n: int, k: int) -> int:
    """A wider one saves hardly a solve; a completeness check among close eigenvalues needs this."""
    return min(n + WIDTH, max(60, 3 * k + 36))


@dataclasses.dataclass(frozen=True)
class ShiftInvert(IterativeMethod):
    """Lanczos with solves of A - pole M: for matrices that are stiff, and for interior eigenvalues.

    The matrices are factorised by themselves, see `jax_peig.operators.shift_invert`; a solver of
    your own goes into ``OPinv``. ``info.solves`` counts the solves. M may be singular here, if A is
    definite on its null space.

    Parameters
    ----------
    max_steps : int, optional
        Bound on the steps, of two solves each. Default: 1000.
    max_basis_size : int, optional
        How many vectors are kept, with as many solutions and, with M, products. Default: 3 k
        + 36, and at least 60. Fewer cost more solves, and among close eigenvalues they may not
        suffice to show that no pair is missing.
    shift : float, optional
        The pole: an eigenvalue converges the faster, the nearer it is. Default: ``sigma``. Without
        ``sigma`` a number below the spectrum: zero where A is positive definite, else the first
        that is found below zero.
    inertia : bool
        Prove that no pair is missing, by the signs of the pivots of A - s M for s between the k-th
        eigenvalue and the next; with ``sigma``, on either side. It costs one more factorisation
        each, and twice the memory for a sparse one. ``info.inertia`` tells the count.

    Raises
    ------
    TypeError, ValueError
        For an option of another type or sign.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jax_peig import ShiftInvert, partial_eigh
    >>> stiff = jnp.diag(jnp.array([1.0, 2.0, 3.0, 4e4, 5e4, 6e4]))
    >>> w, X, info = partial_eigh(stiff, k=2, method=ShiftInvert())
    >>> print(w.round(4), info.method, info.pole)
    [1. 2.] shift_invert 0.0
    """

    max_basis_size: int | None = None
    shift: float | None = None
    inertia: bool = False

    name: ClassVar[str] = "shift_invert"
    inverts: ClassVar[bool] = True
    default_max_steps: ClassVar[int] = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive("ShiftInvert: max_basis_size", self.max_basis_size, int)
        if not isinstance(self.inertia, bool):
            raise TypeError(f"ShiftInvert: inertia is {self.inertia!r}; expected True or False.")
        real = isinstance(self.shift, (int, float)) and not isinstance(self.shift, bool)
        if self.shift is not None and not real:
            raise TypeError(f"ShiftInvert: shift is {self.shift!r}; expected a real number.")

    def unsuited(self, structure: Structure) -> str | None:
        """Why the method cannot solve such a problem, and what to do; None where it can."""
        if structure.which == "largest":
            return "with which='largest'; expected 'smallest' or a sigma."
        if structure.op_inv and not structure.interior and self.shift is None:
            return "with OPinv and no shift; expected ShiftInvert(shift=...), that of the solve."
        if not structure.op_inv and not structure.entries:
            return (
                "with operators that are known by their products alone; expected matrices (arrays, "
                "SciPy sparse matrices, BCOO, SparseOperator), or OPinv, a solve with A - sigma M."
            )
        if structure.op_inv and self.inertia:
            return "with OPinv and inertia=True; expected matrices alone, which it factorises."
        return None

    def factorized(self, matrices: Matrices, sigma: Any) -> ShiftInverse:
        """(A - pole M)^{-1}, below the spectrum where there is no sigma."""
        pole = self.pole(sigma)
        return factorize_shifted(matrices, pole, definite=sigma is None, inertia=self.inertia)

    def pole(self, sigma: Any) -> Any:
        """The shift of the solves."""
        return sigma if self.shift is None else self.shift

    def block_width(self, n: int, k: int) -> int:
        """The width of the blocks that A is mostly applied to: the wanted pairs and the next."""
        return block_width(n, k)

    def mass_probe_steps(self, structure: Structure) -> int:
        """More than other methods take: by itself an indefinite M is hardly seen here."""
        return MASS_STEPS if structure.mass == "general" else STEPS

    def random_width(self, n: int, k: int) -> int:
        """Two columns, see ``WIDTH``."""
        del k
        return min(n, WIDTH)

    def knows_spectrum(self, structure: Structure) -> bool:
        """Whether the solve leaves the interval that the derivative's semi-iteration needs."""
        del structure
        return False

    def derivative_solvers(self, structure: Structure) -> tuple[str, ...]:
        """Which solvers of the derivative's linear systems are tried by default, in this order."""
        del structure
        return ("shift-invert", "minres")

    def cold(self, task: Task) -> Ritz:
        """Find the pairs from a random block."""
        inputs, k = task.inputs, task.rule.k
        n, op_inv = inputs.a.n, inputs.op_inv
        assert op_inv is not None
        factor = shift_inverse_of(op_inv)
        if factor is not None:
            pole, below = factor.pole, factor.negative == 0
        else:
            asked = self.pole(inputs.sigma)
            pole = jnp.asarray(asked, jnp.finfo(task.problem.dtype).dtype)
            below = jnp.array(False)
        order = Order(pole, inputs.sigma, below, task.rule.to_eigenvalue)
        size = default_basis(n, k) if self.max_basis_size is None else self.max_basis_size
        size = max(min(size, n + WIDTH), min(n, k + 2) + 2 * WIDTH)
        norm_a, norm_m = task.pencil.norms
        size_b = norm_a + jnp.abs(pole) * norm_m  # of A - pole M, which takes delta to a residual
        tol = SAFETY * task.rule.tol * norm_a * blocks.reciprocal(size_b)
        floor = ROUNDINGS * tolerances.eps(norm_a.dtype) * size_b / norm_m
        iteration = Iteration(op_inv, inputs.m, task.rule, order, task.key, tol, floor, size, n)
        end = iteration.run(task.random, task.pencil.worthwhile)
        ritz = _as_ritz(task, iteration, end, trusted=factor is not None)
        return ritz if factor is None or not self.inertia else _counted(ritz, task, order, factor)

    def warm(self, task: Task, guess: Block) -> Ritz:
        """The guess is not used: a guess saves fewer solves than it takes to check it."""
        del guess
        return self.cold(task)


class _Pairs(NamedTuple):
    """Ritz pairs X, and S M X."""

    x: Block  # (n, b), M-orthonormal; zero where there is no pair
    mx: Block
    w: Block
    nu: Array
    alive: Array  # (b,)
    solves: Array
    rounds: Array

    @property
    def inverse(self) -> Array:
        """1 / nu, (b,)."""
        return jnp.where(self.alive, 1 / jnp.where(self.alive, self.nu, 1), 0)

    def further(self) -> tuple[Block, Block]:
        """S M X diag(1 / nu), and by what it differs from X.

        Rayleigh-Ritz left no residual along the pairs: what is there is rounding of large nu.
        """
        images = blocks.scale_columns(self.w, self.inverse)
        error = images - self.x
        along = blocks.gram(self.mx, error)
        return images - images @ along, error - self.x @ along

    def delta(self, m: Operator | None) -> Array:
        """||S (A x - lam M x)||_M / ||x||_M, (b,)."""
        _, error = self.further()
        squares = jnp.sum(error.conj() * multiply(m, error), axis=0).real
        return jnp.where(self.alive, jnp.sqrt(jnp.abs(squares)), jnp.inf)


def _refined(iteration: Iteration, pairs: _Pairs, tol: Array) -> _Pairs:
    """The pairs after steps of subspace iteration, while a wanted one is above the tolerance.

    The estimates of the iteration leave out what a completeness check dropped.
    """
    k, m = iteration.rule.k, iteration.mass

    def due(pairs: _Pairs) -> Array:
        measured = iteration.order.measured(pairs.delta(m), pairs.nu)
        return jnp.any(measured[:k] > tol) & (pairs.rounds < REFINEMENTS)

    def refine(pairs: _Pairs) -> _Pairs:
        x, mx = _orthonormal(pairs.further()[0], m)
        w = iteration.solve(mx)
        nu, c = blocks.eigh(blocks.herm(blocks.gram(mx, w)))
        places = iteration.order.places(nu)
        order = jnp.argsort(places)
        nu, c, alive = nu[order], c[:, order], jnp.isfinite(places[order])
        solves, rounds = pairs.solves + nu.shape[0], pairs.rounds + 1
        return _Pairs(x @ c, mx @ c, w @ c, nu, alive, solves, rounds)

    return jax.lax.while_loop(due, refine, pairs)


def _as_ritz(task: Task, iteration: Iteration, end: State, trusted: bool) -> Ritz:
    """The first Ritz pairs with one more multiplication by S M, and their bounds."""
    a, m, n = task.inputs.a, task.inputs.m, task.inputs.a.n
    order, basis = iteration.order, end.basis
    width = block_width(n, task.rule.k)
    alive = jnp.isfinite(end.ritz.places[:width])
    c, nu = blocks.where_columns(alive, end.ritz.c[:, :width]), end.ritz.nu[:width]
    floor = iteration.floor * jnp.max(jnp.abs(nu))
    tol = jnp.maximum(task.rule.tol, floor)
    found = _Pairs(basis.v @ c, basis.dual @ c, basis.w @ c, nu, alive, end.solves, jnp.array(0))
    pairs = _refined(iteration, found, jnp.where(end.phase == COMPLETE, tol, jnp.inf))
    delta = pairs.delta(m)
    x, mx = _orthonormal(pairs.further()[0], m)
    ax = a(x)
    lam = order.pole + pairs.inverse
    rough, exact = _roundings(task, order, pairs.nu, lam, blocks.column_norms(x))
    quotient = jnp.sum(x.conj() * ax, axis=0).real
    # Where they differ by more than the quotient's rounding, the solves are rough.
    agree = jnp.abs(lam - quotient) <= ROUNDINGS * rough
    values = jnp.where((exact <= rough) & agree, lam, quotient)
    # What is left of A x - lam M x tells how exact the solves are.
    r = blocks.residuals(ax, mx, values)
    noise = ROUNDINGS * jnp.minimum(rough, exact)
    noise += blocks.column_norms(r) * blocks.column_norms(x)
    distance = jnp.abs(lam - order.pole) * delta / jnp.maximum(1 - delta, 0.5)
    bounds = jnp.where(delta < 0.5, distance + noise, jnp.inf)
    return Ritz(
        values=values,
        vectors=x,
        AX=ax,
        MX=mx,
        steps=end.steps,
        matvecs=jnp.array(width),
        matvecs_M=jnp.array(0) if m is None else end.products + (5 + 4 * pairs.rounds) * width,
        stagnated=end.steps < task.rule.max_steps,  # if it did not converge
        finite=jnp.all(jnp.isfinite(x)),
        definite=end.definite,
        complete=end.phase == COMPLETE,
        history=end.history,
        inverted=Inverted(
            order.pole,
            reached=order.measured(delta, pairs.nu) <= tol,
            distances=bounds if trusted else None,
            solves=pairs.solves,
            counted=jnp.array(UNKNOWN),
        ),
    )


def _counted(ritz: Ritz, task: Task, order: Order, factor: ShiftInverse) -> Ritz:
    """The pairs with the count of the eigenvalues up to the k-th, by inertia."""
    k, inverted = task.rule.k, ritz.inverted
    assert inverted is not None
    if ritz.values.shape[0] == k:
        return ritz
    values = ritz.values
    places = values if order.sigma is None else jnp.abs(values - order.sigma)
    gap = places[k] - places[k - 1]
    reach = places[k - 1] + NEAR * gap
    below = factor.count_below(reach if order.sigma is None else order.sigma + reach)
    counted = below
    if order.sigma is not None:
        outside = factor.count_below(order.sigma - reach)
        counted = jnp.where((below < 0) | (outside < 0), UNKNOWN, below - outside)
    # Where the k-th and the next cannot be told apart, no shift lies between them.
    apart = inverted.distances is not None and inverted.distances[k - 1] < NEAR * gap
    counted = jnp.where(apart, counted, UNKNOWN)
    complete = jnp.where(counted == UNKNOWN, ritz.complete, counted == k)
    return ritz._replace(complete=complete, inverted=inverted._replace(counted=counted))


def _orthonormal(block: Block, m: Any) -> tuple[Block, Block]:
    """Nearly M-orthonormal columns, made orthonormal by the smallest change; zero ones stay."""
    for _ in range(2):
        dual = multiply(m, block)
        g = blocks.herm(blocks.gram(block, dual))
        d, u = blocks.eigh(g)
        keep = d > tolerances.rank(block.dtype) * jnp.max(d)
        root = jnp.sqrt(blocks.reciprocal(jnp.where(keep, d, 0))).astype(block.dtype)
        block = block @ (u * root[None, :] @ u.conj().T)
    return block, multiply(m, block)


def _roundings(
    task: Task, order: Order, nu: Array, lam: Array, lengths: Array
) -> tuple[Array, Array]:
    """The rounding of the Rayleigh quotient, and that of pole + 1 / nu, (b,) each."""
    eps = tolerances.eps(nu.dtype)
    norm_a, norm_m = task.pencil.norms
    quotient = eps * (norm_a + jnp.abs(lam) * norm_m) * lengths**2
    largest = jnp.max(jnp.where(jnp.isfinite(nu), jnp.abs(nu), 0))
    relative = eps * largest * blocks.reciprocal(jnp.abs(nu))
    return quotient, relative * jnp.abs(lam - order.pole) + eps * jnp.abs(order.pole)
