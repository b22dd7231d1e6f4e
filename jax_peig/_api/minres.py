"""MINRES as a linear solver of its own, in the manner of ``jax.scipy.sparse.linalg``."""

import enum
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jax_peig._core import blocks
from jax_peig._core.checks import (
    TRACING_ERRORS,
    check_positive,
    failure,
    is_array,
    is_concrete,
)
from jax_peig._core.types import Array, Block, PyTree
from jax_peig._linear_solvers import minres as block_minres
from jax_peig._operators.given import classify
from jax_peig._operators.program import Program, program_of

# Solves of the remaining residual: a restart mends the rounding of a long Lanczos process.
ROUNDS = 4
# The default of ``maxiter`` is this many times n.
STEPS_PER_ROW = 10
# A round solves to this part of the target: the recurrence's residual drifts from the true one.
SAFETY = 0.5


VectorFunction: TypeAlias = Callable[[Array], Array]


class MinresStatus(enum.IntEnum):
    """How a solve ended."""

    CONVERGED = 0
    MAX_STEPS = 1
    INCONSISTENT = 2
    NOT_FINITE = 3

    @property
    def text(self) -> str:
        """What happened and what to do."""
        return _TEXTS[self]


_TEXTS = {
    MinresStatus.CONVERGED: "the residual is within the tolerance",
    MinresStatus.MAX_STEPS: "the residual did not reach the tolerance within maxiter steps: raise "
    "maxiter, loosen tol, or give a preconditioner",
    MinresStatus.INCONSISTENT: "no further step reduces the residual: b is not in the range of A "
    "(x is a least-squares solution), or tol is below the rounding of the products",
    MinresStatus.NOT_FINITE: "a product gave NaN or inf: check A, b and M",
}


class MinresInfo(NamedTuple):
    """The account of a solve. It holds arrays, which pass through ``jit`` and ``vmap``.

    Attributes
    ----------
    status : int
        A `MinresStatus`.
    steps : int
        Products with A in the Lanczos process; each round of it costs one more.
    residual_norm : real
        ||b - A x||, computed afresh.
    """

    status: Array
    steps: Array
    residual_norm: Array

    @property
    def converged(self) -> Array:
        """Whether ||b - A x|| is within the tolerance."""
        return self.status == MinresStatus.CONVERGED

    @property
    def message(self) -> str:
        """The status in words; outside ``jit``."""
        return MinresStatus(int(self.status)).text

    def __repr__(self) -> str:
        if not is_concrete(*self) or jnp.ndim(self.status):
            return f"MinresInfo(status={jnp.shape(self.status)})"
        steps, residual = int(self.steps), float(self.residual_norm)
        return f"MinresInfo: steps {steps}, residual norm {residual:.1e}; {self.message}"


