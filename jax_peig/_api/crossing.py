"""crossing: how a repeated eigenvalue splits, along a direction and for every parameter.

Along (A', M') the eigenvalue lam with the M-orthonormal basis X_g splits with one-sided derivatives
that are the eigenvalues of X_g^H (A' - lam M') X_g: the block of the cluster in R' (Seyranian, Lund
and Olhoff 1994), whose diagonal is eq. 2.3 of Kasim (arXiv:2011.04366).
"""

from typing import NamedTuple, Unpack

import jax
import jax.numpy as jnp

from jax_peig._api.eigh import pairs, partial_eigh
from jax_peig._api.keywords import EighOptions, passes_on
from jax_peig._api.matrix_function import without_derivative
from jax_peig._core import blocks, display
from jax_peig._core.checks import integer, is_array
from jax_peig._core.results import Info
from jax_peig._core.types import Array, ArrayLike, OperatorLike
from jax_peig._derivatives.rules import CrossingRule


class Crossing(NamedTuple):
    """A cluster of eigenvalues and its block, as `crossing` returns it.

    Attributes
    ----------
    value : scalar, real
        The mean of the cluster's eigenvalues.
    block : (k, k)
        X_g^H A X_g of the cluster, diagonal in value; zero for pairs that are not of the cluster.
    basis : (n, k), or as ``like`` with a last axis k
        X, the M-orthonormal vectors in which the block is written, without derivatives.
    members : (k,) bool
        Which of the k pairs are of the cluster.
    info : Info
        How good the pairs are.
    """

    value: Array
    block: Array
    basis: Array
    members: Array
    info: Info

    def weighted(self, Z: ArrayLike) -> Array:
        """tr(Z R_g), real, for a Hermitian Z (k, k): its gradient is the pull of Z.

        Parameters
        ----------
        Z : (k, k)
            Entries of pairs that are not of the cluster do not count.

        Returns
        -------
        scalar, real

        Raises
        ------
        TypeError, ValueError
            Where Z is no array (k, k).
        """
        if not is_array(Z):
            raise TypeError(f"Crossing.weighted: Z is {Z!r}; expected an array (k, k).")
        if Z.shape != self.block.shape:
            raise ValueError(
                f"Crossing.weighted: Z has shape {Z.shape}; expected {self.block.shape}."
            )
        return jnp.sum(Z.T * self.block).real

    def slopes(self, tangent: Array) -> Array:
        """The one-sided derivatives of the cluster's eigenvalues along a direction.

        Parameters
        ----------
        tangent : (k, k)
            The tangent of ``block``, from ``jax.jvp``.

        Returns
        -------
        (k,) real
            Ascending, those for t -> 0+; for t -> 0- the largest belongs to the smallest
            eigenvalue. NaN beyond the number of members.
        """
        real = jnp.finfo(tangent.dtype).dtype
        beyond = 2 * jnp.max(jnp.sum(jnp.abs(tangent), axis=1)) + 1
        filling = jnp.where(self.members, 0, beyond).astype(tangent.dtype)
        values, _ = blocks.eigh(blocks.herm(tangent) + jnp.diag(filling))
        known = jnp.arange(values.shape[0]) < jnp.sum(self.members)
        return jnp.where(known, values, jnp.nan).astype(real)

    def __repr__(self) -> str:
        return display.scalars(self, value=self.value, members=jnp.sum(self.members, axis=-1))


