"""Clusters: groups of eigenvalues that cannot be told apart."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jax_peig._core import blocks, tolerances
from jax_peig._core.types import Array

# A guard vector is vague where its bound is above this part of its distance to the wanted pairs.
VAGUE = 0.1


class Clusters(NamedTuple):
    """The clusters of k wanted pairs."""

    labels: Array  # (k,), equal inside a cluster
    cut: Array  # (k,), pairs of a cluster that k cuts
    gap: Array  # distance of the k eigenvalues to the others


def find_clusters(
    values: Array,
    bounds: Array,
    k: int,
    absolute: float | None,
    resolution: float | None = None,
) -> Clusters:
    """The clusters of the first k of some eigenvalues (b,) with error bounds (b,).

    ``absolute`` is the caller's distance below which two eigenvalues are one cluster. With a
    ``resolution`` k cuts a cluster only where the gap is also below so many error bounds.
    """
    tolerance = degeneracy_tolerance(values[:k], absolute)
    beyond = jnp.abs(values[:k, None] - values[None, k:])
    # A vague guard vector beyond the first is not a copy of a wanted pair: the first would be one
    # too. Its bound would link everything.
    vague = bounds[k + 1 :] > VAGUE * jnp.min(beyond[:, 1:], axis=0, initial=jnp.inf)
    radii = bounds.at[k + 1 :].set(jnp.where(vague, 0, bounds[k + 1 :]))
    radii = jnp.maximum(radii, tolerance / 2)
    labels = cluster_labels(values, radii)
    near = labels
    if resolution is not None:
        near = cluster_labels(values, jnp.minimum(radii, resolution * bounds))
    cut = jnp.any(near[:k, None] == near[None, k:], axis=1)
    return Clusters(labels[:k], cut, jnp.min(beyond, initial=jnp.inf))


def largest_whole(values: Array, bounds: Array, found: Clusters, resolution: float | None) -> Array:
    """The largest number below k of first pairs that cuts no cluster, 0 where there is none."""
    linked = mask(found.labels)
    if resolution is not None:
        distance = jnp.abs(values[:, None] - values[None, :])
        linked &= distance <= resolution * (bounds[:, None] + bounds[None, :])
    k = values.shape[0]
    reach = jax.lax.cummax(jnp.max(jnp.where(linked, jnp.arange(k)[None, :], 0), axis=1))
    whole = (reach <= jnp.arange(k)) & blocks.leading(~found.cut)
    return jnp.max(jnp.where(whole, jnp.arange(1, k + 1), 0)[: k - 1], initial=0)


def cluster_labels(values: Array, radii: Array) -> Array:
    """Equal labels for values that cannot be told apart, (b,): 0, 1, ... as they first appear.

    With radii max(error bound, tolerance / 2), two eigenvalues are linked when they differ by no
    more than the sum of their radii. Clusters are the transitive closure: the connected unions of
    the intervals.
    """
    low, high = values - radii, values + radii
    below = low[None, :] < low[:, None]
    begins = ~jnp.any(below & (low[:, None] <= high[None, :]), axis=1)
    # The end of a union is the last one that begins no later.
    end = jnp.where(begins[None, :] & (low[None, :] <= low[:, None]), low[None, :], -jnp.inf)
    same = mask(jnp.max(end, axis=1))
    index = jnp.arange(values.shape[0])
    place = jnp.min(jnp.where(same, index[None, :], index.shape[0]), axis=1)  # of its first
    return jnp.sum((place == index)[None, :] & (index[None, :] < place[:, None]), axis=1)


def degeneracy_tolerance(values: Array, absolute: float | None) -> Array:
    """Distance below which eigenvalues are one cluster: the caller's, or sqrt(eps) max |lam|."""
    if absolute is not None:
        return jnp.array(absolute, values.dtype)
    return tolerances.degeneracy(values.dtype) * jnp.max(jnp.abs(values))


def mask(labels: Array) -> Array:
    """D of eq. 2.7: True where i and j are in one cluster, (k, k)."""
    return labels[:, None] == labels[None, :]
