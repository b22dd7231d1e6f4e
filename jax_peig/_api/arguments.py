"""Validation of partial_eigh's arguments, before anything is traced.

Every error says what was given, what is expected and what to do, and begins with the name of the
public function that was called, ``caller``.
"""

import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jax_peig._core.checks import check_positive, is_array
from jax_peig._core.options import Derivative
from jax_peig._core.types import FLOATING
from jax_peig._operators.given import order_and_dtype
from jax_peig._operators.hermitian import imaginary_beyond_rounding

WHICH = ("smallest", "largest", "nearest")
METHODS = ("auto", "dense", "chebyshev", "lobpcg", "davidson")
# "auto": a dense eigh is ahead of an iteration up to here, and leaves nothing to converge.
DENSE_ORDER = 500


class Arguments(NamedTuple):
    """What the checked arguments come to."""

    k: int
    n: int
    dtype: np.dtype
    method: str
    reason: str


def check(
    caller: str,
    a: Any,
    m: Any,
    k: Any,
    *,
    which: str,
    sigma: Any,
    n: int | None,
    dtype: Any,
    v0: Any,
    preconditioner: Any,
    M_solve: Any,
    OPinv: Any,
    method: str,
    basis: int | None,
    tol: float | None,
    max_steps: int | None,
    degeneracy_tol: float | None,
    derivative: Derivative,
    key: Any,
    history: bool,
    progress: bool,
) -> Arguments:
    """Check everything that can be checked without computing; see `partial_eigh`."""
    if a is None:
        raise TypeError(f"{caller}: A is None; expected an operator, see partial_eigh.")
    if isinstance(m, (int, np.integer)) and not isinstance(m, bool):
        raise TypeError(f"{caller}: M is the integer {m}; did you mean k={m}?")
    if k is None:
        raise TypeError(f"{caller}: k is missing; give the number of eigenpairs, k=...")
    _choice(caller, "which", which, WHICH)
    _choice(caller, "method", method, METHODS)
    check_positive(f"{caller}: tol", tol, float)
    check_positive(f"{caller}: max_steps", max_steps, int)
    check_positive(f"{caller}: degeneracy_tol", degeneracy_tol, float, zero=True)
    check_positive(f"{caller}: basis", basis, int)
    for name, flag in (("history", history), ("progress", progress)):
        if not isinstance(flag, bool):
            raise TypeError(f"{caller}: {name} is {flag!r}; expected True or False.")
    _interior(caller, which, sigma, OPinv)
    if M_solve is not None and m is None:
        raise ValueError(f"{caller}: M_solve is given without M; expected a solve with M.")
    if not isinstance(derivative, Derivative):
        raise TypeError(
            f"{caller}: derivative is {derivative!r}; expected a jax_peig.Derivative(...)."
        )
    if key is not None and not _is_key(key):
        raise TypeError(
            f"{caller}: key is {key!r}; expected a JAX PRNG key. Make one by jax.random.key(0)."
        )
    v0 = None if v0 is None else _vectors(caller, v0)
    n = _order(caller, a, m, n, v0)
    k = _count(caller, k, n)
    method, reason = _choose(method, n, k, which, m, M_solve, preconditioner, OPinv)
    _suited(caller, method, n, k, which)
    if basis is not None and method != "davidson":
        raise ValueError(
            f"{caller}: basis = {basis} with method {method!r}; expected method='davidson', "
            "which alone keeps a basis."
        )
    found = _dtype(caller, a, m, dtype, v0)
    if m is not None and is_array(m) and not isinstance(m, jax.core.Tracer):
        _check_mass(caller, np.asarray(m))
    return Arguments(k, n, found, method, reason)


def _choose(
    method: str,
    n: int,
    k: int,
    which: str,
    m: Any,
    m_solve: Any,
    preconditioner: Any,
    op_inv: Any,
) -> tuple[str, str]:
    """The method, and why, from what does not depend on values: ``jit`` changes nothing."""
    if method != "auto":
        return method, "asked for"
    if n <= DENSE_ORDER:
        return "dense", f"n = {n} is at most {DENSE_ORDER}"
    if 5 * k > n:
        return "dense", f"k = {k} is more than a fifth of n = {n}"
    if which == "nearest":
        return "chebyshev", f"interior eigenvalues, {'no OPinv' if op_inv is None else 'OPinv'}"
    if preconditioner is not None:
        return "lobpcg", "a preconditioner is given"
    if m is None:
        return "chebyshev", "M is the identity, no preconditioner"
    if m_solve is not None:
        return "chebyshev", "M_solve is given, no preconditioner"
    if is_array(m) and m.ndim == 1:
        return "chebyshev", "M is diagonal, no preconditioner"
    return "lobpcg", "M is not diagonal, and there is no M_solve"


def _suited(caller: str, method: str, n: int, k: int, which: str) -> None:
    """Raise where a method cannot do what is asked."""
    if method == "lobpcg" and 3 * k > n:
        raise ValueError(
            f"{caller}: method 'lobpcg' with k = {k}, n = {n}; expected 3 k <= n. "
            "Use method='dense'."
        )
    if which != "nearest":
        return
    if method in ("lobpcg", "davidson"):
        raise ValueError(
            f"{caller}: method {method!r} with which='nearest'; expected 'dense' or 'chebyshev'."
        )