@passes_on(EighOptions, like=partial_eigh)
def crossing(
    A: OperatorLike,
    M: OperatorLike = None,
    k: int | None = None,
    *,
    index: int = 0,
    **options: Unpack[EighOptions],
) -> Crossing:
    """Compute a cluster of eigenvalues and the block whose derivative says how it splits.

    Parameters
    ----------
    A : operator
        As in `partial_eigh`.
    M : operator, optional
        As in `partial_eigh`.
    k : int
        How many pairs are computed; the whole cluster has to be among them.
    index : int
        Which of the k pairs names the cluster: 0 is the first in the order of `partial_eigh`.
    **options
        The keyword arguments of `partial_eigh`, as in `eigenspace`.

    Returns
    -------
    Crossing
        ``value``, the mean of the cluster; ``block`` (k, k), R_g; ``basis`` (n, k); ``members``
        (k,); ``info``.

    Raises
    ------
    TypeError, ValueError
        As `partial_eigh`; for an index that is not below k.

    Differentiability
    -----------------
    * In: all that A and M hold or close over, as in `partial_eigh`.
    * Modes: forward, for one direction; reverse, for all parameters at once.
    * Orders: ``block`` the first, ``value`` any.
    * Refused: NaN where k cuts the cluster, for second derivatives of ``block`` or where k cuts any
      cluster, and where the pairs did not converge. No loss of ``block`` is refused for the choice
      of the basis.

    Notes
    -----
    Where eigenvalues meet, none of them has a gradient, but all have derivatives along a direction:
    ``jax.jvp`` of ``block`` gives X_g^H (A' - lam M') X_g, and ``slopes`` of that its eigenvalues.
    ``jax.grad`` of ``weighted(Z)`` is the gradient of tr(Z R_g), in all parameters at once. It is

        pull(Z) = d/dtheta tr(Z X_g^H (A(theta) - lam M(theta)) X_g)    at fixed X_g.

    A direction lifts the cluster to first order where the block along it is positive definite. The
    element of least norm of {pull(Z): Z >= 0, tr Z = 1} is the steepest ascent of the smallest
    eigenvalue of the cluster; where it is zero the point is stationary (Clarke).

    Another basis turns block and Z alike, X_g -> X_g Q, so that a Z stands for the ``basis`` of one
    call: for several Z take one ``jax.vjp`` of ``block``, as in the example. JAX pairs without
    conjugation: the cotangent of ``block`` is Z^T, which matters for a complex Z. The error that
    `derivative_report` estimates compares two bases, and means nothing unless Z is a multiple of I.

    Inside a cluster of some width these are the derivatives of the block, which is a smooth
    function of the parameters. Those of the separate eigenvalues turn into them within a distance
    of that width. A derivative costs one pass through the products, and no linear system.

    Examples
    --------
    The double eigenvalue 1 splits along E:

    >>> import jax, jax.numpy as jnp
    >>> from jax_peig import crossing
    >>> A = jnp.diag(jnp.array([1.0, 1.0, 3.0]))
    >>> E = jnp.array([[0.0, 2.0, 0.0], [2.0, 3.0, 0.0], [0.0, 0.0, 1.0]])
    >>> found, along = jax.jvp(lambda t: crossing(A + t * E, k=2), (0.0,), (1.0,))
    >>> [round(float(x), 4) for x in found.slopes(along.block)]
    [-1.0, 4.0]

    The gradients of both diagonal entries of the block, from one call; their sum is that of a
    trace, which knows no basis:

    >>> block, pull = jax.vjp(lambda A: crossing(A, k=2).block, A)
    >>> gradients = jax.vmap(lambda Z: pull(Z)[0])(jnp.eye(2)[:, :, None] * jnp.eye(2)[:, None, :])
    >>> [round(float(x), 4) for x in jnp.diagonal(jnp.sum(gradients, axis=0))]
    [1.0, 1.0, 0.0]
    """
    first, x, info = pairs("crossing", A, M, k, options, rule=CrossingRule)
    order = first.shape[0]
    place = integer(index, "crossing: index")
    if not 0 <= place < order:
        raise ValueError(f"crossing: index is {index}; expected 0 <= index < k = {order}.")
    members = info.clusters == info.clusters[place]
    inside = members[:, None] & members[None, :]
    count = jnp.sum(members).astype(info.gap.dtype)
    value = jnp.sum(jnp.where(members, jnp.diagonal(first).real, 0)) / count
    block = jnp.where(inside, first, 0)
    block = block + without_derivative(block - jax.lax.stop_gradient(block), 2)
    return Crossing(value, block, jax.lax.stop_gradient(x), members, info)
