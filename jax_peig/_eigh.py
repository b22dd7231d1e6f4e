"""partial_eigh: from operators to eigenpairs with derivatives and an account of their quality."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec, auto_axes

from jax_peig import _arguments, _blocks, _clusters, _derivatives, _tolerances
from jax_peig._eigensolvers import dense, lobpcg
from jax_peig._eigensolvers.ritz import Goal, Ritz, relative_residuals, residuals
from jax_peig._operators import Operator, as_operator, hermitian_part
from jax_peig._options import Derivative
from jax_peig._probe import PRODUCTS, Probe, probe
from jax_peig._results import Info, PartialEigh, Status
from jax_peig._sylvester import Fixed, Settings
from jax_peig._types import Array, ArrayLike, Block, DTypeLike, OperatorLike

MAX_STEPS = 2000
DERIVATIVE_STEPS = 10_000


class _Static(NamedTuple):
    """Everything that is compiled into the program; hashable by value."""

    k: int
    largest: bool
    method: str
    width: int
    dtype: str
    tol: float
    max_steps: int
    degeneracy_tol: float | None
    rules: _derivatives.Rules


def partial_eigh(
    A: OperatorLike,
    M: OperatorLike = None,
    k: int | None = None,
    *,
    which: str = "smallest",
    n: int | None = None,
    dtype: DTypeLike = None,
    v0: ArrayLike | None = None,
    preconditioner: OperatorLike = None,
    method: str = "auto",
    tol: float | None = None,
    max_steps: int | None = None,
    degeneracy_tol: float | None = None,
    derivative: Derivative | None = None,
    key: Array | None = None,
) -> PartialEigh:
    """Compute the k smallest or largest eigenpairs of ``A X = M X diag(w)``, differentiably.

    A is Hermitian, M Hermitian positive definite, X^H M X = I. Both may be known only by their
    products with vectors. Eigenvalues and eigenvectors are differentiable to any order, forward and
    reverse, in every parameter that A and M hold or close over, also at repeated eigenvalues.

    Parameters
    ----------
    A : operator
        An array (n, n), of which the Hermitian part is taken as ``jnp.linalg.eigh`` does, or (n,)
        for a diagonal; a BCOO, a SciPy sparse matrix, or anything with ``@``; an object with
        ``.mv`` (lineax); a function of one vector (n,) -> (n,); a pytree callable such as
        ``jax.tree_util.Partial``; or any of the last two in `BlockProduct`, as a function of a
        whole block (n, b) -> (n, b). Functions may close over anything, traced values included. A
        plain function is new to the compiler at every call: in a loop outside ``jit`` give arrays
        or pytree callables, which compile once for each shape.
    M : operator, optional
        As A; the identity by default.
    k : int
        How many eigenpairs.
    which : {"smallest", "largest"}
        Which end of the spectrum.
    n : int, optional
        The order; needed where neither A, M nor v0 tells it.
    dtype : optional
        Of the vectors: float32, float64, complex64 or complex128. Default: that of the arrays
        given, else JAX's default float. float64 needs ``jax_enable_x64``.
    v0 : (n,) or (n, b), optional
        A starting guess, for example the eigenvectors of a nearby problem; columns beyond the k-th
        are not used. Its derivative is zero.
    preconditioner : operator, optional
        As A: an approximate inverse of A - sigma M, positive definite, for method "lobpcg" and for
        the derivative's linear systems. Its derivative is zero.
    method : {"auto", "dense", "lobpcg"}
        "dense" forms the matrices and calls LAPACK: O(n^3), the choice for small n. "lobpcg"
        iterates with products alone and needs 3 k <= n. "auto" is "dense" up to n = 500, or where
        k > n/5.
    tol : float, optional
        A pair is converged when ||A x - lam M x|| <= tol (||A|| + |lam| ||M||) ||x||. Default:
        eps^(2/3), 3.7e-11 in float64 and 2.4e-5 in float32.
    max_steps : int, optional
        Bound on the iteration's steps. Default: 2000.
    degeneracy_tol : float, optional
        Eigenvalues that differ by less, in the unit of the eigenvalues, are one cluster. Default:
        sqrt(eps) max |w|. Pairs that their error bounds cannot tell apart always are.
    derivative : Derivative, optional
        How derivatives are computed, and what an ill-posed one returns.
    key : optional
        A JAX PRNG key for the random start and the probe. Default: a fixed one.

    Returns
    -------
    PartialEigh
        ``eigenvalues`` (k,), real, ascending for "smallest" and descending for "largest";
        ``eigenvectors`` (n, k); ``info``, see `Info`. Eigenvalues and vectors are NaN where the
        problem is not one of a Hermitian A and a positive definite M, or a product gave NaN; where
        some pairs did not converge they are returned as they are. ``info.status`` tells, and
        ``info.raise_if_failed()`` raises.

    Raises
    ------
    TypeError, ValueError
        For bad arguments, before anything is computed.

    Notes
    -----
    *Derivatives* follow M. F. Kasim, arXiv:2011.04366, eqs 2.3-2.12, corrected. A gradient costs
    one solve of k linear systems with A - lam_j M on the complement of the eigenvectors, by
    products alone, and one reverse pass through the products; a loss of eigenvalues alone solves
    no system. The eigensolver runs once.

    *Clusters.* Eigenvalues that cannot be told apart (``info.clusters``) have eigenvectors that are
    an arbitrary basis of their space. The gradient of a loss that does not depend on the basis is
    right; one that does is ill-posed and gives NaN (``Derivative.on_gauge``). So are losses that
    weigh the eigenvalues of a cluster differently and use its vectors, the vectors of a cluster
    that k cuts (``info.cut``), and the phase of a complex vector. A loss of eigenvalues alone gets
    a generalised gradient at a tie, as ``max`` and ``sort`` do in JAX; its second derivative is NaN
    where it would need the vectors.

    *Forward mode* cannot know what its tangents are used for, and returns those of one gauge:
    inside a cluster the vectors' tangents have no component along its other vectors, and the
    eigenvalues' tangents are the diagonal of the cluster's block: where a perturbation splits the
    cluster, their sum is right and each alone is not.

    Examples
    --------
    The two softest modes of a chain, and how the second reacts to the springs:

    >>> import jax, jax.numpy as jnp
    >>> from jax_peig import partial_eigh
    >>> def frequencies(springs):
    ...     def stiffness(u):
    ...         stretch = springs * jnp.diff(u, prepend=0.0, append=0.0)
    ...         return -jnp.diff(stretch)
    ...     return partial_eigh(stiffness, k=2, n=8).eigenvalues
    >>> w = frequencies(jnp.ones(9))
    >>> [round(float(x), 4) for x in w]
    [0.1206, 0.4679]
    >>> g = jax.grad(lambda s: frequencies(s)[1])(jnp.ones(9))
    >>> round(float(g.sum()), 4)  # w is linear in the springs' common factor
    0.4679
    """
    derivative = Derivative() if derivative is None else derivative
    k, n, dtype, method = _arguments.check(
        A, M, k, which=which, n=n, dtype=dtype, v0=v0, method=method, tol=tol,
        max_steps=max_steps, degeneracy_tol=degeneracy_tol, derivative=derivative,
        key=key,
    )  # fmt: skip
    width = n if method == "dense" else lobpcg.block_width(n, k)

    def operator(x: OperatorLike, name: str) -> Operator | None:
        return None if x is None else as_operator(x, n, dtype, name, widths=(1, k, width))

    a, m = operator(A, "A"), operator(M, "M")
    outer = operator(preconditioner, "preconditioner")
    inner = operator(derivative.preconditioner, "Derivative.preconditioner")
    static = _Static(
        k=k,
        largest=which == "largest",
        method=method,
        width=width,
        dtype=dtype.name,
        tol=float(_tolerances.residual(dtype) if tol is None else tol),
        max_steps=MAX_STEPS if max_steps is None else int(max_steps),
        degeneracy_tol=None if degeneracy_tol is None else float(degeneracy_tol),
        rules=_rules(derivative, method, which, dtype),
    )
    start = None if v0 is None else jnp.asarray(v0).astype(dtype).reshape(n, -1)
    key = jax.random.key(0) if key is None else key
    arguments = (a, m, outer, outer if inner is None else inner, start, key)
    return _over_devices(functools.partial(_partial_eigh, static), arguments, n)


def _over_devices(solve, arguments, n: int) -> PartialEigh:
    """``solve(*arguments)``, left to the compiler's partitioning on a mesh of Explicit axes.

    There every contraction over a sharded axis would have to say how its result is sharded. The
    eigenvectors come back sharded as the first argument that has n rows, all else replicated.
    """
    kinds = [jax.typeof(leaf) for leaf in jax.tree.leaves(arguments)]
    meshes = [k.sharding.mesh for k in kinds if AxisType.Explicit in k.sharding.mesh.axis_types]
    if not meshes:
        return solve(*arguments)
    rows = [k.sharding.spec[0] for k in kinds if k.shape[:1] == (n,)]
    by_rows = PartitionSpec(next((r for r in rows if r is not None), None), None)
    block, rest = (NamedSharding(meshes[0], spec) for spec in (by_rows, PartitionSpec()))
    fields: dict[str, Any] = {field.name: rest for field in dataclasses.fields(Info)}
    fields["MX"] = None if arguments[1] is None else block
    shardings: Any = (rest, block, Info(**fields))
    return auto_axes(solve, out_sharding=PartialEigh(*shardings))(*arguments)


def _rules(derivative: Derivative, method: str, which: str, dtype) -> _derivatives.Rules:
    solver = derivative.solver
    if solver == "auto":
        solver = "eigenbasis" if method == "dense" else "cg"
    settings = Settings(
        solver=solver,
        tol=float(_tolerances.derivative(dtype) if derivative.tol is None else derivative.tol),
        max_steps=DERIVATIVE_STEPS if derivative.max_steps is None else derivative.max_steps,
        sign=-1 if which == "largest" else 1,
        on_unconverged=derivative.on_unconverged,
    )
    return _derivatives.Rules(settings, derivative.on_gauge)


@functools.partial(jax.jit, static_argnums=0)
def _partial_eigh(
    static: _Static,
    a: Operator,
    m: Operator | None,
    outer: Operator | None,
    inner: Operator | None,
    start: Block | None,
    key: Array,
) -> PartialEigh:
    """The compiled part: solve without derivatives, judge, attach the derivatives."""
    k = static.k
    a, given_a = hermitian_part(a)
    m, given_m = (None, None) if m is None else hermitian_part(m)
    # The eigensolver sees parameters without tangents, and is never differentiated.
    frozen = jax.lax.stop_gradient((a, m, outer, inner, start))
    ritz, probe_a, probe_m = _solve(static, *frozen[:3], frozen[4], key)
    error_a = probe_a.hermiticity_error if given_a is None else given_a
    error_m = probe_m.hermiticity_error if given_m is None else given_m
    # An array's Hermitian part is a well-posed problem whatever the array; a product has no such.
    valid, status = _diagnose(
        ritz,
        error_a if given_a is None else jnp.zeros_like(error_a),
        error_m if given_m is None else jnp.zeros_like(error_m),
        probe_a.finite & probe_m.finite,
    )
    norms = (probe_a.norm, probe_m.norm)
    info = _account(static, ritz, frozen[1], norms, valid, status, error_a, error_m)
    valid = info.status <= Status.STAGNATED
    lam = jnp.where(valid, ritz.values[:k], jnp.nan)
    x = jnp.where(valid, ritz.vectors[:, :k], jnp.nan)
    fixed = Fixed(frozen[3], norms, ritz.complement)
    facts = _derivatives.Facts(fixed, info.clusters, info.cut, info.converged == k)
    lam, x = _derivatives.attach(static.rules, a, m, lam, x, facts)
    return PartialEigh(lam, x, info)


def _solve(
    static: _Static,
    a: Operator,
    m: Operator | None,
    preconditioner: Operator | None,
    start: Block | None,
    key: Array,
) -> tuple[Ritz, Probe, Probe]:
    if static.method == "dense":
        return dense.solve(a, m, static.k, static.dtype, static.largest)
    n = a.n
    keys = jax.random.split(key, 3)
    probe_a = probe(a, keys[0], n, static.dtype)
    probe_m = probe(m, keys[1], n, static.dtype)
    block = _blocks.random_block(keys[2], n, static.width, static.dtype)
    if start is not None:
        # The guard vectors stay random, so that nothing is out of the iteration's sight.
        given = start[:, : static.k]
        block = jnp.concatenate([given, block[:, given.shape[1] :]], axis=1)
    goal = Goal(static.k, static.largest, static.tol, static.max_steps)
    norms = (probe_a.norm, probe_m.norm)
    ritz = lobpcg.solve(a, m, preconditioner, block, norms, goal, _healthy(probe_a, probe_m))
    spent = ritz._replace(
        products=ritz.products + PRODUCTS,
        products_M=ritz.products_M + (0 if m is None else PRODUCTS),
        definite=ritz.definite & (probe_m.lowest > 0),
    )
    return spent, probe_a, probe_m


def _healthy(probe_a: Probe, probe_m: Probe) -> Array:
    """Whether the probes found nothing that rules a Hermitian A and a positive M out."""
    limit = _tolerances.hermiticity(probe_a.norm.dtype)
    errors = jnp.maximum(probe_a.hermiticity_error, probe_m.hermiticity_error)
    return (errors <= limit) & (probe_m.lowest > 0) & probe_a.finite & probe_m.finite


def _diagnose(ritz: Ritz, error_a: Array, error_m: Array, finite: Array) -> tuple[Array, Array]:
    """Whether the problem was a Hermitian one with M > 0, and the status if it was not."""
    limit = _tolerances.hermiticity(error_a.dtype)
    found = [
        (~ritz.definite, Status.M_NOT_POSITIVE_DEFINITE),
        (error_m > limit, Status.M_NOT_HERMITIAN),
        (error_a > limit, Status.A_NOT_HERMITIAN),
        (~(finite & ritz.finite), Status.NOT_FINITE),
    ]
    status = jnp.array(int(Status.CONVERGED))
    for wrong, code in found:  # a later one explains an earlier one
        status = jnp.where(wrong, int(code), status)
    return status == Status.CONVERGED, status


def _account(
    static: _Static,
    ritz: Ritz,
    m: Operator | None,
    norms: tuple[Array, Array],
    valid: Array,
    status: Array,
    error_a: Array,
    error_m: Array,
) -> Info:
    """Residuals, bounds, clusters and gap from the returned pairs themselves."""
    k, n = static.k, ritz.vectors.shape[0]
    seen = min(k + 1, n)  # the wanted pairs and the next one
    values, vectors = ritz.values[:seen], ritz.vectors[:, :seen]
    r = residuals(ritz)[:, :seen]
    norm = _blocks.column_norms(r)
    bounds, mass_products, definite = _clusters.error_bounds(values, r, vectors, m, norms)
    unseen = valid & ~definite
    valid = valid & definite
    status = jnp.where(unseen, int(Status.M_NOT_POSITIVE_DEFINITE), status)
    reached = relative_residuals(r, values, vectors, norms)[:k] <= static.tol
    converged = jnp.where(valid, jnp.sum(reached), 0)
    tolerance = _clusters.degeneracy_tolerance(values[:k], static.degeneracy_tol)
    boundaries = _clusters.cluster_boundaries(values, jnp.maximum(bounds, tolerance / 2))
    labels = jnp.concatenate([jnp.zeros(1, int), jnp.cumsum(boundaries[: k - 1])])
    stopped = jnp.where(ritz.stagnated, int(Status.STAGNATED), int(Status.MAX_STEPS))
    status = jnp.where(valid & (converged < k), stopped, status)
    return Info(
        converged=converged,
        residual_norms=norm[:k],
        error_bounds=bounds[:k],
        steps=ritz.steps,
        products=ritz.products,
        products_M=ritz.products_M + mass_products,
        status=status,
        clusters=labels,
        gap=jnp.abs(values[k] - values[k - 1]) if k < n else jnp.full_like(norm[0], jnp.inf),
        cut=~boundaries[k - 1] if k < n else jnp.array(False),
        hermiticity_error=error_a,
        hermiticity_error_M=error_m,
        MX=None if m is None else ritz.MX[:, :k],
    )