def _interior(caller: str, which: str, sigma: Any, op_inv: Any) -> None:
    """A sigma belongs to which='nearest', and so does OPinv."""
    if which != "nearest":
        for name, value in (("sigma", sigma), ("OPinv", op_inv)):
            if value is not None:
                raise ValueError(
                    f"{caller}: {name} is given with which={which!r}; expected which='nearest'."
                )
        return
    if sigma is None:
        raise ValueError(f"{caller}: which='nearest' needs sigma=..., a real number.")
    shape = getattr(sigma, "shape", ())
    real = isinstance(sigma, (int, float)) or is_array(sigma) or isinstance(sigma, np.generic)
    if isinstance(sigma, bool) or not real or shape != () or jnp.iscomplexobj(sigma):
        raise TypeError(f"{caller}: sigma is {sigma!r}; expected a real number.")


def _choice(caller: str, name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{caller}: {name}={value!r}; expected one of {allowed}.")


def _is_key(key: Any) -> bool:
    """A typed key, or the pair of uint32 of ``jax.random.PRNGKey``."""
    if not is_array(key):
        return False
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0
    return typed or (key.dtype == np.uint32 and key.shape == (2,))


def _vectors(caller: str, v0: Any) -> Any:
    if not is_array(v0) or v0.ndim not in (1, 2):
        shape = f" of shape {tuple(v0.shape)}" if is_array(v0) else ""
        raise TypeError(
            f"{caller}: v0 is a {type(v0).__name__}{shape}; expected an array (n,) or (n, b)."
        )
    if not jnp.issubdtype(v0.dtype, jnp.inexact):
        raise TypeError(f"{caller}: v0 has dtype {v0.dtype}; expected a floating one.")
    return v0


def _order(caller: str, a: Any, m: Any, n: Any, v0: Any) -> int:
    """n, from all who know it; they have to agree."""
    known: dict[str, int] = {}
    if n is not None:
        try:
            known["n"] = operator.index(n)
        except TypeError:
            raise TypeError(f"{caller}: n is {n!r}; expected an integer.") from None
        if known["n"] < 1:
            raise ValueError(f"{caller}: n is {n}; expected at least 1.")
    for name, x in (("A", a), ("M", m)):
        order, _ = order_and_dtype(x, f"{caller}: {name}")
        if order is not None:
            known[name] = order
    if v0 is not None:
        known["v0"] = v0.shape[0]
    if not known:
        raise ValueError(
            f"{caller}: n is missing; A is a {type(a).__name__}, which does not tell its "
            "order: give n=..., or a starting guess v0, or A as an array."
        )
    if len(set(known.values())) > 1:
        listed = ", ".join(f"{name}: {order}" for name, order in known.items())
        raise ValueError(f"{caller}: the orders do not agree ({listed}); expected one n.")
    return next(iter(known.values()))


def _count(caller: str, k: Any, n: int) -> int:
    try:
        count = operator.index(k)
    except TypeError:
        raise TypeError(f"{caller}: k is {k!r}; expected a Python integer.") from None
    if isinstance(k, (bool, np.bool_)):
        raise TypeError(f"{caller}: k is {k!r}; expected a Python integer.")
    if not 1 <= count <= n:
        raise ValueError(f"{caller}: k = {count}, n = {n}; expected 1 <= k <= n.")
    return count


def _dtype(caller: str, a: Any, m: Any, dtype: Any, v0: Any) -> np.dtype:
    """The vectors' dtype: the caller's, else what the arrays promote to, else the default float."""
    own = [order_and_dtype(x, f"{caller}: {name}")[1] for x, name in ((a, "A"), (m, "M"))]
    known = [d for d in own if d]
    known += [v0.dtype] if v0 is not None else []
    if dtype is None:
        found = jnp.result_type(float)
        for i, d in enumerate(known):
            found = np.promote_types(found, d) if i else d
    else:
        try:
            found = np.dtype(dtype)
        except TypeError:
            raise TypeError(
                f"{caller}: dtype is {dtype!r}; expected one of {', '.join(FLOATING)}."
            ) from None
    found = np.dtype(jax.dtypes.canonicalize_dtype(found))
    if found.name not in FLOATING:
        raise TypeError(f"{caller}: dtype is {found}; expected one of {', '.join(FLOATING)}.")
    if v0 is not None and jnp.iscomplexobj(v0) and not jnp.issubdtype(found, jnp.complexfloating):
        raise TypeError(f"{caller}: v0 is complex and dtype {found}; give a complex dtype.")
    return found


def _check_mass(caller: str, m: np.ndarray) -> None:
    """The diagonal of a positive definite matrix is positive, and real but for rounding."""
    diagonal = m if m.ndim == 1 else np.diagonal(m)
    if np.any(np.isnan(diagonal)):
        return  # reported in info, as any NaN is
    if np.any(imaginary_beyond_rounding(diagonal, m.dtype)):
        worst = int(np.argmax(np.abs(diagonal.imag)))
        raise ValueError(
            f"{caller}: M is not Hermitian: its diagonal holds {diagonal[worst]} at {worst}; "
            "expected a real diagonal, but for rounding. Check conjugation where M is computed."
        )
    if np.any(diagonal.real <= 0):
        worst = int(np.argmin(diagonal.real))
        raise ValueError(
            f"{caller}: M is not positive definite: its diagonal holds {diagonal.real[worst]} "
            f"at {worst}; expected positive entries. Remove degrees of freedom without mass."
        )
