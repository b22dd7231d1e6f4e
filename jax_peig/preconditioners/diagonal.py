"""Ready-made preconditioners for `partial_eigh`: T near the inverse of A - sigma M.

==================  =====================================  =======================================
`jacobi`            1 / |d - sigma|                        the diagonal varies by orders of
                                                           magnitude, or is nearly all of A
`block_jacobi`      inverses of the diagonal blocks        strong coupling in groups of unknowns
`chebyshev`         a polynomial in A                      only products with A; uniform meshes
`fourier`           FFT, division by a symbol, inverse     periodic grids
`laplacian_symbol`  |k|^2, the symbol of -Laplace          for `fourier` and `jacobi`
`teter`             the symbol of Teter, Payne and Allan   for `fourier` and `jacobi`
==================  =====================================  =======================================

Each is Hermitian positive definite, as LOBPCG and conjugate gradients need; where that takes a
safeguard, its factory says which. Each is a pytree of arrays; ``T @ v`` and ``T(v)`` apply it to a
vector (n,) or a block (n, b) of any of the four floating dtypes, and another one of the same shapes
compiles nothing new. Only the pace depends on it, so `partial_eigh` gives it no derivative; it may
be made of traced values, inside a function that is differentiated. Every factory raises TypeError
or ValueError for shapes, dtypes and options that do not fit, and for values that do not where they
are not traced. "Saad" is Y. Saad, Iterative Methods for Sparse Linear Systems, 2nd ed., SIAM 2003.
"""

import dataclasses
import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from jax.experimental.sparse import BCOO

from jax_peig._core import blocks as _blocks
from jax_peig._core import tolerances
from jax_peig._core.types import FLOATING, Array, ArrayLike, Block, OperatorLike
from jax_peig._linear_solvers.semi_iteration import semi_iteration
from jax_peig._operators.operator import as_operator, is_array, order_and_dtype


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["leaves"], meta_fields=["product", "n"]
)
@dataclasses.dataclass(frozen=True)
class Preconditioner:
    """A positive definite operator T: ``T @ v`` and ``T(v)`` for v (n,) or (n, b).

    Attributes
    ----------
    leaves : tuple
        Arrays, or an operator, that the product depends on.
    product : callable
        ``product(leaves, V) -> T V`` for V (n, b); hashable by value.
    n : int or None
        The order; None where A is a function, which does not tell.
    """

    leaves: tuple[Any, ...]
    product: Callable[[tuple[Any, ...], Block], Block]
    n: int | None

    def __matmul__(self, v: ArrayLike) -> Array:
        n = "n" if self.n is None else self.n
        block = _array(v, "preconditioner: vector", f"({n},) or ({n}, b)", (1, 2), finite=False)
        if self.n not in (None, block.shape[0]):
            raise ValueError(
                f"preconditioner of order {n} applied to shape {block.shape}; expected ({n},) or "
                f"({n}, b). Make it of what has the order of A."
            )
        if block.ndim == 1:
            return self.product(self.leaves, block[:, None])[:, 0]
        return self.product(self.leaves, block)

    def __call__(self, v: ArrayLike) -> Array:
        """T v."""
        return self @ v


# -- diagonals ------------------------------------------------------------------------------------


def jacobi(diagonal: ArrayLike, shift: Any = 0.0) -> Preconditioner:
    """Divide by a diagonal: T = diag(1 / |d - sigma|).

    Parameters
    ----------
    diagonal : (n,)
        That of A, ``jnp.diagonal(A)`` or ``A.diagonal()``; its real part is taken.
    shift : float or (n,), optional
        sigma, near the wanted eigenvalues; with M, the array sigma diag(M). Default: 0.

    Returns
    -------
    Preconditioner
        n multiplications a vector.

    Notes
    -----
    Positive definite for any diagonal: |d - sigma| is taken from below at 100 eps of its largest,
    so that one entry equal to sigma does not drown all others. A constant diagonal changes nothing.
    Saad, section 10.2.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jax_peig.preconditioners import jacobi
    >>> T = jacobi(jnp.array([4.0, -2.0, 1.0]), shift=0.5)
    >>> print((T @ jnp.ones(3)).round(3))
    [0.286 0.4   2.   ]
    """
    d = _array(diagonal, "jacobi: diagonal", "(n,), as jnp.diagonal(A)", (1,)).real
    if is_array(shift) and shift.ndim == 1:
        sigma = _array(shift, "jacobi: shift", "(n,)", (1,)).real
        if sigma.shape != d.shape:
            raise ValueError(f"jacobi: shift has shape {sigma.shape}; expected {d.shape} or ().")
    else:
        sigma = jnp.broadcast_to(_number(shift, "jacobi: shift"), d.shape)
    return Preconditioner((_inverse_size(d - sigma.astype(d.dtype)),), _multiply, d.shape[0])


