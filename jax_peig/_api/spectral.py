"""Spectral functions of an eigenspace: sums, densities, and products with vectors."""

from typing import Unpack

import jax.numpy as jnp
import numpy as np

from jax_peig._api import eigenspace
from jax_peig._api.eigh import partial_eigh
from jax_peig._api.keywords import EighOptions, passes_on
from jax_peig._api.matrix_function import Scalar, check_function, function_of
from jax_peig._core import blocks
from jax_peig._core.checks import is_array, kind_of
from jax_peig._core.results import Eigenspace
from jax_peig._core.sharding import replicated
from jax_peig._core.types import Array, ArrayLike, OperatorLike, PyTree
from jax_peig._core.vectors import VectorShape, check_example, outline


@passes_on(EighOptions, like=partial_eigh)
def spectral_sum(
    h: Scalar,
    A: OperatorLike,
    M: OperatorLike = None,
    k: int | None = None,
    **options: Unpack[EighOptions],
) -> Array:
    """Compute sum_j h(w_j) over k eigenvalues of ``A X = M X diag(w)``: tr h(R).

    Parameters
    ----------
    h : callable
        As in `hermitian_function`.
    A : operator
        As in `partial_eigh`.
    M : operator, optional
        As in `partial_eigh`.
    k : int
        How many eigenvalues.
    **options
        The keyword arguments of `partial_eigh`, as in `eigenspace`.

    Returns
    -------
    scalar, real
        Its first and second derivatives are exact at repeated eigenvalues. Where k cuts a cluster,
        the first derivative is one generalised gradient and the second is NaN.

    Raises
    ------
    TypeError, ValueError
        As `eigenspace` and `hermitian_function`.

    Differentiability
    -----------------
    * In: all that A, M and h hold or close over.
    * Modes: forward and reverse.
    * Orders: in A and M the first and the second; in what h closes over any.
    * Refused: NaN for the second derivative where k cuts a cluster (the first is one generalised
      gradient there), from the third in A and M on, where h has no derivative, and where the pairs
      did not converge.

    Notes
    -----
    The gradient is X h'(R) X^H (Daleckii-Krein; Kasim, arXiv:2011.04366, eq. 2.3) and solves no
    linear system. A Hessian solves k linear systems for each direction.

    Examples
    --------
    The pair of states at 1 splits along E; their Boltzmann weights are smooth:

    >>> import jax, jax.numpy as jnp
    >>> from jax_peig import spectral_sum
    >>> A, E = jnp.diag(jnp.array([1.0, 1.0, 2.0])), jnp.ones((3, 3))
    >>> weight = jax.grad(lambda t: spectral_sum(lambda w: jnp.exp(-w), A + t * E, k=2))(0.0)
    >>> round(float(weight), 4)  # -2 exp(-1)
    -0.7358
    """
    check_function("spectral_sum", h)
    r = eigenspace.space("spectral_sum", A, M, k, options).rayleigh
    return jnp.trace(function_of("spectral_sum", h, r)).real


def density(h: Scalar, space: Eigenspace) -> Array:
    """Compute the diagonal of X h(R) X^H, sum_j h(w_j) |x_j|^2 at every place.

    Parameters
    ----------
    h : callable
        The occupation of a state as a function of its eigenvalue, as in `hermitian_function`.
    space : Eigenspace
        The result of `eigenspace`.

    Returns
    -------
    (n,) real, or of the shape of a vector
        Differentiable as `eigenspace` and `hermitian_function` are, also in the values that h
        closes over.

    Raises
    ------
    TypeError
        Where ``space`` is no `Eigenspace`, and as `hermitian_function`.

    Differentiability
    -----------------
    * In: ``space``, and so in A and M; what h closes over.
    * Modes: forward and reverse.
    * Orders: in ``space`` the first and the second; in what h closes over any.
    * Refused: NaN where k cuts a cluster, from the third in ``space`` on, where h has no
      derivative, and where the pairs or the linear systems did not converge.

    Notes
    -----
    The cost is n k^2 operations. A gradient solves k linear systems, those of eq. 2.11 of Kasim,
    arXiv:2011.04366. The derivative by way of separate (w, X) misses, at a repeated eigenvalue, the
    term h' between two members of the cluster.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from jax_peig import density, eigenspace
    >>> A = jnp.diag(jnp.array([1.0, 1.0, 2.0, 4.0]))
    >>> E = jnp.zeros((4, 4)).at[0, 1].set(1.0).at[1, 0].set(1.0)  # splits the pair
    >>> boltzmann = lambda w: jnp.exp(-w)
    >>> rho = lambda t: density(boltzmann, eigenspace(A + t * E, k=2))
    >>> bool(jnp.allclose(rho(0.1)[:2], jnp.exp(-1.0) * jnp.cosh(0.1)))
    True
    >>> [round(float(x), 4) + 0.0 for x in jax.jvp(rho, (0.0,), (1.0,))[1]]
    [0.0, 0.0, 0.0, 0.0]
    """
    r, x, shape = _checked(space, "density")
    return shape.unravel(jnp.sum((x @ function_of("density", h, r)) * x.conj(), axis=1).real)


