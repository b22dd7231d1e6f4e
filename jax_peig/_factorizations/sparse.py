"""Sparse factorisations by SuperLU on the host, through ``jax.pure_callback``."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax.experimental.sparse import BCOO

from jax_peig._core.checks import is_array
from jax_peig._core.types import Array, Block
from jax_peig._factorizations.store import (
    UNKNOWN,
    Entries,
    FactorStore,
    Pencil,
    Question,
    matrix_of,
    token_of,
    unreferenced,
)
from jax_peig._operators.sparse import SparseOperator

# The factors of sparse matrices, 2 GiB of them at most.
factors = FactorStore(2 * 1024**3)


def factor_sparse(
    caller: str, matrices: tuple[Any, Any], shift: Array, question: Question
) -> tuple[Array, Array, tuple[Array, Pencil]]:
    """The pole, the count of eigenvalues below it, and the token with what it stands for."""
    _check_host(caller, matrices)
    a, m = (None if x is None else _entries(x) for x in matrices)
    assert a is not None
    pencil = Pencil(a, m, shift)
    if not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(pencil)):
        _check_referenced(caller, question.n, pencil)
    token, pole, negative = _make(question)(pencil)
    return pole, negative, (token, pencil)


def _check_host(caller: str, matrices: tuple[Any, Any]) -> None:
    """Host code runs for arrays of one CPU."""
    advice = "Give OPinv, a function of your own, or method='chebyshev'."
    backend = jax.default_backend()
    if backend != "cpu":
        raise ValueError(
            f"{caller}: the matrices are sparse, and JAX runs on {backend}; a sparse matrix is "
            f"factorised by SciPy on the host, which is for the CPU. {advice}"
        )
    for leaf in jax.tree.leaves(matrices):
        concrete = is_array(leaf) and not isinstance(leaf, (jax.core.Tracer, np.ndarray))
        spread = len(leaf.devices()) if concrete else jax.typeof(leaf).sharding.mesh.size
        if spread > 1:
            raise ValueError(
                f"{caller}: the entries lie on {spread} devices; a sparse matrix is factorised "
                f"by SciPy on the host, for arrays of one device. {advice}"
            )


def _check_referenced(caller: str, n: int, pencil: Pencil) -> None:
    a = matrix_of(Entries(*map(np.asarray, pencil.a)), n)
    m = scipy.sparse.eye_array(n, format="csc")
    if pencil.m is not None:
        m = matrix_of(Entries(*map(np.asarray, pencil.m)), n)
    without = unreferenced(a, m)
    if without.size:
        raise ValueError(
            f"{caller}: neither A nor M has an entry for degree of freedom {without[0]} "
            f"({without.size} in all), so that A - s M is singular for every s; expected a "
            "regular pencil. Remove what no element refers to, such as an unused vertex of a mesh."
        )


def _entries(x: Any) -> Entries:
    """Rows, columns and values."""
    if isinstance(x, BCOO):
        return Entries(x.indices[:, 0], x.indices[:, 1], x.data)
    if isinstance(x, SparseOperator):
        return Entries(*x.coordinates(), x.values)
    if x.ndim == 1:
        place = jnp.arange(x.shape[0], dtype=jnp.int32)
        return Entries(place, place, x)
    rows, columns = np.indices(x.shape, np.int32).reshape(2, -1)
    return Entries(jnp.asarray(rows), jnp.asarray(columns), x.reshape(-1))


@functools.lru_cache(maxsize=64)
def _make(question: Question) -> Any:
    """Pencil -> token, pole and inertia, by the host; refused under vmap."""
    real = jnp.finfo(question.dtype).dtype
    integer = jnp.asarray(0).dtype
    shapes = (
        jax.ShapeDtypeStruct((4,), jnp.uint32),
        jax.ShapeDtypeStruct((), real),
        jax.ShapeDtypeStruct((), integer),
    )

    def on_host(pencil: Pencil) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        pencil = jax.tree.map(np.asarray, pencil)
        token = token_of(question, pencil)
        factor = factors.make(token, question, pencil)
        return (
            np.frombuffer(token, np.uint32),
            np.asarray(factor.pole, real),
            np.asarray(factor.negative, integer),
        )

    @jax.custom_batching.custom_vmap
    def make(pencil: Pencil) -> Any:
        return jax.pure_callback(on_host, shapes, pencil)

    @make.def_vmap
    def refuse(size: int, batched: Any, pencil: Pencil) -> Any:
        del batched, pencil
        raise NotImplementedError(
            f"shift_invert: {size} sparse matrices, or shifts, under vmap; a sparse matrix is "
            "factorised by SciPy on the host, one at a time. Take a loop or jax.lax.map, give "
            "OPinv, a function of your own, or method='chebyshev'."
        )

    return make


def count_sparse(question: Question, pencil: Pencil, shift: Array) -> Array:
    """How many eigenvalues lie below the shift; `UNKNOWN` where the pivots do not tell."""
    counting = question._replace(definite=False, inertia=True)
    _, pole, negative = _make(counting)(pencil._replace(shift=shift))
    return jnp.where(pole == shift, negative, UNKNOWN)


def solve_sparse(question: Question, token: Array, pencil: Pencil, block: Block) -> Block:
    """The solution by the factor of the token, which is made again if the store dropped it.

    The host gets the columns one after another, as SuperLU wants them.
    """
    columns = block.T
    like = jax.ShapeDtypeStruct(columns.shape, block.dtype)
    flag = jax.ShapeDtypeStruct((), jnp.bool_)
    solution, kept = jax.pure_callback(
        _solve_kept, (like, flag), token, columns, vmap_method="sequential"
    )

    def remade() -> Array:
        make = functools.partial(_solve_remade, question)
        return jax.pure_callback(make, like, token, pencil, columns, vmap_method="sequential")

    return jax.lax.cond(kept, lambda: solution, remade).T


def _solve_kept(token: Array, columns: Array) -> tuple[np.ndarray, np.ndarray]:
    rhs = np.asarray(columns).T
    factor = factors.find(np.asarray(token).tobytes())
    if factor is None:
        return np.zeros_like(rhs.T), np.asarray(False)
    return factor.solve(rhs).T.astype(rhs.dtype, copy=False), np.asarray(True)


def _solve_remade(question: Question, token: Array, pencil: Pencil, columns: Array) -> np.ndarray:
    rhs = np.asarray(columns).T
    pencil = jax.tree.map(np.asarray, pencil)
    factor = factors.make(np.asarray(token).tobytes(), question, pencil)
    return factor.solve(rhs).T.astype(rhs.dtype, copy=False)
