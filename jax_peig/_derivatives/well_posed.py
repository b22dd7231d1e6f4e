"""Does a gradient of eigenpairs exist? The reverse rule checks its cotangents.

Eigenvectors are only defined up to a unitary rotation inside a cluster (a sign for a single real
vector, a phase for a single complex one). A cotangent (lb, Xb) of (lam, X) has a derivative where
the loss does not depend on that choice. With B = X^H Xb and D the cluster mask:

1. gauge      D o (B - B^H) = 0: eq. 2.13 of Kasim (arXiv:2011.04366). The diagonal is included: it
              is the phase of a complex vector.
2. occupation lb is constant over a cluster whose vectors have a cotangent too. The cotangent of the
              whole block X_g^H A X_g is C_g, of which lb gives only the diagonal: C_g is not
              determined unless lb is constant.
3. cut        where k cuts a cluster, its vectors have no cotangent but the trivial one, the change
              of norm.

With eigenvalue cotangents alone, 2. is waived: X diag(lb) X^H is an element of Clarke's generalised
gradient, as JAX returns one at ties of max and sort. For tangents of cotangents (forward over
reverse) it is not: the off-diagonal part of the second derivative would be missing.
"""

import warnings
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jax_peig._core import blocks, tolerances
from jax_peig._core.checks import is_array, kind_of
from jax_peig._core.results import PartialEigh
from jax_peig._core.types import Array, Block, PyTree
from jax_peig._core.vectors import VectorShape, outline
from jax_peig._derivatives.systems import Point
from jax_peig._diagnostics import clusters

# A loss may vary this much faster than the eigenvalues: a cluster of some width leaves a cotangent
# with a gauge-dependent part, of at most this times width / scale.
STEEPNESS = 100


class Causes(NamedTuple):
    """Why a derivative does not exist, a boolean scalar each; see the list above."""

    gauge: Array
    occupation: Array
    cut: Array

    def any(self) -> Array:
        """Whether there is a cause."""
        return self.gauge | self.occupation | self.cut


def gauge_part(b: Array, labels: Array) -> Array:
    """D o (B - B^H), the part of B = X^H Xb along rotations inside clusters: eq. 2.13."""
    return jnp.where(clusters.mask(labels), b - b.conj().T, 0)


def pairs_ill_posed(
    at: Point, skew: Array, lb: Array | None, xb: Block | None, *, derived: bool
) -> Causes:
    """Find out whether cotangents of (lam, X) ask for a derivative that does not exist, and why.

    Parameters
    ----------
    at : Point
        The pairs, their clusters, and which of them k cuts.
    skew : (k, k)
        The gauge-dependent part, see `gauge_part`.
    lb, xb : (k,), (n, k) or None
        Cotangents in the Hermitian pairing; None is zero.
    derived : bool
        Whether ``skew``, ``lb`` and ``xb`` are tangents of those.
    """
    x, mx = at.system.x, at.system.mx
    d = clusters.mask(at.forward.labels)
    allowed = _allowed(at.lam, d)
    gauge = occupation = cut = jnp.array(False)
    touched = jnp.zeros(d.shape[0], bool)
    if xb is not None:
        # Rounding of B_ij is of the size ||x_i|| ||xb_j||.
        size = _over_cluster(blocks.column_norms(x), d) * _over_cluster(blocks.column_norms(xb), d)
        gauge = jnp.any(jnp.abs(skew) > allowed * size[None, :])
        b = jnp.where(d, blocks.gram(x, xb), 0)
        small = tolerances.gauge(at.lam.dtype)
        touched = _over_cluster(jnp.max(jnp.abs(b), axis=1), d) > small * size
        if not derived:
            rest = blocks.column_norms(xb - mx @ blocks.herm(b))
            relevant = rest > small * _over_cluster(blocks.column_norms(xb), d)
            cut = jnp.any(at.forward.cut & relevant)
    if lb is not None:
        spread = jnp.where(d, jnp.abs(lb[:, None] - lb[None, :]), 0)
        differs = jnp.any(spread > allowed * jnp.max(jnp.abs(lb)), axis=1)
        occupation = jnp.any(differs if derived else differs & touched)
    return Causes(gauge, occupation, cut)


def turning_part(b: Array, r: Array, rb: Array | None) -> Array:
    """B - B^H + 2 (R C - C R), C = herm(Rb): zero where no X Q, Q^H R Q changes the loss."""
    skew = b - b.conj().T
    if rb is None:
        return skew
    c = blocks.herm(rb)
    return skew + 2 * (r @ c - c @ r)