def minres(
    A: Any,
    b: PyTree,
    x0: PyTree = None,
    *,
    tol: float = 1e-5,
    atol: float = 0.0,
    maxiter: int | None = None,
    M: Any = None,
) -> tuple[PyTree, MinresInfo]:
    """Solve A x = b for a Hermitian A, definite or not, by MINRES.

    The interface is that of ``jax.scipy.sparse.linalg.cg``, except for the second result.

    Parameters
    ----------
    A : array (n, n), function, or object with ``@``
        Hermitian; x -> A x for x of the structure of b. It may be indefinite, and singular if b is
        in its range. Derivatives pass to everything that it holds or closes over.
    b : pytree of arrays
        The right-hand side: floating, real or complex.
    x0 : pytree, optional
        A first guess, of the structure of b. Default: zero. It has no derivative.
    tol, atol : float
        The residual norm to reach is max(tol ||b||, atol).
    maxiter : int, optional
        Bound on the steps. Default: 10 n.
    M : as A, optional
        A preconditioner, close to the inverse of A in its action; Hermitian positive definite. It
        has no derivative.

    Returns
    -------
    x : pytree
        Of the structure of b. For a singular A, without x0 and M, it is the solution of least norm.
    info : MinresInfo
        ``info.converged``, ``info.steps``, ``info.residual_norm``, ``info.status``; outside ``jit``
        ``info.message``.

    Raises
    ------
    TypeError, ValueError
        If the arguments do not fit together.

    Differentiability
    -----------------
    * In: b, and all that A holds or closes over. The derivatives in x0 and M are zero.
    * Modes: forward and reverse.
    * Orders: any.
    * Refused: never. A derivative has the accuracy of ``tol``, and its own solves leave no account.
      Of a singular A only the part in its range has a meaning.

    Notes
    -----
    C. C. Paige and M. A. Saunders, SIAM J. Numer. Anal. 12 (1975), 617-629. A step takes one
    product with A (and one with M); ten vectors are kept. The residual is computed afresh at the
    end, and solved for again if it is above the tolerance, up to three times. A derivative takes
    one more solve, dx = A^-1 (db - dA x), in forward and in reverse mode, to any order. For a
    singular A only the derivatives of the part in its range have a meaning.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from jax_peig import minres
    >>> A = jnp.array([[1.0, 2.0], [2.0, -3.0]])  # indefinite
    >>> x, info = minres(A, jnp.array([5.0, -4.0]))
    >>> print(x.round(4), bool(info.converged))
    [1. 2.] True
    """
    check_positive("minres: tol", tol, float, zero=True)
    check_positive("minres: atol", atol, float, zero=True)
    check_positive("minres: maxiter", maxiter, int)
    _check_right_hand_side(b)
    flat, restore = ravel_pytree(b)
    start = None if x0 is None else jax.lax.stop_gradient(_like(x0, b, "x0"))
    product, leaves = _flat_product(A, b, restore, "A")
    if M is None:
        inverse, inverse_leaves = None, ()
    else:
        inverse, inverse_leaves = _flat_product(M, b, restore, "M")
    limits = _Limits(tol, atol, STEPS_PER_ROW * flat.size if maxiter is None else maxiter)
    inputs = _Inputs(flat, leaves, jax.lax.stop_gradient(inverse_leaves), start)
    x, info = _compiled(product, inverse, inputs, limits)
    return restore(x), info


class _Product(NamedTuple):
    """x -> A x on flat vectors (n,); hashable."""

    program: Program

    def __call__(self, leaves: tuple[Any, ...], x: Array) -> Array:
        return self.program(leaves, x)[0].astype(x.dtype)


class _Limits(NamedTuple):
    """How far a solve goes."""

    tol: float
    atol: float
    max_steps: int


class _Inputs(NamedTuple):
    b: Array  # (n,)
    leaves: tuple[Any, ...]  # what A depends on
    inverse_leaves: tuple[Any, ...]  # what M depends on
    start: Array | None  # (n,)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _compiled(
    product: _Product, inverse: _Product | None, inputs: _Inputs, limits: _Limits
) -> tuple[Array, MinresInfo]:
    """The solution on flat vectors, with its derivatives."""

    def multiply(x: Array) -> Array:
        return product(inputs.leaves, x)

    def precondition(x: Array) -> Array:
        assert inverse is not None
        return inverse(inputs.inverse_leaves, x)

    helper = None if inverse is None else precondition

    def solve(matvec: VectorFunction, rhs: Array) -> tuple[Array, MinresInfo]:
        return _solve(matvec, rhs, inputs.start, helper, limits)

    def transposed(vecmat: VectorFunction, rhs: Array) -> tuple[Array, MinresInfo]:
        del vecmat  # A^T y = c is A y* = c*: A is Hermitian
        z, info = _solve(multiply, rhs.conj(), None, helper, limits)
        return z.conj(), info

    return jax.lax.custom_linear_solve(multiply, inputs.b, solve, transposed, has_aux=True)


def _check_right_hand_side(b: PyTree) -> None:
    if not jax.tree.leaves(b):
        raise ValueError("minres: b holds no array; expected a pytree of floating arrays.")
    for leaf in jax.tree.leaves(b):
        if not (is_array(leaf) or isinstance(leaf, (int, float, complex, np.generic))):
            raise TypeError(
                f"minres: b holds a {type(leaf).__name__}; expected a pytree of floating arrays. "
                "Convert it, for example with jnp.asarray(b, float)."
            )
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            raise TypeError(
                f"minres: b has dtype {jnp.result_type(leaf)}; expected a floating one. "
                "Convert it, for example with .astype(float)."
            )


class _State(NamedTuple):
    x: Array
    r: Array
    length: Array  # of r
    steps: Array
    ended: Array  # no further round would help
    rounds: Array


