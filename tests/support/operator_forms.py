"""The forms in which an operator may be given, made of a matrix."""

import dataclasses
import functools

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax.experimental.sparse import BCOO
from jax.tree_util import Partial

from jax_peig import BlockProduct
from jax_peig._operators.operator import as_operator
from tests.support import spectra

N, K = 12, 3
PENCIL = spectra.pencil(np.arange(1.0, N + 1) ** 1.5, condition=10.0, seed=1)
SECOND = spectra.pencil(np.arange(1.0, N + 1) ** 1.2, condition=10.0, seed=2)
FLOAT = np.dtype(np.float64)

# -- operators in every form ----------------------------------------------------------------------


class Matmul:
    """Knows ``@`` and nothing else."""

    def __init__(self, matrix):
        self.matrix = jnp.asarray(matrix)

    def __matmul__(self, block):
        return self.matrix @ block


class Lineax:
    """Has ``.mv``, as the operators of lineax; calling it is not multiplying."""

    def __init__(self, matrix):
        self.matrix = jnp.asarray(matrix)

    def mv(self, vector):
        return self.matrix @ vector

    def __call__(self, _):
        raise AssertionError("an object with .mv is not called")


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["values", "rows", "columns", "factor"],
    meta_fields=["name"],
)
@dataclasses.dataclass(frozen=True)
class Coordinates:
    """A pytree callable with floating, integer and Python-number leaves."""

    values: object
    rows: object
    columns: object
    factor: object = 1.0
    name: str = "coordinates"

    def __call__(self, v):
        return self.factor * jnp.zeros_like(v).at[self.rows].add(self.values * v[self.columns])

    @classmethod
    def of(cls, matrix, factor=1.0):
        rows, columns = np.indices(matrix.shape).reshape(2, -1)
        return cls(jnp.asarray(matrix).reshape(-1) / factor, rows, columns, factor)


@jax.tree_util.register_pytree_node_class
class Named:
    """A pytree callable, or one with ``@`` or ``.mv``, some of whose leaves are no arrays."""

    def __init__(self, matrix, how, function):
        self.matrix, self.how, self.function = matrix, how, function

    def tree_flatten(self):
        return (self.how, self.matrix, self.function), None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        how, matrix, function = leaves
        return cls(matrix, how, function)

    def __call__(self, v):
        assert self.how == "the usual way"
        return self.function(self.matrix, v)


@jax.tree_util.register_pytree_node_class
class NamedMv(Named):
    def mv(self, v):
        return Named.__call__(self, v)


@jax.tree_util.register_pytree_node_class
class NamedMatmul(Named):
    def __matmul__(self, v):
        return Named.__call__(self, v)


@jax.tree_util.register_pytree_node_class
class Unhashable(Named):
    """Carries a leaf that is neither an array nor hashable."""

    __hash__ = None

    def __call__(self, v):
        assert self.how == ["the", "usual", "way"]
        return self.matrix @ v

    def tree_flatten(self):
        return (self.matrix, _List(self.how), self.function), None

    @classmethod
    def tree_unflatten(cls, _, leaves):
        matrix, how, function = leaves
        return cls(matrix, how.items if isinstance(how, _List) else how, function)


class _List:
    """An opaque, unhashable leaf."""

    __hash__ = None

    def __init__(self, items):
        self.items = items

    def __eq__(self, other):
        return self.items == other.items


def times(matrix, v):
    return matrix @ v


def closure(matrix):
    matrix = jnp.asarray(matrix)
    return lambda v: matrix @ v


FORMS = {
    "array": jnp.asarray,
    "NumPy": np.asarray,
    "Fortran order": np.asfortranarray,
    "BCOO": lambda a: BCOO.fromdense(jnp.asarray(a)),
    "SciPy csr_array": scipy.sparse.csr_array,
    "SciPy csr_matrix": scipy.sparse.csr_matrix,
    "SciPy coo_array": scipy.sparse.coo_array,
    "@": Matmul,
    ".mv": Lineax,
    "closure": closure,
    "closure over NumPy": lambda a: lambda v: a @ v,
    "functools.partial": lambda a: functools.partial(times, a),
    "bound method": lambda a: Lineax(a).mv,
    "jitted function": lambda a: jax.jit(closure(a)),
    "Partial": lambda a: Partial(times, jnp.asarray(a)),
    "Partial of a closure": lambda a: Partial(lambda c, v: c * (a @ v), 1.0),
    "Partial with a keyword": lambda a: Partial(lambda v, matrix: matrix @ v, matrix=a),
    "pytree with integer leaves": Coordinates.of,
    "pytree with a Python number": lambda a: Coordinates.of(a, 3.0),
    "pytree with other leaves": lambda a: Named(a, "the usual way", times),
    "pytree with .mv": lambda a: NamedMv(a, "the usual way", times),
    "pytree with @": lambda a: NamedMatmul(a, "the usual way", times),
    "pytree with an unhashable leaf": lambda a: Unhashable(a, ["the", "usual", "way"], None),
    "BlockProduct of a function": lambda a: BlockProduct(closure(a)),
    "BlockProduct of a Partial": lambda a: BlockProduct(Partial(times, jnp.asarray(a))),
    "BlockProduct of a pytree": lambda a: BlockProduct(Named(a, "the usual way", times)),
    "Operator": lambda a: as_operator(a, N, FLOAT, "A"),
    "Operator of a function": lambda a: as_operator(closure(a), N, FLOAT, "A"),
}
