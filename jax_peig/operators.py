"""What may be given as A, M or a preconditioner, and the two forms that this module makes.

| given                                       | multiplied as                                     |
| ------------------------------------------- | ------------------------------------------------- |
| array (n, n)                                | ``A @ V``; its Hermitian part is taken            |
| array (n,)                                  | a diagonal matrix, given by its diagonal          |
| `from_scipy` of a SciPy sparse matrix       | ``A @ V``; the entries can be differentiated      |
| SciPy sparse matrix                         | the same, with constant entries                   |
| BCOO, or another object with ``@``          | ``A @ V`` with a block V (n, b)                   |
| object with ``.mv`` (lineax)                | ``A.mv(v)`` with one vector (n,), by ``jax.vmap`` |
| function, or pytree callable, of one vector | ``A(v)``, by ``jax.vmap``                         |
| `BlockProduct` of a function                | ``A(V)``, in one pass over the block              |

A function may close over anything, traced values included. Every form compiles once for each shape,
outside ``jit`` too: other arrays and floating numbers compile nothing. A function that calls back
to Python compiles at every call.

Vectors may be grids or pytrees: see ``like`` of `partial_eigh`. Functions, `BlockProduct` and
``.mv`` then map these, and what multiplies by ``@`` multiplies ravelled vectors.
"""

from jax_peig._factorizations.shift_inverse import ShiftInverse as ShiftInverse
from jax_peig._factorizations.shift_inverse import count_between as count_between
from jax_peig._factorizations.shift_inverse import shift_invert as shift_invert
from jax_peig._factorizations.sparse import factors as factors
from jax_peig._operators.given import BlockProduct as BlockProduct
from jax_peig._operators.sparse import SparseOperator as SparseOperator
from jax_peig._operators.sparse import from_scipy as from_scipy
