"""Derivatives at exact degeneracy: eigenspaces, spectral functions, singular values, and peers.

    python -m tests.benchmarks.degeneracy [--save FILE.json | --keep]

A matrix of order 12 has the eigenvalues 1, 1, 1, 2, 2, 3.5, ... in a random basis, and one of shape
(9, 7) the singular values 3, 3, 3, 2, 1, ... Each loss is differentiated once and twice along a
random direction by jax_peig and, of separate pairs or triplets, by ``jnp.linalg``, ``torch.linalg``
and xitorch, where installed: in reverse mode, and once more (forward over reverse in JAX). Shown is
the relative error against central differences, of sixth order, of LAPACK's values, which are good
to some 1e-11 in the first derivative and 1e-9 in the second. "nan" is a derivative that was
refused, or that came out so.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from tests.support import spectra

from . import page, report
from .separate import PEERS, Jnp, Peer, SeparateLoss, derivatives

K = 5
CENTRAL = {  # weights of f(t + j h), j = 1, 2, 3; f(t) itself has the last
    1: (np.array([45.0, -9.0, 1.0]) / 60, 0.0),
    2: (np.array([270.0, -27.0, 2.0]) / 180, -490.0 / 180),
}
STEPS = {1: 0.004, 2: 0.02}
NAMES = ("ours", *(peer.name for peer in PEERS))
HEADINGS = ["loss", *NAMES, *(f"second: {name}" for name in NAMES)]
WIDTHS = [30, *len(NAMES) * [9], *len(NAMES) * [16]]


@dataclass(frozen=True)
class Loss:
    """A function of a matrix, in two ways.

    Attributes
    ----------
    name : str
    ours : callable
        With jax_peig.
    separate : callable
        With the separate pairs or triplets of a peer.
    singular : bool
        Whether it takes the rectangular matrix.
    """

    name: str
    ours: Callable[[Any], Any]
    separate: SeparateLoss
    singular: bool = False


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line; returns 1 when a derivative of ours is wrong by 1e-6.

    A refused one is not.
    """
    options = _parse(arguments)
    results = report.begin(options) | {"rows": []}
    for peer in PEERS:
        if not peer.installed():
            print(f"{peer.name}: not installed")
    print(report.cells(HEADINGS, WIDTHS))
    for loss in losses()[: 2 if options.quick else None]:
        row = errors(loss)
        results["rows"].append(row)
        print(report.cells(_cells(row), WIDTHS), flush=True)
    page.finish(results, options)
    ours = [row[f"ours_{order}"] for row in results["rows"] for order in (1, 2)]
    return int(any(error > 1e-6 for error in ours))


def markdown(results: dict[str, Any]) -> str:
    """The table for the page."""
    return report.markdown(HEADINGS, map(_cells, results["rows"]))


def _cells(row: dict[str, Any]) -> list[str]:
    keys = [f"{name}_{order}" for order in STEPS for name in NAMES]
    shown = [report.number(row[key], ".1g") if key in row else "-" for key in keys]
    return [row["loss"], *shown]


def errors(loss: Loss) -> dict[str, Any]:
    """Relative errors of first and second derivatives along a direction."""
    A, E = matrices(loss.singular)
    found: dict[str, Any] = {"loss": loss.name}

    def value(t: float) -> float:
        return float(loss.separate(Jnp(), jnp.asarray(A + t * E)))

    wanted = [difference(value, order) for order in STEPS]
    both: dict[str, Any] = {"ours": derivatives(loss.ours, A, E)}
    for peer in PEERS:
        if peer.installed():
            both[peer.name] = peer.derivatives(loss.separate, A, E)
    for name, values in both.items():
        for order, value_found, right in zip(STEPS, values, wanted, strict=True):
            found[f"{name}_{order}"] = abs(value_found - right) / abs(right)
    return found


def difference(f: Callable[[float], float], order: int) -> float:
    """A derivative at zero by central differences of sixth order."""
    weights, middle = CENTRAL[order]
    h, sign = STEPS[order], -1.0 if order == 1 else 1.0
    pairs = [w * (f(j * h) + sign * f(-j * h)) for j, w in enumerate(weights, 1)]
    return (sum(pairs) + (middle * f(0.0) if middle else 0.0)) / h**order


def matrices(singular: bool) -> tuple[np.ndarray, np.ndarray]:
    """The matrix, and a direction of norm one half."""
    rng = np.random.default_rng(5)
    if singular:
        s = np.array([3.0, 3.0, 3.0, 2.0, 1.0, 0.7, 0.5])
        A = spectra.unitary(rng, 9)[:, :7] * s @ spectra.unitary(rng, 7)
        E = rng.standard_normal(A.shape)
    else:
        A = spectra.pencil([1.0, 1.0, 1.0, 2.0, 2.0, *np.arange(3.5, 10.0)], seed=3).A
        E = spectra.hermitian(rng.standard_normal(A.shape))
    return A, E / (2 * np.linalg.norm(E, 2))


