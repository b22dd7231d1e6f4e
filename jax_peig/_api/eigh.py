"""partial_eigh: from operators to eigenpairs with derivatives."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_peig._api.arguments import Arguments
from jax_peig._api.keywords import EighOptions, check_known
from jax_peig._api.shaped import flattened, shaped
from jax_peig._api.solution import over_devices
from jax_peig._core.monitor import Monitor
from jax_peig._core.options import Derivative
from jax_peig._core.recording import visitor
from jax_peig._core.results import PartialEigh
from jax_peig._core.types import Array, ArrayLike, DTypeLike, OperatorLike, PyTree
from jax_peig._derivatives.rules import PairwiseRule, Rule
from jax_peig._derivatives.solve import PANEL
from jax_peig._derivatives.sylvester import Settings
from jax_peig._eigensolvers.choose import resolve
from jax_peig._factorizations.shift_inverse import Matrices
from jax_peig._operators.operator import Operator, as_operator
from jax_peig._problem.problem import Inputs, Method, Postprocess, Problem, Structure

DERIVATIVE_STEPS = 10_000


def partial_eigh(
    A: OperatorLike,
    M: OperatorLike = None,
    k: int | None = None,
    *,
    which: str | None = None,
    sigma: ArrayLike | float | None = None,
    n: int | None = None,
    dtype: DTypeLike = None,
    v0: ArrayLike | PyTree | None = None,
    like: PyTree | None = None,
    preconditioner: OperatorLike = None,
    M_solve: OperatorLike = None,
    OPinv: OperatorLike = None,
    method: str | Method = "auto",
    tol: float | None = None,
    tol_relative_to: str = "norm",
    max_steps: int | None = None,
    degeneracy_tol: float | None = None,
    derivative: Derivative | None = None,
    key: Array | None = None,
    history: bool = False,
    progress: bool = False,
) -> PartialEigh:
    """Compute k extreme or interior eigenpairs of ``A X = M X diag(w)``, differentiably.

    A is Hermitian, M Hermitian positive definite, X^H M X = I. Only products of A and M with
    vectors are needed. Eigenvalues and eigenvectors are differentiable to any order, forward and
    reverse, in every parameter that A and M hold or close over, also at repeated eigenvalues.

    Parameters
    ----------
    A : operator
        An array (n, n), of which the Hermitian part is taken as ``jnp.linalg.eigh`` does, or (n,)
        for a diagonal; a BCOO, a SciPy sparse matrix, or any object with ``@``; an object with
        ``.mv`` (lineax); a function of one vector (n,) -> (n,); a pytree callable such as
        ``jax.tree_util.Partial``; or either of the last two in `BlockProduct`, as a function of a
        block (n, b) -> (n, b). Functions may close over anything, traced values included. Every
        form compiles once for each shape, outside ``jit`` too: other arrays and other floating
        numbers, also those that a function closes over, compile nothing. Another number in the
        body of a loop or branch is another program, where another array is not. A function is
        compiled at every call where nobody can tell what it does: if it calls back to Python, or
        if a rule of ``jax.custom_jvp`` or ``custom_vjp`` in it reads an object of yours.
    M : operator, optional
        As A. Default: the identity. Of an array the Hermitian part is taken, too; one whose
        diagonal is not real but for rounding, or not positive, is refused; behind a trace
        ``info.status`` tells it. A full M is judged by "dense" from its Cholesky factor, and by the
        iterative methods from v^H M v for the vectors that they multiply anyway. A small negative
        eigenvalue whose eigenvector is nearly orthogonal to all of these is not noticed. For
        "shift_invert" M may be singular, if A is definite on its null space.
    k : int
        How many eigenpairs.
    which : {"smallest", "largest", "nearest"}, optional
        Which end of the spectrum, or the eigenvalues nearest to ``sigma``. Default: "nearest" where
        ``sigma`` is given, else "smallest".
    sigma : real, optional
        The number to which the wanted eigenvalues are nearest. Its derivative is zero.
    n : int, optional
        The order; needed where none of A, M and v0 has it.
    dtype : optional
        Of the vectors: float32, float64, complex64 or complex128. Default: that of the arrays
        given, else JAX's default float. float64 needs ``jax_enable_x64``.
    v0 : (n,) or (n, b), or one or several vectors of another shape, optional
        A starting guess, for example the eigenvectors of a nearby problem. Columns beyond the k-th
        are not used, and no column is used by "shift_invert", which needs few solves anyway. A
        guess may miss an eigenvector entirely, so a random search follows. Its derivative is zero.
    like : pytree or array, optional
        An example of a vector that is not flat: arrays, or ``jax.ShapeDtypeStruct``, of one dtype.
        Only its shape and dtype are used. See *Vectors of any shape*.
    preconditioner : operator, optional
        As A: an approximate inverse of A - sigma M, positive definite, for methods "lobpcg" and
        "davidson" and for the derivative's linear systems; see `jax_peig.preconditioners`. Its
        derivative is zero, and so are those of the next two.
    M_solve : operator, optional
        As A: M^{-1} or an approximate inverse of M, for method "chebyshev", and for "lobpcg"
        without a preconditioner. Default: the reciprocal row sums of M where they approximate it
        (finite elements), else a polynomial in M.
    OPinv : operator, optional
        As A: (A - sigma M)^{-1}, for "nearest". Where A and M are matrices, they are factorised
        without it, see `jax_peig.operators.shift_invert`. Where their products alone are known, the
        folded problem is iterated, with the square of the condition number.
    method : str or method value
        The eigensolver: "auto", or "dense", "chebyshev", "lobpcg", "davidson", "shift_invert", each
        short for `Dense`, `Chebyshev`, `LOBPCG`, `Davidson`, `ShiftInvert` with their default
        options, or such a value. "auto" takes "dense" up to n = 500 or where k > n/5, else, with a
        ``sigma``, "shift_invert" for matrices or with OPinv, else "lobpcg" with a preconditioner,
        else "shift_invert" for the smallest pairs of stiff matrices (n, n), else "lobpcg" with an M
        that is not diagonal and has no M_solve, else "chebyshev". Matrices are stiff by their
        values, where Lanczos steps show thousands of matvecs that a factorisation saves: on one
        CPU, and where no value is traced. ``jit``, ``grad`` and ``vmap`` may so choose otherwise
        than a call outside of them. ``info.reason`` says why.
    tol : float, optional
        A pair is converged when ||A x - lam M x|| <= tol (||A|| + |lam| ||M||) ||x||. Default:
        eps^(2/3), 3.7e-11 in float64 and 2.4e-5 in float32. A smaller one is reached down to some
        eps. "shift_invert" reaches it relative to the distance from the pole, too,
        ||(A - sigma M)^{-1} (A x - lam M x)||_M <= tol ||x||_M, down to the rounding of the solves.
    tol_relative_to : {"norm", "eigenvalue"}
        The scale of ``tol``. With "norm", as above, a lam that is much smaller than ||A||, as for
        stiff meshes, may be off by tol ||A||: with ||A|| = 5e9 and lam = 1 the default allows 0.2.
        ``info.error_bounds`` holds the bound of each pair. "eigenvalue" asks for ||A x - lam M x||
        <= tol |lam| ||M|| ||x||; "shift_invert" then takes tol relative to |lam| where that is less
        than the distance from the pole. No residual falls below about ten times ``info.rounding``.
        A pair that would need that, as any lam = 0, does not converge: the status says STAGNATED.
    max_steps : int, optional
        Bound on the iteration's steps. Default: that of the method, 2000 for "lobpcg", 200 for
        "chebyshev", 1000 for "shift_invert", 20,000 for "davidson", whose steps are single matvecs.
        A method value may carry the bound instead.
    degeneracy_tol : float, optional
        Eigenvalues that differ by less, in the unit of the eigenvalues, are one cluster. Default:
        sqrt(eps) max |w|. Pairs that their error bounds cannot tell apart always are.
    derivative : Derivative, optional
        How derivatives are computed, and what an ill-posed one returns.
    key : optional
        A JAX PRNG key for the random start and the probe. Default: a fixed one.
    history : bool
        Keep the residuals of every step in ``info.history``.
    progress : bool
        Show a line of progress on stderr, from compiled code too.

    Returns
    -------
    PartialEigh
        ``eigenvalues`` (k,), real, ascending for "smallest", descending for "largest", by distance
        for "nearest"; ``eigenvectors`` (n, k), or as ``like`` with a last axis k in each leaf;
        ``info``, see `Info`. Eigenvalues and vectors are
        NaN where A or M is not linear or not Hermitian, M is not positive definite, or a product
        gave NaN. Pairs that did not converge are returned as they are. ``info.status`` tells, and
        ``info.raise_if_failed()`` raises.

    Raises
    ------
    TypeError, ValueError
        For bad arguments, before anything is computed.

    Differentiability
    -----------------
    * In: all that A and M hold or close over. The derivatives in the other arguments are zero.
    * Modes: forward and reverse.
    * Orders: any. The third at a cluster is NaN by reverse mode three times over; it is right with
      forward mode for one of the three.
    * Refused: NaN for a loss that depends on the basis of a cluster or on a phase, that weighs the
      eigenvalues of a cluster differently and uses its vectors, or that uses vectors of a cluster
      that k cuts; for second derivatives of eigenvalues that a perturbation splits; and where the
      pairs or the linear systems did not converge. `Derivative` has the alternatives.

    Notes
    -----
    *Derivatives* follow M. F. Kasim, arXiv:2011.04366, eqs 2.3-2.12, corrected. The eigensolver
    runs once. A gradient costs one solve of k linear systems with A - lam_j M on the complement of
    the eigenvectors, by matvecs alone, and one reverse pass through the products. A loss of
    eigenvalues alone solves no system.

    *Clusters.* Eigenvalues that cannot be told apart (``info.clusters``) have eigenvectors that are
    an arbitrary basis of their space. The gradient of a loss that does not depend on the basis is
    right. A loss that depends on it is ill-posed and its gradient is NaN (``Derivative.on_gauge``).
    So are losses that weigh the eigenvalues of a cluster differently and use its vectors, losses of
    the vectors of a cluster that k cuts (``info.cut``), and those of the phase of a complex vector.
    A loss of eigenvalues alone gets a generalised gradient at a tie, as ``max`` and ``sort`` do in
    JAX; its second derivative is NaN where it would need the vectors.

    *Batches.* Under ``vmap`` "dense" solves all members at once. The iterative methods take one
    member after another on a machine that is one CPU, so that each does its own work, and all at
    once on accelerators and where there are several devices.

    *Vectors of any shape.* With ``like`` a vector is a pytree or an array of any rank: a grid, two
    fields, a network's parameters. Functions, `BlockProduct` and objects with ``.mv`` map it to the
    same structure. What multiplies by ``@``, and a diagonal (n,), acts on ravelled vectors. Several
    vectors have a last axis in each leaf, as blocks, v0, ``info.MX`` and the eigenvectors have:
    ``leaf[..., j]`` is of the j-th, as ``X[:, j]``, and a sharded leading axis stays in its place.
    Without ``like``, an array v0 is flat, and a pytree v0 is one vector. Several leaves are joined
    by a copy for each product. Those that are sharded are gathered for it on every device: there,
    stack fields of equal shape in one array.

    *Forward mode* cannot know what its tangents are used for, and returns those of one gauge.
    Inside a cluster the tangents of vectors have no component along its other vectors, and those of
    eigenvalues are the diagonal of the cluster's block. Where a perturbation splits the cluster,
    their sum is right and each alone is not.

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

    The vectors may be grids; ``like`` tells their shape:

    >>> well = jnp.arange(12.0).reshape(3, 4)
    >>> partial_eigh(lambda u: well * u, k=2, like=well).eigenvectors.shape
    (3, 4, 2)
    """
    options = EighOptions(
        which=which, sigma=sigma, n=n, dtype=dtype, v0=v0, like=like,
        preconditioner=preconditioner, M_solve=M_solve, OPinv=OPinv, method=method, tol=tol,
        tol_relative_to=tol_relative_to, max_steps=max_steps, degeneracy_tol=degeneracy_tol,
        derivative=derivative, key=key, history=history, progress=progress,
    )  # fmt: skip
    return pairs("partial_eigh", A, M, k, options)


class Call(NamedTuple):
    """A call as it travels: checked, and with the operators made; nothing is computed yet."""

    problem: Problem
    rule: Rule
    inputs: Inputs
    remark: str  # on the reason; it tells values, and is compiled into nothing


def pairs(
    caller: str,
    A: OperatorLike,
    M: OperatorLike,
    k: int | None,
    options: EighOptions,
    *,
    rule: type[Rule] = PairwiseRule,
    postprocess: Postprocess | None = None,
) -> PartialEigh:
    """`partial_eigh` with its keyword arguments in ``options``, all or some of them.

    ``caller`` is the public function that was called, for the texts of errors.
    With `SpaceRule` the k pairs are one cluster, and the eigenvalues (k,) are the matrix R (k, k).
    ``postprocess`` improves what the eigensolver found before it is judged.

    Raises
    ------
    TypeError
        For an unknown option; TypeError and ValueError as `partial_eigh`.
    """
    check_known(caller, options, EighOptions, "partial_eigh")
    flat = flattened(caller, A, M, options)
    call = prepare(Arguments(caller, flat.A, flat.M, k, **flat.options), rule, postprocess)

    def run(rule: Rule, inputs: Inputs) -> PartialEigh:
        found = over_devices((call.problem, rule), inputs, flat.grid)
        info = dataclasses.replace(found.info, reason=call.problem.reason + call.remark)
        return found._replace(info=info)

    visit = visitor()
    if visit is None:
        return shaped(run(call.rule, call.inputs), flat.shape)
    return shaped(visit(call.problem, call.rule, call.inputs, run), flat.shape)


def prepare(given: Arguments, rule: type[Rule], postprocess: Postprocess | None) -> Call:
    """Choose the method and make the operators."""
    structure, dtype = given.structure(), given.vector_dtype()
    method, reason = resolve(given.method, structure, given.caller)
    max_steps = _steps(given, method)
    problem = Problem(
        structure=structure,
        method=method,
        reason=reason,
        dtype=dtype.name,
        tol=given.residual_tol,
        tol_relative_to=given.tol_relative_to,
        max_steps=max_steps,
        degeneracy_tol=None if given.degeneracy_tol is None else float(given.degeneracy_tol),
        monitor=Monitor(max_steps + 1 if given.history else 0, given.progress),
        postprocess=postprocess,
    )
    derivative = given.derivative_options
    settings = Settings(
        solvers=_solvers(given, method, structure),
        max_steps=derivative.max_steps or DERIVATIVE_STEPS,
        sign=-1 if structure.which == "largest" else 1,
        on_unconverged=derivative.on_unconverged,
    )
    chosen = rule(settings, derivative.refine, derivative.on_gauge)
    return Call(problem, chosen, _inputs(given, problem), given.remark)


def _steps(given: Arguments, method: Method) -> int:
    """The bound on the steps: the call's, or the method value's, or the method's default."""
    if given.max_steps is not None and method.steps is not None:
        raise ValueError(
            f"{given.caller}: max_steps is given twice, {given.max_steps} in the call and "
            f"{method.steps} in {type(method).__name__}(...); expected one of them."
        )
    return next(
        steps
        for steps in (given.max_steps, method.steps, method.default_max_steps)
        if steps is not None
    )


