"""The picture of README.md: two eigenvalues approach each other, and meet.

    python -m tests.docs.picture      (needs matplotlib; writes notebooks/degeneracy.svg)

Of order 40, with a spectrum that is known: 1, 1 + d, 2, 3, ... in a random orthonormal basis. The
loss is y^T P y, where P projects onto the space of the two smallest eigenvalues. Its derivatives
along a direction E are compared with contour integrals around the two eigenvalues,

    P' = 1/(2 pi i) oint R E R dz,    P'' = 2/(2 pi i) oint R E R E R dz,    R = (z - A)^-1,

which know nothing of d (Kato, Perturbation Theory for Linear Operators, II.2). The trapezoidal
rule on a circle is exact to rounding.
"""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from jax_peig import eigenspace, partial_eigh

TARGET = pathlib.Path(__file__).resolve().parents[2] / "notebooks" / "degeneracy.svg"
DISTANCES = np.append(10.0 ** -np.arange(1.0, 16.0), 0.0)
SOLVERS = {
    "jnp.linalg.eigh": lambda A: jnp.linalg.eigh(A)[1][:, :2],
    "partial_eigh": lambda A: partial_eigh(A, k=2).eigenvectors,
    "eigenspace": lambda A: eigenspace(A, k=2).basis,
}


@dataclasses.dataclass(frozen=True)
class Problem:
    """A(d) = Q diag(1, 1 + d, 2, 3, ...) Q^T, with a direction and a vector of the loss."""

    basis: np.ndarray  # Q (n, n)
    direction: np.ndarray  # E (n, n), symmetric
    y: np.ndarray  # (n,)

    def matrix(self, d):
        """The matrix A(d) (n, n)."""
        levels = np.append([1.0, 1.0 + d], np.arange(2.0, len(self.y)))
        A = (self.basis * levels) @ self.basis.T
        return (A + A.T) / 2

    def exact(self, d, points=64):
        """First and second derivative of y^T P y along E."""
        z = 1.0 + 0.5 * np.exp(2j * np.pi * np.arange(points) / points)
        A, E, y = self.matrix(d), self.direction, self.y
        first = second = 0.0
        for at in z:
            right = np.linalg.solve(at * np.eye(len(y)) - A, y)  # R y; R is symmetric
            moved = E @ right
            weight = (at - 1.0) / points  # dz / (2 pi i)
            first += weight * right @ moved
            second += 2 * weight * moved @ np.linalg.solve(at * np.eye(len(y)) - A, moved)
        return np.real(first), np.real(second)


def problem(n=40):
    """A fixed random problem."""
    rng = np.random.default_rng(0)
    E = rng.normal(size=(n, n))
    basis = np.linalg.qr(rng.normal(size=(n, n)))[0]
    return Problem(basis, (E + E.T) / np.sqrt(8 * n), rng.normal(size=n) / np.sqrt(n))


def errors(distances=DISTANCES):
    """Relative errors by solver, (distances, 2): of the first and of the second derivative."""
    given = problem()
    exact = np.array([given.exact(d) for d in distances])
    found = {}
    for name, vectors in SOLVERS.items():

        def along(t, A, vectors=vectors):
            return jnp.sum((given.y @ vectors(A + t * given.direction)) ** 2)

        slope = jax.grad(along)
        both = jax.jit(lambda A, slope=slope: jnp.stack(
            [slope(0.0, A), jax.grad(slope)(0.0, A)]
        ))  # fmt: skip
        values = np.array([both(given.matrix(d)) for d in distances])
        found[name] = np.abs(values / exact - 1)
    return found


def draw(target=TARGET):
    """Write the picture."""
    import matplotlib.pyplot as plt

    style = {"font.size": 13, "svg.hashsalt": "degeneracy", "axes.grid": True, "grid.alpha": 0.3}
    with plt.rc_context(style):
        fig, axes = plt.subplots(
            1, 2, figsize=(9, 3.6), sharex=True, sharey=True, layout="constrained"
        )
        at = np.where(DISTANCES > 0, DISTANCES, 1e-17)
        for (name, found), color, marker in zip(
            errors().items(), ("#d55e00", "#0072b2", "#009e73"), ("s", "o", "v"), strict=True
        ):
            for ax, error in zip(axes, found.T, strict=True):
                seen = np.maximum(error, 1e-16)  # an error of zero has no place on this axis
                ax.loglog(at, seen, marker + "-", color=color, label=name, markersize=5)
                for x in at[np.isnan(error)]:
                    ax.text(x, 1e14, "NaN", color=color, ha="center", weight="bold")
        for ax, title in zip(axes, ("first derivative", "second derivative"), strict=True):
            ax.set_title(title)
            ax.set_xlabel("distance of the two eigenvalues")
            ax.set_xticks([1e-17, 1e-13, 1e-9, 1e-5, 1e-1], ["0", "1e-13", "1e-9", "1e-5", "0.1"])
            ax.minorticks_off()
        axes[0].set_ylabel("relative error")
        axes[0].set_xlim(1e-18, 1.0)
        axes[0].set_ylim(1e-17, 1e18)
        axes[0].set_yticks([1e-16, 1e-8, 1.0, 1e8, 1e16])
        axes[0].legend(loc="upper right")
        fig.savefig(target, metadata={"Date": None}, facecolor="white")
        plt.close(fig)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    draw()
