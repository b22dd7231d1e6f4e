"""Preconditioners, one file a family."""

from jax_peig.preconditioners.diagonal import Preconditioner as Preconditioner
from jax_peig.preconditioners.diagonal import block_jacobi as block_jacobi
from jax_peig.preconditioners.diagonal import chebyshev as chebyshev
from jax_peig.preconditioners.diagonal import fourier as fourier
from jax_peig.preconditioners.diagonal import jacobi as jacobi
from jax_peig.preconditioners.diagonal import laplacian_symbol as laplacian_symbol
from jax_peig.preconditioners.diagonal import teter as teter
