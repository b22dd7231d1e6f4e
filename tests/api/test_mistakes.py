"""One table of mistakes: every public function says what was given, what is expected, what to do.

A row's name is "function, kind: mistake". The kinds are a wrong type, shape, dtype or name, and a
traced value where its value has to be known. Where what is expected says what to do, or Python
itself refuses, the row leaves words empty.
"""

import inspect
import re

import pytest

import jax_peig
from jax_peig import bounds, operators, preconditioners
from tests.api import mistakes_of_makers, mistakes_of_operators, mistakes_of_values

TABLES = (mistakes_of_operators, mistakes_of_values, mistakes_of_makers)
MISTAKES = {name: row for table in TABLES for name, row in table.MISTAKES.items()}
KINDS = ("type", "shape", "dtype", "name", "traced")
# Kinds of mistakes that cannot be made with a function, and why.
NONE_TO_MAKE = {
    "hermitian_function, traced": "R may be traced, and h is a function",
    "density, traced": "the space may be traced, and h is a function",
    "spectral_apply, traced": "space and b may be traced, and h is a function",
    "singular_apply, traced": "space and b may be traced, and h is a function",
    "projector_apply, traced": "space and b may be traced",
    "project_gauge, traced": "the result and the cotangent may be traced",
    "weyl_bounds, traced": "w and error may be traced",
    "kato_temple, traced": "w, residual and gap may be traced",
    "shift_invert, traced": "the matrices and sigma may be traced",
    "jacobi, traced": "the diagonal and the shift may be traced",
    "fourier, traced": "the symbol and the offset may be traced",
    "teter, traced": "kinetic and reference may be traced",
}
# Functions without an underscore that users do not call: their arguments are checked before.
INNER = {bounds.second_order}


def public_functions():
    found = set()
    for module in (jax_peig, operators, preconditioners, bounds):
        for name, thing in vars(module).items():
            own = module is not bounds or getattr(thing, "__module__", "") == module.__name__
            if inspect.isfunction(thing) and own and not name.startswith("_"):
                found.add(thing)
    return {function.__name__ for function in found - INNER}


def test_every_function_has_mistakes_of_every_kind():
    made = {name.partition(":")[0] for name in MISTAKES}
    every = {f"{function}, {kind}" for function in public_functions() for kind in KINDS}
    assert every - made == set(NONE_TO_MAKE)
    assert all(NONE_TO_MAKE.values())
    assert made - every == {"SparseOperator.with_values, type", "SparseOperator.with_values, shape"}


def test_no_row_of_a_table_hides_another():
    assert len(MISTAKES) == sum(len(table.MISTAKES) for table in TABLES)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told(name):
    call, kind, *words = MISTAKES[name]
    function = name.partition(",")[0]
    with pytest.raises(kind) as caught:
        call()
    text = str(caught.value)
    assert type(caught.value) is kind
    assert "\n" not in text
    assert re.match(rf"{re.escape(function)}(: |\(\) got )", text), text
    rest = re.sub(r"expected options of \w+: ", "", text)
    others = [o for o in public_functions() - {function} if re.search(rf"\b{o}: ", rest)]
    assert not others, text
    assert [word for word in words if word not in text] == [], text
    told = [text.index(word) for word in words if word]
    assert told, "the row names nothing"
    assert told == sorted(told), "first what was given, then what is expected, then what to do"


def test_what_jax_says_stays_the_cause():
    for what, (product, *_) in mistakes_of_operators.TRACED_PRODUCTS.items():
        with pytest.raises(ValueError, match="failed: it ") as caught:
            jax_peig.partial_eigh(product, k=2, n=mistakes_of_operators.N)
        assert type(caught.value.__cause__).__module__.startswith("jax"), what