def losses() -> list[Loss]:
    """All that is in the table."""
    import jax_peig

    probe = np.random.default_rng(6).standard_normal(12)
    y = jnp.asarray(probe)

    def fermi(peer: Peer, w: Any) -> Any:
        return 1 / (1 + peer.exp((w - 1.7) / 0.4))

    def h(w: Any) -> Any:
        return fermi(Jnp(), w)

    def space(a: Any) -> Any:
        return jax_peig.eigenspace(a, k=K)

    def smeared(peer: Peer, a: Any) -> Any:
        w, X = peer.pairs(a, K)
        return (fermi(peer, w) * (peer.array(probe) @ X) ** 2).sum()

    def smeared_density(peer: Peer, a: Any) -> Any:
        w, X = peer.pairs(a, K)
        return peer.array(probe) @ (X**2 @ fermi(peer, w))

    def thresholded(peer: Peer, a: Any) -> Any:
        u, s, vh = peer.triplets(a, 7)
        return (((u * (s - 1.5).clip(min=0)[None, :]) @ vh) ** 3).sum()

    def truncated(peer: Peer, a: Any) -> Any:
        u, s, vh = peer.triplets(a, 4)
        return (((u * s[None, :]) @ vh) ** 3).sum()

    def least_squares(peer: Peer, a: Any) -> Any:
        u, s, vh = peer.triplets(a, 4)
        return (((peer.array(probe[:9]) @ u) / s) @ vh * peer.array(probe[:7])).sum()

    def polar(peer: Peer, a: Any) -> Any:
        u, _, vh = peer.triplets(a, 7)
        return ((u @ vh) ** 3).sum()

    return [
        Loss(
            "sum of w^2",
            lambda a: jnp.sum(space(a).rayleigh ** 2),
            lambda peer, a: (peer.pairs(a, K)[0] ** 2).sum(),
        ),
        Loss(
            "sum of Fermi functions of w",
            lambda a: jax_peig.spectral_sum(h, a, k=K),
            lambda peer, a: fermi(peer, peer.pairs(a, K)[0]).sum(),
        ),
        Loss(
            "y^T X X^T y",
            lambda a: y @ jax_peig.projector_apply(space(a), y),
            lambda peer, a: ((peer.array(probe) @ peer.pairs(a, K)[1]) ** 2).sum(),
        ),
        Loss(
            "y^T X f(R) X^T y, f of Fermi",
            lambda a: y @ jax_peig.spectral_apply(h, space(a), y),
            smeared,
        ),
        Loss(
            "weighted smeared density",
            lambda a: y @ jax_peig.density(h, space(a)),
            smeared_density,
        ),
        Loss(
            "nuclear norm",
            lambda a: jax_peig.nuclear_norm(a).norm,
            lambda peer, a: peer.triplets(a, 7)[1].sum(),
            True,
        ),
        Loss(
            "Ky Fan norm, k = 3",
            lambda a: jax_peig.ky_fan_norm(a, 3),
            lambda peer, a: peer.triplets(a, 3)[1].sum(),
            True,
        ),
        Loss(
            "sum of s^3, k = 4",
            lambda a: jnp.sum(jax_peig.partial_svd(a, 4).s ** 3),
            lambda peer, a: (peer.triplets(a, 4)[1] ** 3).sum(),
            True,
        ),
        Loss(
            "y^T U U^T y, k = 3",
            lambda a: jnp.sum((y[:9] @ jax_peig.partial_svd(a, 3).U) ** 2),
            lambda peer, a: ((peer.array(probe[:9]) @ peer.triplets(a, 3)[0]) ** 2).sum(),
            True,
        ),
        Loss(
            "thresholding, entries cubed",
            lambda a: jnp.sum(jax_peig.singular_value_threshold(a, 1.5, 4).X ** 3),
            thresholded,
            True,
        ),
        Loss(
            "truncation to k = 4, entries cubed",
            lambda a: jnp.sum(jax_peig.low_rank(a, 4).X ** 3),
            truncated,
            True,
        ),
        Loss(
            "z^T of least squares, k = 4",
            lambda a: (
                y[:7]
                @ jax_peig.singular_apply(
                    lambda s: 1 / s, jax_peig.singular_space(a, 4), y[:9], sides="VU"
                )
            ),
            least_squares,
            True,
        ),
        Loss(
            "polar factor, entries cubed",
            lambda a: jnp.sum(
                jax_peig.singular_apply(None, jax_peig.singular_space(a, 7), jnp.eye(7)) ** 3
            ),
            polar,
            True,
        ),
        Loss(
            "sum of s^3 by the space, k = 4",
            lambda a: jax_peig.singular_sum(lambda s: s**3, a, 4),
            lambda peer, a: (peer.triplets(a, 4)[1] ** 3).sum(),
            True,
        ),
    ]


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    return report.parser("degeneracy", __doc__, timed=False).parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
