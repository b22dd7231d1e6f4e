"""Derivatives at exact degeneracy: eigenspaces, spectral functions, singular values, and peers.

    python -m tests.benchmarks.degeneracy [--save FILE.json]

A matrix of order 12 has the eigenvalues 1, 1, 1, 2, 2, 3.5, ... in a random basis, and one of shape
(9, 7) the singular values 3, 3, 3, 2, 1, ... Each loss is differentiated once and twice along a
random direction by jax_peig and by ``jnp.linalg.eigh`` or ``svd``, in reverse mode and forward over
reverse. Shown is the relative error against central differences, of sixth order, of LAPACK's
values, which are good to some 1e-11 in the first derivative and 1e-9 in the second. "nan" is a
derivative that was refused.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .. import spectra
from . import report

K = 5
CENTRAL = {  # weights of f(t + j h), j = 1, 2, 3; f(t) itself has the last
    1: (np.array([45.0, -9.0, 1.0]) / 60, 0.0),
    2: (np.array([270.0, -27.0, 2.0]) / 180, -490.0 / 180),
}
STEPS = {1: 0.004, 2: 0.02}
WIDTHS = [30, 12, 12, 14, 14]
HEADINGS = ["", "ours, first", "second", "jnp, first", "second"]


@dataclass(frozen=True)
class Loss:
    """A function of a matrix, in three ways.

    Attributes
    ----------
    name : str
    ours, jnp : callable
        With jax_peig, and with ``jnp.linalg``.
    singular : bool
        Whether it takes the rectangular matrix.
    """

    name: str
    ours: Callable[[Any], Any]
    jnp: Callable[[Any], Any]
    singular: bool = False


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns 1 when a derivative of ours is wrong by 1e-6.

    A refused one is not.
    """
    options = _parse(arguments)
    results: dict[str, Any] = {"machine": report.begin(), "rows": []}
    print(report.cells(HEADINGS, WIDTHS))
    for loss in losses()[: 2 if options.quick else None]:
        row = errors(loss)
        results["rows"].append(row)
        shown = [f"{row[name]:.1e}" for name in ("ours_1", "ours_2", "jnp_1", "jnp_2")]
        print(report.cells([loss.name, *shown], WIDTHS), flush=True)
    report.save(results, options.save)
    found = [row[f"ours_{order}"] for row in results["rows"] for order in (1, 2)]
    return int(any(error > 1e-6 for error in found))


def errors(loss: Loss) -> dict[str, Any]:
    """Relative errors of first and second derivatives along a direction."""
    A, E = matrices(loss.singular)
    found: dict[str, Any] = {"loss": loss.name}
    wanted = {order: difference(lambda t: float(loss.jnp(A + t * E)), order) for order in STEPS}
    for who in ("ours", "jnp"):
        f = getattr(loss, who)
        slope = jax.jit(lambda a, f=f: jnp.sum(jax.grad(f)(a) * E))
        first, second = jax.jvp(slope, (A,), (E,))
        for order, value in ((1, first), (2, second)):
            error = abs(float(value) - wanted[order]) / abs(wanted[order])
            found[f"{who}_{order}"] = error
    return found


def difference(f: Callable[[float], float], order: int) -> float:
    """A derivative at zero by central differences of sixth order."""
    weights, middle = CENTRAL[order]
    h, sign = STEPS[order], -1.0 if order == 1 else 1.0
    pairs = [w * (f(j * h) + sign * f(-j * h)) for j, w in enumerate(weights, 1)]
    return (sum(pairs) + (middle * f(0.0) if middle else 0.0)) / h**order


def matrices(singular: bool) -> tuple[Any, Any]:
    """The matrix, and a direction of norm one half."""
    rng = np.random.default_rng(5)
    if singular:
        s = np.array([3.0, 3.0, 3.0, 2.0, 1.0, 0.7, 0.5])
        A = spectra.unitary(rng, 9)[:, :7] * s @ spectra.unitary(rng, 7)
        E = rng.standard_normal(A.shape)
    else:
        A = spectra.pencil([1.0, 1.0, 1.0, 2.0, 2.0, *np.arange(3.5, 10.0)], seed=3).A
        E = spectra.hermitian(rng.standard_normal(A.shape))
    return jnp.asarray(A), jnp.asarray(E / (2 * np.linalg.norm(E, 2)))


def losses() -> list[Loss]:
    """All that is in the table."""
    import jax_peig

    y = jnp.asarray(np.random.default_rng(6).standard_normal(12))

    def fermi(w: Any) -> Any:
        return 1 / (1 + jnp.exp((w - 1.7) / 0.4))

    def space(a: Any) -> Any:
        return jax_peig.eigenspace(a, k=K)

    def pairs(a: Any) -> Any:
        w, X = jnp.linalg.eigh((a + a.T) / 2)
        return w[:K], X[:, :K]

    def smeared(a: Any) -> Any:
        w, X = pairs(a)
        return jnp.sum(fermi(w) * (y @ X) ** 2)

    def triplets(a: Any) -> Any:
        return jnp.linalg.svd(a, full_matrices=False)

    def thresholded(a: Any) -> Any:
        u, s, vh = triplets(a)
        return jnp.sum(((u * jnp.maximum(s - 1.5, 0)[None, :]) @ vh) ** 3)

    return [
        Loss(
            "sum of w^2",
            lambda a: jnp.sum(space(a).rayleigh ** 2),
            lambda a: jnp.sum(pairs(a)[0] ** 2),
        ),
        Loss(
            "sum of Fermi functions of w",
            lambda a: jax_peig.spectral_sum(fermi, a, k=K),
            lambda a: jnp.sum(fermi(pairs(a)[0])),
        ),
        Loss(
            "y X X^T y",
            lambda a: y @ jax_peig.projector_apply(space(a), y),
            lambda a: jnp.sum((y @ pairs(a)[1]) ** 2),
        ),
        Loss(
            "y X f(R) X^T y, f of Fermi",
            lambda a: y @ jax_peig.spectral_apply(fermi, space(a), y),
            smeared,
        ),
        Loss(
            "weighted smeared density",
            lambda a: y @ jax_peig.density(fermi, space(a)),
            lambda a: y @ jnp.sum(fermi(pairs(a)[0])[None, :] * pairs(a)[1] ** 2, axis=1),
        ),
        Loss(
            "nuclear norm",
            lambda a: jax_peig.nuclear_norm(a).norm,
            lambda a: jnp.sum(triplets(a)[1]),
            True,
        ),
        Loss(
            "Ky Fan norm, k = 3",
            lambda a: jax_peig.ky_fan_norm(a, 3),
            lambda a: jnp.sum(triplets(a)[1][:3]),
            True,
        ),
        Loss(
            "sum of s^3, k = 4",
            lambda a: jnp.sum(jax_peig.partial_svd(a, 4).s ** 3),
            lambda a: jnp.sum(triplets(a)[1][:4] ** 3),
            True,
        ),
        Loss(
            "y U U^T y, k = 3",
            lambda a: jnp.sum((y[:9] @ jax_peig.partial_svd(a, 3).U) ** 2),
            lambda a: jnp.sum((y[:9] @ triplets(a)[0][:, :3]) ** 2),
            True,
        ),
        Loss(
            "thresholding, entries cubed",
            lambda a: jnp.sum(jax_peig.singular_value_threshold(a, 1.5, 4).X ** 3),
            thresholded,
            True,
        ),
    ]


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    return report.parser("degeneracy", __doc__, timed=False).parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
