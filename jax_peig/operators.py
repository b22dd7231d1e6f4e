"""What may be given as A or M beside arrays and functions: products of blocks, sparse matrices."""

from jax_peig._operators.given import BlockProduct as BlockProduct
from jax_peig._operators.sparse import SparseOperator as SparseOperator
from jax_peig._operators.sparse import from_scipy as from_scipy