def _solve(
    product: VectorFunction,
    b: Array,
    start: Array | None,
    precondition: VectorFunction | None,
    limits: _Limits,
) -> tuple[Array, MinresInfo]:
    """Solve for vectors (n,), in rounds of the block solver, each judged by the true residual."""
    norm = blocks.column_norms(b[:, None])[0]
    target = jnp.maximum(limits.tol * norm, limits.atol)
    most = limits.max_steps

    def by_block(block: Block, _: Array) -> Block:
        return product(block[:, 0])[:, None]

    def precondition_block(block: Block) -> Block:
        assert precondition is not None
        return precondition(block[:, 0])[:, None]

    def judge(x: Array, steps: Array, ended: Array, rounds: Array) -> _State:
        r = b - product(x)
        return _State(x, r, blocks.column_norms(r[:, None])[0], steps, ended, rounds)

    def unfinished(state: _State) -> Array:
        open_ = (state.length > target) & ~state.ended & jnp.isfinite(state.length)
        return open_ & (state.steps < most) & (state.rounds < ROUNDS)

    def solve_residual(state: _State) -> _State:
        result = block_minres.solve(
            by_block, state.r[:, None], SAFETY * target[None], most - state.steps,
            None if precondition is None else precondition_block, least_squares=True,
        )  # fmt: skip
        x = state.x + result.x[:, 0]
        new = judge(x, state.steps + result.steps, result.inconsistent[0], state.rounds + 1)
        # Where b is not in A's range, a round may make the residual worse: it is not taken.
        better = ~(new.length > state.length)
        kept = _State(state.x, state.r, state.length, new.steps, jnp.array(True), new.rounds)
        return jax.tree.map(lambda n, k: jnp.where(better, n, k), new, kept)

    none = jnp.array(0)
    if start is None:
        begin = _State(jnp.zeros_like(b), b, norm, none, jnp.array(False), none)
    else:
        begin = judge(start, none, jnp.array(False), none)
    end = jax.lax.while_loop(unfinished, solve_residual, begin)
    status = jnp.where(end.steps >= most, MinresStatus.MAX_STEPS, MinresStatus.INCONSISTENT)
    status = jnp.where(end.length <= target, MinresStatus.CONVERGED, status)
    status = jnp.where(jnp.isfinite(end.length), status, MinresStatus.NOT_FINITE)
    return end.x, MinresInfo(status, end.steps, end.length)


def _like(x: PyTree, b: PyTree, name: str) -> Array:
    """The flat vector of a pytree that has to look like b."""
    shapes = [jax.tree.map(jnp.shape, t) for t in (x, b)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"minres: {name} has shapes {shapes[0]}; expected those of b, {shapes[1]}."
        )
    flat, dtype = ravel_pytree(x)[0], ravel_pytree(b)[0].dtype
    if jnp.iscomplexobj(flat) and not jnp.issubdtype(dtype, jnp.complexfloating):
        raise TypeError(f"minres: {name} is complex and b is {dtype}; give a complex b.")
    return flat.astype(dtype)


def _flat_product(
    a: Any, b: PyTree, restore: Callable[[Array], PyTree], name: str
) -> tuple[_Product, tuple[Any, ...]]:
    """Return x -> A x on flat vectors, traced and checked, and the values that it depends on."""
    given = classify(a, f"minres: {name}")
    if not callable(a) and isinstance(b, (dict, list, tuple)):
        raise TypeError(
            f"minres: {name} is a {type(a).__name__} and b a pytree; expected a function."
        )
    flat = ravel_pytree(b)[0]
    if given.kind == "array" and a.shape != (flat.size, flat.size):
        raise ValueError(
            f"minres: {name} has shape {tuple(a.shape)} and b {flat.size} entries; expected "
            f"{(flat.size, flat.size)}. Batches go through jax.vmap."
        )
    function = a if callable(a) else given.times
    results = []

    def product(x: Array) -> Array:
        out = function(restore(x))
        results.append(
            jax.tree.map(lambda v: jax.ShapeDtypeStruct(jnp.shape(v), jnp.result_type(v)), out)
        )
        return ravel_pytree(out)[0]

    try:
        closed = jax.make_jaxpr(product)(flat)
    except TRACING_ERRORS as error:
        advice = "Expected a product with x of the structure of b; check shapes and dtypes."
        raise ValueError(f"minres: {name} applied to b failed: {failure(error, advice)}") from error
    jax.eval_shape(lambda y: _like(y, b, f"the result of {name}"), results[0])
    program, leaves = program_of(closed)
    return _Product(program), leaves
