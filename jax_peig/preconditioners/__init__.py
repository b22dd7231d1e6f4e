"""Preconditioners for `partial_eigh`, approximate inverses T of A - sigma M, one file a family.

| make               | what it is                      | when                                   |
| ------------------ | ------------------------------- | -------------------------------------- |
| `jacobi`           | 1 / abs(d - sigma)              | a diagonal that varies or is most of A |
| `block_jacobi`     | inverses of the diagonal blocks | strong coupling in groups of unknowns  |
| `polynomial`       | a polynomial in A               | only products with A; uniform meshes   |
| `multigrid`        | a V-cycle over coarser levels   | sparse matrices of elliptic operators  |
| `fourier`          | division by a symbol, by FFT    | periodic grids                         |
| `laplacian_symbol` | the symbol of -Laplace          | for `fourier` and `jacobi`             |
| `teter`            | Teter, Payne and Allan's symbol | for `fourier` and `jacobi`             |

Each is Hermitian positive definite, as LOBPCG and conjugate gradients need. Where this takes a
safeguard, the docstring says which. Each is a pytree of arrays: ``T @ v`` and ``T(v)`` apply it to
a vector (n,) or a block (n, b) of any of the four floating dtypes, and another one of the same
shapes compiles nothing new. A preconditioner changes the pace and not the result, so `partial_eigh`
gives it no derivative. It may be made of traced values, inside a function that is differentiated.
Each factory raises TypeError or ValueError for shapes, dtypes and options that do not fit, and, if
they are not traced, for values that do not fit. "Saad" is Y. Saad, Iterative Methods for Sparse
Linear Systems, 2nd ed., SIAM 2003.
"""

from jax_peig.preconditioners._base import Preconditioner as Preconditioner
from jax_peig.preconditioners.diagonal import block_jacobi as block_jacobi
from jax_peig.preconditioners.diagonal import jacobi as jacobi
from jax_peig.preconditioners.fourier import fourier as fourier
from jax_peig.preconditioners.fourier import laplacian_symbol as laplacian_symbol
from jax_peig.preconditioners.fourier import teter as teter
from jax_peig.preconditioners.multigrid import multigrid as multigrid
from jax_peig.preconditioners.polynomial import polynomial as polynomial