def _multiply(leaves: tuple[Array], block: Block) -> Block:
    return leaves[0].astype(block.dtype)[:, None] * block


def _inverse_size(values: Array) -> Array:
    """1 / |v|, with |v| from below at 100 eps of the largest; 1 where all are zero."""
    size = jnp.abs(values)
    largest = jnp.max(size)
    floor = tolerances.rank(values.dtype) * largest
    return 1 / jnp.where(largest > 0, jnp.maximum(size, floor), 1)


# -- diagonal blocks ------------------------------------------------------------------------------


def block_jacobi(blocks: Any, size: int | None = None) -> Preconditioner:
    """Invert the diagonal blocks: T = diag(|B_1|^-1, ..., |B_m|^-1).

    Parameters
    ----------
    blocks : (m, s, s), or with ``size`` an array (n, n), a BCOO or a SciPy sparse matrix
        The diagonal blocks B of A - sigma M, n = m s; or that matrix, to cut them from. Their
        Hermitian parts are taken.
    size : int, optional
        s, the number of consecutive unknowns in a block; the last is smaller where s does not
        divide n.

    Returns
    -------
    Preconditioner
        2 n s operations a vector, n s numbers, made in O(n s^2). Of complex blocks for complex
        vectors only.

    Notes
    -----
    With B = U diag(l) U^H, |B|^-1 = U diag(1 / |l|) U^H, |l| from below at 100 eps of the largest
    of all blocks: the inverse of a positive definite B, and positive definite for every other, as
    with sigma inside the spectrum. Saad, section 12.2.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jax_peig.preconditioners import block_jacobi
    >>> A = jnp.array([[2.0, 2.0, 9.0], [2.0, 2.0, 0.0], [9.0, 0.0, 4.0]]) + jnp.eye(3)
    >>> print((block_jacobi(A, size=2) @ A[:, :2]).round(2) + 0.0)
    [[1.  0. ]
     [0.  1. ]
     [1.8 0. ]]
    """
    sparse = scipy.sparse.issparse(blocks) or isinstance(blocks, BCOO)
    name = "block_jacobi: blocks"
    if size is None:
        if sparse or (is_array(blocks) and blocks.ndim == 2):
            raise TypeError(f"{name} is a matrix, size is None; expected a block's size, size=...")
        cut = _array(blocks, name, "(m, s, s)", (3,))
        if cut.shape[1] != cut.shape[2]:
            raise ValueError(f"{name} has shape {cut.shape}; expected (m, s, s), square blocks.")
        n = cut.shape[0] * cut.shape[1]
    else:
        size = _count(size, "block_jacobi: size")
        matrix = BCOO.from_scipy_sparse(blocks) if scipy.sparse.issparse(blocks) else blocks
        if not sparse:
            matrix = _array(blocks, name, "(n, n) with a size", (2,))
        order_and_dtype(matrix, name)
        n = matrix.shape[0]
        cut = _array(_cut(matrix, min(size, n)), name, "(n, n)", (3,))
    return Preconditioner((_invert(cut),), _BlockDiagonal(n), n)


@jax.jit
def _invert(blocks: Array) -> Array:
    """|B|^-1 for blocks (m, s, s)."""
    # No derivative: that of eigh is NaN where a block's eigenvalues repeat, even times zero.
    hermitian = jax.vmap(_blocks.herm)(jax.lax.stop_gradient(blocks))
    lam, u = jnp.linalg.eigh(hermitian, symmetrize_input=False)
    inverse = u * _inverse_size(lam).astype(u.dtype)[:, None, :] @ u.conj().transpose(0, 2, 1)
    return jax.vmap(_blocks.herm)(inverse)