def _inputs(given: Arguments, problem: Problem) -> Inputs:
    n, k, dtype = problem.structure.n, problem.k, jnp.dtype(problem.dtype)
    real = jnp.finfo(dtype).dtype
    widths = (1, 2, PANEL, k, problem.method.block_width(n, k))

    def operator(x: OperatorLike, name: str) -> Operator | None:
        if x is None:
            return None
        return as_operator(x, n, dtype, f"{given.caller}: {name}", widths=widths)

    tol = given.derivative_options.tol
    return Inputs(
        a=as_operator(given.A, n, dtype, f"{given.caller}: A", widths=widths),
        m=operator(given.M, "M"),
        preconditioner=operator(given.preconditioner, "preconditioner"),
        m_solve=operator(given.M_solve, "M_solve"),
        op_inv=operator(_inverse(given, problem), "OPinv"),
        derivative_preconditioner=operator(
            given.derivative_options.preconditioner, "Derivative.preconditioner"
        ),
        start=None if given.v0 is None else jnp.asarray(given.v0).astype(dtype).reshape(n, -1),
        sigma=None if given.sigma is None else jnp.asarray(given.sigma, real),
        derivative_tol=jnp.asarray(jnp.nan if tol is None else tol, real),
        key=jax.random.key(0) if given.key is None else given.key,
    )


def _inverse(given: Arguments, problem: Problem) -> OperatorLike:
    """The solver with A - pole M: the caller's, or a factorisation where the method needs one."""
    if given.OPinv is not None or not problem.method.inverts:
        return given.OPinv
    n, dtype = problem.structure.n, np.dtype(problem.dtype)
    matrices = Matrices(given.A, given.M, n, dtype, given.caller)
    return problem.method.factorized(matrices, given.sigma)


def _solvers(given: Arguments, method: Method, structure: Structure) -> tuple[Any, ...]:
    """The solvers of the derivative's systems, in the order in which they are tried."""
    asked = given.derivative_options.solver
    if asked == "semi_iteration" and not method.knows_spectrum(structure):
        raise ValueError(
            f"{given.caller}: Derivative(solver='semi_iteration') with which={structure.which!r}, "
            f"method={method.name!r} and {'no ' if structure.mass == 'identity' else ''}M; "
            "expected extreme pairs, and no M, method='chebyshev', or 'lobpcg' without "
            "preconditioner. Take solver='auto'."
        )
    return method.derivative_solvers(structure) if asked == "auto" else (asked,)
