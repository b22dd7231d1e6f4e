"""What `method="auto"` chooses, and the reason that it gives."""

import numpy as np
import pytest

from jax_peig import partial_eigh

AUTO = {
    "n small": (500, 3, {}, "dense", "at most 500"),
    "k large": (501, 101, {}, "dense", "more than a fifth"),
    "n large": (501, 3, {}, "chebyshev", "M is the identity"),
    "M diagonal": (501, 3, {"M": np.ones(501)}, "chebyshev", "M is diagonal"),
    "M_solve": (
        501,
        3,
        {"M": lambda u: 2 * u, "M_solve": lambda u: u / 2},
        "chebyshev",
        "M_solve is given",
    ),
    "with M": (501, 3, {"M": lambda u: 2 * u}, "lobpcg", "M is not diagonal"),
    "preconditioner": (501, 3, {"preconditioner": np.ones(501)}, "lobpcg", "a preconditioner"),
    "interior": (501, 3, {"which": "nearest", "sigma": 1.0}, "shift_invert", "factorised"),
    "products": (501, 3, {"M": lambda u: 2 * u, "sigma": 1.0}, "chebyshev", "no OPinv"),
    "OPinv": (
        501,
        3,
        {"which": "nearest", "sigma": 0.5, "OPinv": 1 / (np.arange(1.0, 502) - 0.5)},
        "shift_invert",
        "interior eigenvalues, OPinv",
    ),
    "asked for": (12, 3, {"method": "lobpcg"}, "lobpcg", "asked for"),
}


@pytest.mark.parametrize("case", AUTO)
def test_the_method_is_chosen_and_said_why(case):
    n, k, options, method, reason = AUTO[case]
    result = partial_eigh(np.arange(1.0, n + 1), k=k, **options)
    assert result.info.method == method
    assert reason in result.info.reason
    assert np.all(np.isfinite(result.eigenvalues))
