"""Preconditioners of plane waves: division by a symbol on a periodic grid."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jax_peig._core.checks import is_concrete
from jax_peig._core.types import Array, ArrayLike, Block
from jax_peig.preconditioners._base import (
    Preconditioner,
    floating_array,
    inverse_size,
    positive_integer,
    real_number,
)


def fourier(symbol: ArrayLike, offset: Any = 0.0) -> Preconditioner:
    """Divide Fourier coefficients on a periodic grid: T v = ifftn(fftn(v) / (symbol + offset)).

    Parameters
    ----------
    symbol : (N1, ..., Nd)
        The factor by which the part of A with constant coefficients multiplies exp(i k.x), in the
        order of ``jnp.fft.fftfreq``: see `laplacian_symbol`. Vectors hold values on the grid in C
        order, n = N1 ... Nd. Where they hold plane-wave coefficients, take `jacobi`.
    offset : float, optional
        A number in place of the rest of A - sigma M. For -Laplace + V, take the mean of V minus
        roughly the smallest eigenvalue. symbol + offset has to be positive. Default: 0.

    Returns
    -------
    Preconditioner
        It costs two FFTs a vector. Real vectors stay real: where the symbol is not even,
        s(k) = s(-k), the real part of the result is taken, which is positive definite too.

    Differentiability
    -----------------
    * In: ``symbol`` and ``offset``, by ``T @ v``. `partial_eigh` takes T as a constant.
    * Modes: forward and reverse.
    * Orders: any.
    * Refused: never.

    Notes
    -----
    For -Laplace + V the number of steps grows with the range of V, and not as the grid is refined.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jax_peig.preconditioners import fourier, laplacian_symbol
    >>> x = 2 * jnp.pi * jnp.arange(16.0) / 16
    >>> T = fourier(0.5 * laplacian_symbol(16, x[1]), offset=1.0)
    >>> bool(jnp.allclose(T @ jnp.cos(2 * x), jnp.cos(2 * x) / (2**2 / 2 + 1), atol=1e-6))
    True
    """
    s = floating_array(symbol, "fourier: symbol", "(N1, ..., Nd)", range(1, 9)).real
    total = s + real_number(offset, "fourier: offset").astype(s.dtype)
    if is_concrete(total) and not (smallest := np.min(np.asarray(total))) > 0:
        raise ValueError(
            f"fourier: the smallest symbol + offset is {smallest}; expected positive numbers. "
            "Give an offset, of the size of the mean potential above the smallest eigenvalue."
        )
    return Preconditioner((inverse_size(total),), _divide_on_grid, math.prod(s.shape))


def _divide_on_grid(leaves: tuple[Array], block: Block) -> Block:
    inverse = leaves[0].astype(jnp.finfo(block.dtype).dtype)
    shape = inverse.shape
    axes = tuple(range(1, 1 + len(shape)))
    grid = block.T.reshape(-1, *shape)  # (b, N1, ..., Nd)
    if jnp.iscomplexobj(block):
        product = jnp.fft.fftn(grid, axes=axes) * inverse.astype(block.dtype)[None]
        out = jnp.fft.ifftn(product, axes=axes)
    else:  # Re F^-1 D F of real vectors is F^-1 (D(k) + D(-k))/2 F; half the coefficients suffice
        reflected = jnp.roll(jnp.flip(inverse), (1,) * len(shape), tuple(range(len(shape))))
        even = ((inverse + reflected) / 2)[..., : shape[-1] // 2 + 1]
        half = jnp.fft.rfftn(grid, axes=axes)
        out = jnp.fft.irfftn(half * even.astype(half.dtype)[None], s=shape, axes=axes)
    return out.reshape(block.shape[::-1]).T


def laplacian_symbol(
    shape: int | Sequence[int], spacing: Any = 1.0, kind: str = "spectral"
) -> Array:
    """|k|^2, the symbol of -Laplace on a periodic grid; kinetic energy in atomic units is half.

    Parameters
    ----------
    shape : int or (N1, ..., Nd)
        Points along each axis.
    spacing : float or (h1, ..., hd), optional
        Distance of neighbouring points, not traced. The period is N h. Default: 1.
    kind : {"spectral", "finite difference"}
        "spectral": sum_i k_i^2, k_i in 2 pi fftfreq(N_i, h_i). "finite difference": the symbol of
        the stencil (-1, 2, -1) / h_i^2 along each axis, sum_i (4 / h_i^2) sin^2(k_i h_i / 2).

    Returns
    -------
    (N1, ..., Nd)
        It is zero at k = 0 and positive elsewhere, in the order of ``jnp.fft.fftfreq``.

    Differentiability
    -----------------
    * In: nothing: it is made on the host, of concrete numbers.
    * Modes: none.
    * Orders: none.
    * Refused: a traced ``spacing``, by a TypeError.

    Examples
    --------
    >>> from jax_peig.preconditioners import laplacian_symbol
    >>> print(laplacian_symbol(4, 0.5, kind="finite difference"))
    [ 0.  8. 16.  8.]
    """
    points = shape if isinstance(shape, (tuple, list)) else (shape,)
    counts = [positive_integer(p, "laplacian_symbol: shape") for p in points]
    if not counts:
        raise ValueError("laplacian_symbol: shape is (); expected the points along each axis.")
    try:
        h = np.asarray(spacing, float)
    except (TypeError, ValueError):
        raise TypeError(
            f"laplacian_symbol: spacing is {spacing!r}; expected a Python number, or one for each "
            "axis, which is not traced."
        ) from None
    if h.shape not in ((), (len(counts),)) or not (np.all(h > 0) and np.all(np.isfinite(h))):
        raise ValueError(
            f"laplacian_symbol: spacing is {spacing!r}; expected a positive number, or one for "
            f"each of the {len(counts)} axes."
        )
    pairs = list(zip(counts, np.broadcast_to(h, (len(counts),)), strict=True))
    k = [2 * np.pi * np.fft.fftfreq(*pair) for pair in pairs]
    if kind == "finite difference":
        k = [2 / d * np.sin(w * d / 2) for w, (_, d) in zip(k, pairs, strict=True)]
    elif kind != "spectral":
        expected = "expected 'spectral' or 'finite difference'"
        raise ValueError(f"laplacian_symbol: kind={kind!r}; {expected}.")
    total = functools.reduce(np.add.outer, [w**2 for w in k])
    return jnp.asarray(total, jnp.result_type(float))


def teter(kinetic: ArrayLike, reference: Any) -> Array:
    """1 / K(x), x = kinetic / reference: flat for x < 1, then about 2 x.

    Parameters
    ----------
    kinetic : (N1, ..., Nd) or (n,)
        Kinetic energies of plane waves, such as ``0.5 * laplacian_symbol(...)``; at least 0.
    reference : float
        The kinetic energy of a wanted eigenvector, positive.

    Returns
    -------
    As kinetic
        For ``fourier(teter(...))`` where vectors hold values on the grid, for
        ``jacobi(teter(...))`` where they hold coefficients.

    Differentiability
    -----------------
    * In: ``kinetic`` and ``reference``.
    * Modes: forward and reverse.
    * Orders: any.
    * Refused: never.

    Notes
    -----
    K(x) = (27 + 18 x + 12 x^2 + 8 x^3) / (27 + 18 x + 12 x^2 + 8 x^3 + 16 x^4), of Teter, Payne and
    Allan, Phys. Rev. B 40, 12255 (1989). It is 1 with three zero derivatives at x = 0, so that it
    leaves alone the slow waves of which the vector is made, and 1/(2 x) where the kinetic energy
    dominates.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jax_peig.preconditioners import teter
    >>> print(teter(jnp.array([0.0, 0.1, 1.0]), reference=1.0).round(3))
    [1.    1.    1.246]
    """
    t = floating_array(kinetic, "teter: kinetic", "(N1, ..., Nd)", range(1, 9)).real
    scale = real_number(reference, "teter: reference").astype(t.dtype)
    if is_concrete(t) and (smallest := np.min(np.asarray(t))) < 0:
        raise ValueError(f"teter: kinetic holds {smallest}; expected energies of at least 0.")
    if is_concrete(scale) and not np.asarray(scale) > 0:
        raise ValueError(f"teter: reference is {scale}; expected a positive energy.")
    x = t / scale
    return 1 + 16 * x**4 / (27 + x * (18 + x * (12 + 8 * x)))