def spectral_apply(h: Scalar, space: Eigenspace, b: ArrayLike | PyTree) -> Array:
    """Compute X h(R) X^H b.

    Parameters
    ----------
    h : callable
        As in `hermitian_function`.
    space : Eigenspace
        The result of `eigenspace`.
    b : (n,) or (n, c), or one or several vectors of the shape of ``like``
        One vector, or several columns. With M, b = M v gives h(M^{-1} A), restricted to the space,
        applied to v.

    Returns
    -------
    (n,) or (n, c), as b
        Differentiable as `eigenspace` and `hermitian_function` are, also in b and in the values
        that h closes over.

    Raises
    ------
    TypeError, ValueError
        Where ``space`` is no `Eigenspace`, or b is no floating array with n rows.

    Differentiability
    -----------------
    * In: ``space``, and so in A and M; b; what h closes over.
    * Modes: forward and reverse.
    * Orders: in ``space`` the first and the second; in b and in what h closes over any.
    * Refused: NaN where k cuts a cluster, from the third in ``space`` on, where h has no
      derivative, and where the pairs or the linear systems did not converge.

    Notes
    -----
    The cost is that of `hermitian_function` and 2 n k operations a column. A gradient solves k
    linear systems, those of eq. 2.11 of Kasim, arXiv:2011.04366.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jax_peig import eigenspace, spectral_apply
    >>> space = eigenspace(jnp.diag(jnp.array([1.0, 2.0, 2.0, 5.0])), k=3)
    >>> [round(float(v), 3) for v in spectral_apply(lambda w: 1 / w, space, jnp.ones(4))]
    [1.0, 0.5, 0.5, 0.0]
    """
    r, x, shape = _checked(space, "spectral_apply")
    x, b = _together(x, b, shape, "spectral_apply")
    h_of_r = function_of("spectral_apply", h, r)
    return shape.unravel(x @ (h_of_r.astype(x.dtype) @ replicated(blocks.gram, x, b)))


def projector_apply(space: Eigenspace, b: ArrayLike | PyTree) -> Array:
    """Compute X X^H b, which without M is the orthogonal projection of b onto the space.

    Parameters
    ----------
    space : Eigenspace
        The result of `eigenspace`.
    b : (n,) or (n, c), or one or several vectors of the shape of ``like``
        One vector, or several columns. With M the projector is X X^H M: give b = M v.

    Returns
    -------
    (n,) or (n, c), as b
        Differentiable as `eigenspace` is.

    Raises
    ------
    TypeError, ValueError
        Where ``space`` is no `Eigenspace`, or b is no floating array with n rows.

    Differentiability
    -----------------
    * In: ``space``, and so in A and M; b.
    * Modes: forward and reverse.
    * Orders: those of `eigenspace`; in b any.
    * Refused: NaN where k cuts a cluster, and where the pairs or the linear systems did not
      converge.

    Notes
    -----
    The cost is 2 n k operations a column. A gradient solves k linear systems, those of eq. 2.11 of
    Kasim, arXiv:2011.04366.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jax_peig import eigenspace, projector_apply
    >>> space = eigenspace(jnp.diag(jnp.array([1.0, 2.0, 2.0, 5.0])), k=3)
    >>> [round(float(v), 3) for v in projector_apply(space, jnp.ones(4))]
    [1.0, 1.0, 1.0, 0.0]
    """
    _, x, shape = _checked(space, "projector_apply")
    x, b = _together(x, b, shape, "projector_apply")
    return shape.unravel(x @ replicated(blocks.gram, x, b))


def _checked(space: Eigenspace, name: str) -> tuple[Array, Array, VectorShape]:
    """Return R, X (n, k) and the shape of a vector; raise TypeError unless ``space`` has them."""
    if not isinstance(space, Eigenspace):
        raise TypeError(
            f"{name}: space is of type {type(space).__name__}; expected the Eigenspace that "
            "eigenspace(...) returns."
        )
    if jnp.ndim(space.rayleigh) != 2:
        raise ValueError(
            f"{name}: space has a basis of shape {outline(space.basis)}; expected (n, k). "
            "Batches go through jax.vmap."
        )
    shape = VectorShape.of_columns(space.basis)
    return space.rayleigh, shape.ravel(space.basis), shape


def _together(
    x: Array, b: ArrayLike | PyTree, shape: VectorShape, name: str
) -> tuple[Array, Array]:
    """Return x and the checked b, flat and both in the dtype to which they promote."""
    if not shape.is_flat:
        if shape.columns(b) is None:
            raise ValueError(
                f"{name}: b has the structure {outline(b)}; expected that of a vector, {shape}, "
                "or each leaf with one more axis, the last, for several vectors."
            )
        check_example(b, f"{name}: b")
        b = shape.ravel(b)
    if not is_array(b) or not jnp.issubdtype(b.dtype, jnp.inexact):
        raise TypeError(
            f"{name}: b is of {kind_of(b)}; expected a floating array (n,) or (n, c)."
            " Convert it, for example with jnp.asarray(b, float)."
        )
    if b.ndim not in (1, 2) or b.shape[0] != x.shape[0]:
        raise ValueError(
            f"{name}: b has shape {b.shape}; expected (n,) or (n, c) with n = {x.shape[0]}."
        )
    dtype = np.promote_types(x.dtype, b.dtype)
    return x.astype(dtype), jnp.asarray(b).astype(dtype)