def space_ill_posed(
    at: Point, skew: Array, lb: Array | None, xb: Block | None, *, derived: bool
) -> Causes:
    """`pairs_ill_posed` for cotangents of (R, X) of the whole space, lb (k, k) that of R.

    1. gauge  ``skew``, see `turning_part`, is zero but for rounding, however wide the space is.
    2. block  without Xb, C = herm(lb) is a multiple of I over every cluster: a rotation inside the
              cluster leaves R as it is, and would change C. It is a matter of the gauge too.
    3. cut    where k cuts a cluster, Xb of its pairs lies in the span of M X, and where there is an
              Xb, lb does not reach their block. A loss of R alone has a first derivative there: a
              generalised gradient, as of eigenvalues alone.
    """
    x, mx, lam = at.system.x, at.system.mx, at.lam
    small = tolerances.gauge(lam.dtype)
    size, no = jnp.zeros_like(lam[0]), jnp.array(False)
    block = cut = no
    if xb is not None:
        lengths = blocks.column_norms(xb)
        size = jnp.max(blocks.column_norms(x)) * jnp.max(lengths)
        if not derived:
            rest = blocks.column_norms(xb - mx @ blocks.gram(x, xb))
            cut = jnp.any(at.forward.cut & (rest > small * jnp.max(lengths)))
    if lb is not None:
        largest = jnp.max(jnp.abs(lb))
        if xb is not None and not derived:
            within = at.forward.cut[:, None] & at.forward.cut[None, :]
            cut |= jnp.any(within & (jnp.abs(lb) > small * largest)) & (size > 0)
        size = size + jnp.max(jnp.abs(lam)) * largest
        if xb is None and not derived:
            d = clusters.mask(at.forward.labels)
            off = _off_multiple(blocks.herm(lb), d)
            block = jnp.any(jnp.abs(off) > _allowed(lam, d) * largest)
    return Causes(block | jnp.any(jnp.abs(skew) > small * size), no, cut)


def crossing_ill_posed(
    at: Point, skew: Array, lb: Array | None, xb: Block | None, *, derived: bool
) -> Causes:
    """`pairs_ill_posed` for cotangents of (D o R, X), lb (k, k) that of the blocks.

    A block has a first derivative for every lb, unless k cuts its cluster. A second derivative has
    one only where lb is a multiple of I over the cluster: then it is that of the cluster's sum.
    """
    causes = pairs_ill_posed(at, skew, None, xb, derived=derived)
    if lb is None:
        return causes
    d = clusters.mask(at.forward.labels)
    inside = jnp.where(d, jnp.abs(lb), 0)
    cut = causes.cut | jnp.any(at.forward.cut[:, None] & (inside > 0))
    if not derived:
        return causes._replace(cut=cut)
    off = jnp.abs(_off_multiple(blocks.herm(lb), d))
    turned = jnp.any(off > _allowed(at.lam, d) * jnp.max(jnp.abs(lb)))
    return causes._replace(cut=cut, occupation=turned)


def _off_multiple(c: Array, d: Array) -> Array:
    """C minus the nearest multiple of I over every cluster, zero off clusters, (k, k)."""
    diagonal = blocks.diagonal(c)
    real = diagonal.dtype
    average = d.astype(real) / jnp.sum(d, axis=1, keepdims=True, dtype=real)
    return jnp.where(d, c - jnp.diag(average @ diagonal).astype(c.dtype), 0)


def _allowed(values: Array, d: Array) -> Array:
    """The relative size that counts as rounding, for every two pairs of a cluster, (k, k)."""
    scale = jnp.max(jnp.abs(values))
    width = jnp.where(d, jnp.abs(values[:, None] - values[None, :]), 0)
    width = jnp.max(width, axis=1, keepdims=True) / jnp.where(scale > 0, scale, 1)
    return tolerances.gauge(values.dtype) + STEEPNESS * jnp.maximum(width, width.T)


def _over_cluster(size: Array, d: Array) -> Array:
    """The largest of ``size`` (k,) over the cluster of each pair, (k,)."""
    return jnp.max(jnp.where(d, size[None, :], 0), axis=1)


