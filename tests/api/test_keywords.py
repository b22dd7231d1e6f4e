"""Functions that pass keyword arguments on show them: names, types and defaults."""

import inspect
import typing

import pytest

import jax_peig
from jax_peig import partial_eigh
from jax_peig._api.arguments import Arguments
from jax_peig._api.keywords import EighOptions, SVDOptions

KEYWORDS = {
    name: p
    for name, p in inspect.signature(partial_eigh).parameters.items()
    if p.kind is p.KEYWORD_ONLY
}
TYPES = typing.get_type_hints(partial_eigh)
EIGH = ("eigenspace", "spectral_sum")
SVD = ("partial_svd", "ky_fan_norm", "nuclear_norm", "singular_value_threshold")


def test_the_options_are_those_of_partial_eigh():
    assert typing.get_type_hints(EighOptions) == {name: TYPES[name] for name in KEYWORDS}
    assert set(SVDOptions.__annotations__) < set(KEYWORDS)


def test_the_frozen_arguments_have_the_same_defaults():
    fields = {name: f.default for name, f in Arguments.__dataclass_fields__.items()}
    assert list(fields)[:4] == ["caller", "A", "M", "k"]
    assert {name: fields[name] for name in KEYWORDS} == {
        name: p.default for name, p in KEYWORDS.items()
    }
    assert len(fields) == 4 + len(KEYWORDS)


@pytest.mark.parametrize("name", EIGH + SVD)
def test_signatures_show_the_options(name):
    options = EighOptions if name in EIGH else SVDOptions
    parameters = inspect.signature(getattr(jax_peig, name)).parameters
    assert not any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for option in options.__annotations__:
        assert parameters[option].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[option].default == KEYWORDS[option].default
        assert parameters[option].annotation == KEYWORDS[option].annotation