@functools.partial(jax.jit, static_argnums=1)
def _cut(matrix: Any, size: int) -> Array:
    """The diagonal blocks (m, size, size), the last filled up by the identity."""
    n = matrix.shape[0]
    m = -(-n // size)
    if is_array(matrix):
        padded = jnp.pad(matrix, ((0, m * size - n),) * 2).reshape(m, size, m, size)
        blocks = padded[jnp.arange(m), :, jnp.arange(m), :]
    else:
        matrix = matrix.update_layout(n_batch=0, n_dense=0)
        row, column = matrix.indices[:, 0], matrix.indices[:, 1]
        inside = (row // size == column // size) & (row < n)  # BCOO pads with the index n
        place = (row // size, row % size, column % size)
        zero = jnp.zeros((m, size, size), matrix.dtype)
        blocks = zero.at[place].add(jnp.where(inside, matrix.data, 0), mode="drop")
    beyond = (jnp.arange(m * size) >= n).astype(blocks.dtype).reshape(m, size)
    return blocks + beyond[:, :, None] * jnp.eye(size, dtype=blocks.dtype)[None]


@dataclasses.dataclass(frozen=True)
class _BlockDiagonal:
    n: int

    def __call__(self, leaves: tuple[Array], block: Block) -> Block:
        (inverse,) = leaves  # (m, s, s)
        if jnp.iscomplexobj(inverse) and not jnp.iscomplexobj(block):
            raise TypeError(
                f"block_jacobi of {inverse.dtype} applied to {block.dtype}; expected complex "
                "vectors: give a complex dtype, or the blocks' real parts."
            )
        m, size, _ = inverse.shape
        padded = jnp.pad(block, ((0, m * size - self.n), (0, 0))).reshape(m, size, -1)
        return (inverse.astype(block.dtype) @ padded).reshape(m * size, -1)[: self.n]


# -- polynomials ----------------------------------------------------------------------------------


def chebyshev(
    A: OperatorLike, degree: int, lower: Any, upper: Any, *, shift: Any = 0.0
) -> Preconditioner:
    """T = p(A - sigma), p a polynomial close to 1/t on an interval: Chebyshev's iteration.

    Parameters
    ----------
    A : operator
        Hermitian, in any form that `partial_eigh` takes.
    degree : int
        Of p, at least 1. An even one is safer, see below.
    lower, upper : float
        The interval of A's spectrum where p is to be close: upper a bound on the largest
        eigenvalue; lower twice the largest wanted one, or upper / (degree + 1)^2 where that is
        more (all above sigma).
    shift : float, optional
        sigma, at or below the smallest eigenvalue, and below ``lower``. Default: 0.

    Returns
    -------
    Preconditioner
        ``degree`` products with A a vector. So it saves steps, hardly products: good where a
        product is cheap beside a step's inner products. "lobpcg" makes one itself where none is
        given, with an interval that follows the iteration; this one is for "davidson", for the
        derivative's CG, and for a cheaper operator near A. A plain function as A is, as everywhere,
        new to the compiler at every call of `partial_eigh`.

    Notes
    -----
    Let t be an eigenvalue of A - sigma, a = lower - sigma, b = upper - sigma, c = (b + a) / 2,
    e = (b - a) / 2, m = degree + 1, and T_m the Chebyshev polynomial. Then

        1 - t p(t) = q(t) = T_m((c - t) / e) / T_m(c / e)

    is the smallest on [a, b] of all q of degree m with q(0) = 1. p is positive

    * on [a, b], where |q| <= 1 / T_m(c/e) < 1, about 2 exp(-2 m sqrt(a/b));
    * on (0, a), where 1 < (c - t)/e < c/e and T_m increases: 0 < q < 1;
    * on t < 0, where q > 1 likewise, and (1 - q) / t > 0; at 0, where p = -q'(0) > 0;
    * above b for an even degree, where q < 0; for an odd one below a + b, where q = 1.

    So T is positive definite for every Hermitian A if the degree is even, and if it is odd for A
    below lower + upper - sigma. Beyond a too small upper p still grows like t^degree: no wrong
    answer, but no help. On [0, a) p decreases (q is convex) from p(0) = m tanh(m x) / sqrt(a b),
    cosh x = c/e. Saad, section 12.3.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jax_peig import partial_eigh
    >>> from jax_peig.preconditioners import chebyshev
    >>> def chain(u):
    ...     return -jnp.diff(jnp.diff(u, prepend=0.0, append=0.0))
    >>> T = chebyshev(chain, degree=8, lower=0.3, upper=4.0)
    >>> plain = partial_eigh(chain, k=2, n=60, method="davidson")
    >>> helped = partial_eigh(chain, k=2, n=60, method="davidson", preconditioner=T)
    >>> bool(3 * helped.info.steps < plain.info.steps)
    True
    """
    n, _ = order_and_dtype(A, "chebyshev: A")
    if scipy.sparse.issparse(A):
        A = BCOO.from_scipy_sparse(A)
    elif is_array(A):
        A = _blocks.herm(jnp.asarray(A)) if A.ndim == 2 else jnp.asarray(A).real
    elif isinstance(A, scipy.sparse.linalg.LinearOperator) or not any(
        hasattr(A, way) for way in ("mv", "__matmul__", "__call__", "function")
    ):
        raise TypeError(
            f"chebyshev: A is a {type(A).__name__}; expected what partial_eigh takes: an array, a "
            "function of JAX arrays, a BlockProduct, or an object with @ or .mv."
        )
    degree = _count(degree, "chebyshev: degree")
    a, b = _number(lower, "chebyshev: lower"), _number(upper, "chebyshev: upper")
    sigma = _number(shift, "chebyshev: shift")
    if _concrete(a, b, sigma) and not np.asarray(sigma) < np.asarray(a) < np.asarray(b):
        raise ValueError(
            f"chebyshev: shift = {sigma}, lower = {a}, upper = {b}; expected shift < lower < upper:"
            " a bound on the largest eigenvalue as upper, a shift at or below the smallest."
        )
    return Preconditioner((A, a, b, sigma), _Polynomial(degree), n)


@dataclasses.dataclass(frozen=True)
class _Polynomial:
    degree: int

    def __call__(self, leaves: tuple[Any, ...], block: Block) -> Block:
        n, width = block.shape
        product = as_operator(leaves[0], n, block.dtype, "chebyshev: A", widths=(width,))
        lower, upper, sigma = leaves[1:]

        def shifted(z):
            return product(z) - sigma.astype(z.dtype) * z

        return semi_iteration(shifted, block, lower - sigma, upper - sigma, self.degree + 1)


# -- periodic grids -------------------------------------------------------------------------------


def fourier(symbol: ArrayLike, offset: Any = 0.0) -> Preconditioner:
    """Divide Fourier coefficients on a periodic grid: T v = ifftn(fftn(v) / (symbol + offset)).

    Parameters
    ----------
    symbol : (N1, ..., Nd)
        What the part of A with constant coefficients multiplies exp(i k.x) by, in the order of
        ``jnp.fft.fftfreq``: see `laplacian_symbol`. Vectors hold values on the grid in C order,
        n = N1 ... Nd. (For plane-wave coefficients as vectors, `jacobi` is the same.)
    offset : float, optional
        What stands for the rest of A - sigma M: for -Laplace + V the mean of V less a number about
        the smallest eigenvalue. symbol + offset has to be positive. Default: 0.

    Returns
    -------
    Preconditioner
        Two FFTs a vector. Real vectors stay real: where the symbol is not even, s(k) = s(-k), the
        real part of the result is taken, which is as positive definite.

    Notes
    -----
    For -Laplace + V the steps do not grow as the grid is refined, only with the range of V.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jax_peig.preconditioners import fourier, laplacian_symbol
    >>> x = 2 * jnp.pi * jnp.arange(16.0) / 16
    >>> T = fourier(0.5 * laplacian_symbol(16, x[1]), offset=1.0)
    >>> bool(jnp.allclose(T @ jnp.cos(2 * x), jnp.cos(2 * x) / (2**2 / 2 + 1), atol=1e-6))
    True
    """
    s = _array(symbol, "fourier: symbol", "(N1, ..., Nd)", range(1, 9)).real
    total = s + _number(offset, "fourier: offset").astype(s.dtype)
    if _concrete(total) and not (smallest := np.min(np.asarray(total))) > 0:
        raise ValueError(
            f"fourier: the smallest symbol + offset is {smallest}; expected positive numbers. "
            "Give an offset, of the size of the mean potential above the smallest eigenvalue."
        )
    return Preconditioner((_inverse_size(total),), _divide_on_grid, math.prod(s.shape))


def _divide_on_grid(leaves: tuple[Array], block: Block) -> Block:
    inverse = leaves[0].astype(jnp.finfo(block.dtype).dtype)
    shape = inverse.shape
    axes = tuple(range(1, 1 + len(shape)))
    grid = block.T.reshape(-1, *shape)  # (b, N1, ..., Nd)
    if jnp.iscomplexobj(block):
        product = jnp.fft.fftn(grid, axes=axes) * inverse.astype(block.dtype)[None]
        out = jnp.fft.ifftn(product, axes=axes)
    else:  # Re F^-1 D F of real vectors is F^-1 (D(k) + D(-k))/2 F: half of the coefficients do
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
        Distance of points, not traced; the period is N h. Default: 1.
    kind : {"spectral", "finite difference"}
        sum_i k_i^2, k_i in 2 pi fftfreq(N_i, h_i); or, of the stencil (-1, 2, -1) / h_i^2 along
        each axis, sum_i (4 / h_i^2) sin^2(k_i h_i / 2).

    Returns
    -------
    (N1, ..., Nd)
        Zero at k = 0, positive elsewhere, in the order of ``jnp.fft.fftfreq``.

    Examples
    --------
    >>> from jax_peig.preconditioners import laplacian_symbol
    >>> print(laplacian_symbol(4, 0.5, kind="finite difference"))
    [ 0.  8. 16.  8.]
    """
    points = shape if isinstance(shape, (tuple, list)) else (shape,)
    counts = [_count(p, "laplacian_symbol: shape") for p in points]
    h = np.asarray(spacing, float)
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

    Notes
    -----
    K(x) = (27 + 18 x + 12 x^2 + 8 x^3) / (27 + 18 x + 12 x^2 + 8 x^3 + 16 x^4), of Teter, Payne and
    Allan, Phys. Rev. B 40, 12255 (1989): 1 with three zero derivatives at x = 0, so that the slow
    waves, of which the vector is made, are left alone; 1/(2 x) where kinetic energy is all.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jax_peig.preconditioners import teter
    >>> print(teter(jnp.array([0.0, 0.1, 1.0]), reference=1.0).round(3))
    [1.    1.    1.246]
    """
    t = _array(kinetic, "teter: kinetic", "(N1, ..., Nd)", range(1, 9)).real
    scale = _number(reference, "teter: reference").astype(t.dtype)
    if _concrete(t) and (smallest := np.min(np.asarray(t))) < 0:
        raise ValueError(f"teter: kinetic holds {smallest}; expected energies of at least 0.")
    if _concrete(scale) and not np.asarray(scale) > 0:
        raise ValueError(f"teter: reference is {scale}; expected a positive energy.")
    x = t / scale
    return 1 + 16 * x**4 / (27 + x * (18 + x * (12 + 8 * x)))


# -- checks ---------------------------------------------------------------------------------------


def _concrete(*values: Any) -> bool:
    return not any(isinstance(v, jax.core.Tracer) for v in values)


def _array(x: Any, name: str, shape: str, ndims: Sequence[int], finite: bool = True) -> Array:
    """A floating array of so many axes, finite where it is concrete."""
    if not is_array(x):
        raise TypeError(f"{name} is a {type(x).__name__}; expected an array {shape}.")
    if x.dtype.name not in FLOATING:
        raise TypeError(
            f"{name} has dtype {x.dtype}; expected one of {', '.join(FLOATING)}. "
            "Convert it, for example with .astype(float)."
        )
    if x.ndim not in ndims or x.size == 0:
        raise ValueError(f"{name} has shape {tuple(x.shape)}; expected an array {shape}.")
    if finite and _concrete(x) and not np.all(np.isfinite(np.asarray(x))):
        raise ValueError(f"{name} holds NaN or inf; expected finite numbers.")
    return jnp.asarray(x)


def _number(x: Any, name: str) -> Array:
    """A real number in JAX's default float, finite where it is concrete."""
    x = np.asarray(x) if isinstance(x, (int, float, np.generic)) else x
    if not is_array(x) or x.ndim != 0 or x.dtype.kind not in "iuf":
        raise TypeError(f"{name} is {x!r}; expected a real number.")
    if _concrete(x) and not np.isfinite(np.asarray(x)):
        raise ValueError(f"{name} is {x}; expected a finite number.")
    return jnp.asarray(x, jnp.result_type(float))


def _count(x: Any, name: str) -> int:
    try:
        count = -1 if isinstance(x, (bool, np.bool_)) else operator.index(x)
    except TypeError:
        count = -1
    if count < 1:
        raise ValueError(f"{name} is {x!r}; expected a Python integer of at least 1.")
    return count
