"""partial_eigh's arguments as one frozen value, checked before anything is traced.

Every error says what was given, what is expected and what to do, and begins with the name of the
public function that was called.
"""

import dataclasses
import difflib
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jax_peig._core import tolerances
from jax_peig._core.checks import check_positive, floating_dtype, integer, is_array
from jax_peig._core.options import Derivative
from jax_peig._eigensolvers.choose import DENSE_ORDER, method_of
from jax_peig._factorizations.shift_inverse import can_factorize
from jax_peig._factorizations.stiffness import Stiffness, is_on_host, stiffness_of
from jax_peig._operators.given import kind_of_operator, order_and_dtype
from jax_peig._operators.hermitian import imaginary_beyond_rounding
from jax_peig._problem.problem import Structure

WHICH = ("smallest", "largest", "nearest")
# What a tolerance may be relative to.
RELATIVE_TO = ("norm", "eigenvalue")
# The words of SciPy's eigsh and eigs, and what to write in their place.
SCIPY_WHICH = {
    "SA": "which='smallest'",
    "SR": "which='smallest'",
    "LA": "which='largest'",
    "LR": "which='largest'",
    "SM": "sigma=0.0, for the eigenvalues nearest to zero",
    "LM": "which='largest' or which='smallest' (the largest in modulus stand at an end)",
    "BE": "two calls, one with which='smallest' and one with which='largest'",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Arguments:
    """What a caller gave, with `partial_eigh`'s defaults, checked when it is made.

    Raises
    ------
    TypeError, ValueError
        For bad arguments; nothing is computed.
    """

    caller: str
    A: Any
    M: Any
    k: Any
    which: str | None = None
    sigma: Any = None
    n: Any = None
    dtype: Any = None
    v0: Any = None
    like: Any = None  # (n,), an example of a flat vector: see `shaped`
    preconditioner: Any = None
    M_solve: Any = None
    OPinv: Any = None
    method: Any = "auto"
    tol: float | None = None
    tol_relative_to: str = "norm"
    max_steps: int | None = None
    degeneracy_tol: float | None = None
    derivative: Derivative | None = None
    key: Any = None
    history: bool = False
    progress: bool = False

    def __post_init__(self) -> None:
        if self.A is None:
            raise TypeError(f"{self.caller}: A is None; expected an operator, see partial_eigh.")
        if isinstance(self.M, (int, np.integer)) and not isinstance(self.M, bool):
            raise TypeError(f"{self.caller}: M is the integer {self.M}; did you mean k={self.M}?")
        self._check_operators()
        if self.k is None:
            raise TypeError(f"{self.caller}: k is missing; give the number of eigenpairs, k=...")
        self._check_numbers()
        _check_which(self.caller, self.which)
        self._check_interior()
        self._check_objects()

    def _check_operators(self) -> None:
        for name in ("A", "M", "preconditioner", "M_solve", "OPinv"):
            if getattr(self, name) is not None:
                kind_of_operator(getattr(self, name), f"{self.caller}: {name}")

    def _check_numbers(self) -> None:
        check_positive(f"{self.caller}: tol", self.tol, float)
        _check_relative_to(self.caller, self.tol_relative_to)
        check_positive(f"{self.caller}: max_steps", self.max_steps, int)
        check_positive(f"{self.caller}: degeneracy_tol", self.degeneracy_tol, float, zero=True)
        for name in ("history", "progress"):
            flag = getattr(self, name)
            if not isinstance(flag, bool):
                raise TypeError(f"{self.caller}: {name} is {flag!r}; expected True or False.")

    def _check_interior(self) -> None:
        """A sigma belongs to which='nearest', and so does OPinv."""
        if self.end != "nearest":
            for name in ("sigma", "OPinv"):
                if getattr(self, name) is not None and not (name == "OPinv" and self.inverts):
                    raise ValueError(
                        f"{self.caller}: {name} is given with which={self.end!r}; expected "
                        "which='nearest', or sigma alone."
                    )
            return
        if self.sigma is None:
            raise ValueError(f"{self.caller}: which='nearest' needs sigma=..., a real number.")
        real = isinstance(self.sigma, (int, float, np.generic)) or is_array(self.sigma)
        scalar = getattr(self.sigma, "shape", ()) == () and not isinstance(self.sigma, bool)
        if not (real and scalar) or jnp.iscomplexobj(self.sigma):
            raise TypeError(f"{self.caller}: sigma is {self.sigma!r}; expected a real number.")

    def _check_objects(self) -> None:
        if self.M_solve is not None and self.M is None:
            raise ValueError(f"{self.caller}: M_solve is given without M; expected a solve with M.")
        if self.derivative is not None and not isinstance(self.derivative, Derivative):
            raise TypeError(
                f"{self.caller}: derivative is {self.derivative!r}; expected a "
                "jax_peig.Derivative(...)."
            )
        if self.key is not None and not _is_key(self.key):
            raise TypeError(
                f"{self.caller}: key is {self.key!r}; expected a JAX PRNG key. Make one by "
                "jax.random.key(0)."
            )
        if self.v0 is not None:
            _check_vectors(self.caller, self.v0)

    @property
    def end(self) -> str:
        """Which eigenvalues: "nearest" by default where there is a sigma, else "smallest"."""
        if self.which is not None:
            return self.which
        return "smallest" if self.sigma is None else "nearest"

    @property
    def inverts(self) -> bool:
        """Whether a method was asked for that solves with A - pole M."""
        method = method_of(self.method, self.caller)
        return method is not None and method.inverts

    @property
    def derivative_options(self) -> Derivative:
        """How derivatives are computed."""
        return Derivative() if self.derivative is None else self.derivative

    def structure(self) -> Structure:
        """What does not depend on values; the shapes and orders are checked on the way."""
        n = self._order()
        if is_array(self.M) and not isinstance(self.M, jax.core.Tracer):
            _check_mass(self.caller, np.asarray(self.M), self.inverts)
        mass = "identity" if self.M is None else "general"
        if is_array(self.M) and self.M.ndim == 1:
            mass = "diagonal"
        return Structure(
            n=n,
            k=self._count(n),
            which=self.end,
            mass=mass,
            preconditioner=self.preconditioner is not None,
            m_solve=self.M_solve is not None,
            op_inv=self.OPinv is not None,
            entries=can_factorize(self.A, self.M),
            guess=self.v0 is not None,
            derivative_preconditioner=self.derivative_options.preconditioner is not None,
            stiff=self.stiffness is not None and self.stiffness.factorable,
        )

    @functools.cached_property
    def stiffness(self) -> Stiffness | None:
        """What the entries of A and M show, where "auto" may go by it and they are stiff."""
        helped = self.preconditioner is not None or self.M_solve is not None
        fixed = self.derivative_options.solver == "semi_iteration"  # suits no factorisation
        by_values = self.end == "smallest" and not (helped or fixed or self.method != "auto")
        matrices = getattr(self.A, "ndim", None) == 2 and can_factorize(self.A, self.M)
        if not (by_values and matrices and is_on_host((self.A, self.M, self.v0, self.key))):
            return None
        n = self._order()
        if n <= DENSE_ORDER or 5 * self._count(n) > n:
            return None
        found = stiffness_of(self.A, self.M, n, self.residual_tol)
        return found if found is not None and found.stiff else None

    @property
    def remark(self) -> str:
        """The numbers behind the reason for the method; "" where it does not go by values."""
        if self.stiffness is None:
            return ""
        if self.stiffness.factorable:
            return f": {self.stiffness}"
        return (
            f"; but the entries are stiff and their factors large: {self.stiffness}. Give a "
            "preconditioner, such as preconditioners.multigrid, or try method='shift_invert'"
        )

    @property
    def residual_tol(self) -> float:
        """The tolerance: the caller's, or that of the dtype."""
        return float(tolerances.residual(self.vector_dtype()) if self.tol is None else self.tol)

    def _order(self) -> int:
        """n, from all who know it; they have to agree."""
        known: dict[str, int] = {}
        if self.n is not None:
            known["n"] = integer(self.n, f"{self.caller}: n")
            if known["n"] < 1:
                raise ValueError(f"{self.caller}: n is {self.n}; expected at least 1.")
        for name, x in (("A", self.A), ("M", self.M)):
            order, _ = order_and_dtype(x, f"{self.caller}: {name}")
            if order is not None:
                known[name] = order
        for name, vector in (("like", self.like), ("v0", self.v0)):
            if vector is not None:
                known[name] = vector.shape[0]
        if not known:
            given = f"A is a {type(self.A).__name__}, which does not tell its order"
            if self.M is not None:
                kinds = f"A is a {type(self.A).__name__} and M a {type(self.M).__name__}"
                given = f"{kinds}, and neither tells its order"
            raise ValueError(
                f"{self.caller}: n is missing; {given}: give n=..., or a starting guess v0, or "
                "A as an array."
            )
        if len(set(known.values())) > 1:
            listed = ", ".join(f"{name}: {order}" for name, order in known.items())
            raise ValueError(f"{self.caller}: the orders do not agree ({listed}); expected one n.")
        return next(iter(known.values()))

    def _count(self, n: int) -> int:
        count = integer(self.k, f"{self.caller}: k")
        if not 1 <= count <= n:
            raise ValueError(f"{self.caller}: k = {count}, n = {n}; expected 1 <= k <= n.")
        return count

    def vector_dtype(self) -> np.dtype:
        """The caller's, else what the arrays promote to, else JAX's default float."""
        arrays = ((self.A, "A"), (self.M, "M"))
        own = [order_and_dtype(x, f"{self.caller}: {name}")[1] for x, name in arrays]
        known = [d for d in own if d]
        known += [vector.dtype for vector in (self.like, self.v0) if vector is not None]
        dtype = _promoted(known) if self.dtype is None else self.dtype
        found = floating_dtype(dtype, self.caller)
        complex_guess = self.v0 is not None and jnp.iscomplexobj(self.v0)
        if complex_guess and not jnp.issubdtype(found, jnp.complexfloating):
            raise TypeError(
                f"{self.caller}: v0 is complex and dtype {found}; give a complex dtype."
            )
        return found


def _check_relative_to(caller: str, given: Any) -> None:
    if not isinstance(given, str) or given not in RELATIVE_TO:
        kind = ValueError if isinstance(given, str) else TypeError
        raise kind(f"{caller}: tol_relative_to={given!r}; expected one of {RELATIVE_TO}.")


def _check_which(caller: str, which: Any) -> None:
    if which is None or (isinstance(which, str) and which in WHICH):
        return
    text = f"{caller}: which={which!r}; expected one of {WHICH}."
    if not isinstance(which, str):
        raise TypeError(f"{text} It is compiled into the program.")
    near = difflib.get_close_matches(which.lower(), WHICH, 1, cutoff=0.8)
    meant = SCIPY_WHICH.get(which.upper()) or (near and f"which={near[0]!r}")
    raise ValueError(f"{text} Write {meant}." if meant else text)


def _promoted(known: list[Any]) -> np.dtype:
    found = np.dtype(jnp.result_type(float)) if not known else known[0]
    for dtype in known[1:]:
        found = np.promote_types(found, dtype)
    return found


def _is_key(key: Any) -> bool:
    """A typed key, or the pair of uint32 of ``jax.random.PRNGKey``."""
    if not is_array(key):
        return False
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0
    return typed or (key.dtype == np.uint32 and key.shape == (2,))


def _check_vectors(caller: str, v0: Any) -> None:
    if not is_array(v0) or v0.ndim not in (1, 2):
        shape = f" of shape {tuple(v0.shape)}" if is_array(v0) else ""
        raise TypeError(
            f"{caller}: v0 is a {type(v0).__name__}{shape}; expected an array (n,) or (n, b). "
            "Give an example of a vector of another shape by like=..."
        )
    if not jnp.issubdtype(v0.dtype, jnp.inexact):
        raise TypeError(f"{caller}: v0 has dtype {v0.dtype}; expected a floating one.")


def _check_mass(caller: str, m: np.ndarray, semidefinite: bool) -> None:
    """The diagonal of a positive definite matrix is positive, and real but for rounding.

    Zeros pass where M may be ``semidefinite``.
    """
    diagonal = m if m.ndim == 1 else np.diagonal(m)
    if np.any(np.isnan(diagonal)):
        return  # reported in info, as any NaN is
    if np.any(imaginary_beyond_rounding(diagonal, m.dtype)):
        worst = int(np.argmax(np.abs(diagonal.imag)))
        raise ValueError(
            f"{caller}: M is not Hermitian: its diagonal holds {diagonal[worst]} at {worst}; "
            "expected a real diagonal, but for rounding. Check conjugation where M is computed."
        )
    if np.any(diagonal.real < 0 if semidefinite else diagonal.real <= 0):
        worst = int(np.argmin(diagonal.real))
        raise ValueError(
            f"{caller}: M is not positive definite: its diagonal holds {diagonal.real[worst]} "
            f"at {worst}; expected positive entries. Remove degrees of freedom without mass, or "
            "take method=ShiftInvert()."
        )
