"""An error names the public function that was called, and no other."""

import jax.numpy as jnp
import numpy as np
import pytest

import jax_peig
from jax_peig import LOBPCG, Derivative, PartialEighError, partial_eigh

N = 12
DIAGONAL = np.arange(1.0, N + 1)
DENSE = np.diag(DIAGONAL)


# Public functions that solve a problem of A (and k), as functions of (A, keywords).
CALLS = {
    "partial_eigh": lambda a, **options: partial_eigh(a, k=2, **options),
    "eigenspace": lambda a, **options: jax_peig.eigenspace(a, k=2, **options),
    "spectral_sum": lambda a, **options: jax_peig.spectral_sum(jnp.exp, a, k=2, **options),
    "crossing": lambda a, **options: jax_peig.crossing(a, k=2, **options),
    "singular_space": lambda a, **options: jax_peig.singular_space(a, 2, **options),
    "low_rank": lambda a, **options: jax_peig.low_rank(a, 2, **options),
    "singular_sum": lambda a, **options: jax_peig.singular_sum(jnp.exp, a, 2, **options),
    "partial_svd": lambda a, **options: jax_peig.partial_svd(a, 2, **options),
    "ky_fan_norm": lambda a, **options: jax_peig.ky_fan_norm(a, 2, **options),
    "nuclear_norm": lambda a, **options: jax_peig.nuclear_norm(a, 2, **options),
    "singular_value_threshold": lambda a, **options: jax_peig.singular_value_threshold(
        a, 1.0, 2, **options
    ),
}
WRONG = {
    "A of nothing": (None, {}),
    "product": (lambda v: v[:3], {"shape": (N, N)}),
    "lobpcg, large k": (np.eye(5), {"method": "lobpcg"}),
    "max_steps twice": (DENSE, {"method": LOBPCG(max_steps=3), "max_steps": 3}),
    "tol": (DENSE, {"tol": -1.0}),
    "tol_relative_to": (DENSE, {"tol_relative_to": "A"}),
    "degeneracy_tol": (DENSE, {"degeneracy_tol": "x"}),
    "key": (DENSE, {"key": 3}),
    "history": (DENSE, {"history": 1}),
    "derivative": (DENSE, {"derivative": "cg"}),
    "solver": (
        DENSE,
        {"derivative": Derivative(preconditioner=lambda v: v[:3])},
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_errors_name_the_function_that_was_called(name):
    singular = name in SINGULAR
    for what, (a, options) in WRONG.items():
        options = dict(options)
        if "shape" in options and not singular:
            options["n"] = options.pop("shape")[0]
        if what == "lobpcg, large k" and singular:
            a = np.eye(2)  # the dilation is of order 4
        with pytest.raises((TypeError, ValueError), match=rf"^{name}: ") as raised:
            CALLS[name](a, **options)
        others = [other for other in CALLS if f"{other}: " in str(raised.value)]
        assert others == [name], what


SINGULAR = (
    "partial_svd",
    "singular_space",
    "low_rank",
    "singular_sum",
    "ky_fan_norm",
    "nuclear_norm",
    "singular_value_threshold",
)


def test_a_failure_names_no_function():
    """An Info does not know which function made it."""
    with pytest.raises(PartialEighError, match=r"^A_NOT_HERMITIAN: "):
        jax_peig.eigenspace(lambda v: v - jnp.roll(v, 1), k=2, n=N).info.raise_if_failed()