def project_gauge(result: PartialEigh, cotangent: Array | PyTree) -> Array | PyTree:
    """Remove the gauge-dependent part of a cotangent of the eigenvectors.

    Inside a cluster the eigenvectors are one arbitrary choice. A cotangent Xb may have a part that
    depends on the choice, K = D o (B - B^H) with B = X^H Xb (eq. 2.13 of Kasim, arXiv:2011.04366).
    Xb - M X K / 2 is the nearest cotangent without such a part. It agrees with Xb on every
    perturbation of X except the rotations inside clusters.

    Parameters
    ----------
    result : PartialEigh
        The result of `partial_eigh`.
    cotangent : (n, k), or as the eigenvectors
        The cotangent of ``result.eigenvectors`` in JAX's convention: ``jax.grad`` returns it, and a
        function from ``jax.vjp`` takes it.

    Returns
    -------
    as the cotangent
        The cotangent without the part for which no derivative exists. It costs 3 n k^2 operations
        and no matvecs.

    Raises
    ------
    TypeError
        If the result is none of `partial_eigh`, or the cotangent no floating array.
    ValueError
        If the shapes do not match.

    Differentiability
    -----------------
    * In: ``cotangent``, in which it is linear, and the eigenvectors of ``result``.
    * Modes: forward and reverse.
    * Orders: any.
    * Refused: never; the eigenvectors have their own terms, those of `partial_eigh`.

    Examples
    --------
    A loss of the raw vectors has no gradient at a double eigenvalue; its invariant part has one.

    >>> import jax, jax.numpy as jnp
    >>> from jax_peig import partial_eigh, project_gauge
    >>> A = jnp.diag(jnp.array([1.0, 1.0, 2.0, 3.0, 5.0]))
    >>> vectors = lambda A: partial_eigh(A, k=2).eigenvectors
    >>> result = partial_eigh(A, k=2)
    >>> _, pull = jax.vjp(vectors, A)
    >>> raw = jnp.arange(10.0).reshape(5, 2)
    >>> bool(jnp.isnan(pull(raw)[0]).all())
    True
    >>> bool(jnp.isfinite(pull(project_gauge(result, raw))[0]).all())
    True
    """
    if not isinstance(result, PartialEigh):
        raise TypeError(
            f"project_gauge: result is of type {type(result).__name__}; expected the PartialEigh "
            "that partial_eigh(...) returns."
        )
    x = result.eigenvectors
    shape = VectorShape.of_columns(x)
    shaped = jnp.ndim(result.eigenvalues) == 1 and not shape.is_flat
    if shaped:
        if outline(cotangent) != outline(x):
            raise ValueError(
                f"project_gauge: cotangent has the structure {outline(cotangent)}; expected that "
                f"of the eigenvectors, {outline(x)}."
            )
        x, cotangent = shape.ravel(x), shape.ravel(cotangent)
    if not is_array(cotangent) or not jnp.issubdtype(cotangent.dtype, jnp.inexact):
        raise TypeError(
            f"project_gauge: cotangent is of {kind_of(cotangent)}; expected a floating array "
            f"{x.shape}. Convert it, for example with jnp.asarray(cotangent, float)."
        )
    if cotangent.shape != x.shape:
        raise ValueError(
            f"project_gauge: cotangent has shape {cotangent.shape}; expected "
            f"that of the eigenvectors, {x.shape}."
        )
    skew = gauge_part(blocks.gram(x, cotangent.conj()), result.info.clusters)
    mx = x if result.info.MX is None else shape.ravel(result.info.MX)
    projected = cotangent - (mx @ skew).conj() / 2
    return shape.unravel(projected) if shaped else projected


def warn_ill_posed(bad: np.ndarray) -> None:
    """Warn on the host; called back from compiled code."""
    if not np.any(bad):
        return
    warnings.warn(
        "jax_peig: a gradient depends on an arbitrary choice (of the vectors inside a cluster of "
        "eigenvalues, of the phase of a complex vector, or of the part of a cluster that k cuts), "
        "or needs more than (lam, X) carry; the number returned is that of one choice. Make the "
        "loss invariant, take whole clusters, or remove the part with project_gauge.",
        stacklevel=2,
    )


def warn_unconverged(converged: np.ndarray) -> None:
    """Warn on the host; called back from compiled code."""
    if np.all(converged):
        return
    warnings.warn(
        "jax_peig: eigenpairs, or the linear systems of a derivative, did not reach their "
        "tolerance, and the derivative is inaccurate; raise max_steps (of partial_eigh or of "
        "Derivative), loosen tol, give a preconditioner, or work in float64.",
        stacklevel=2,
    )
