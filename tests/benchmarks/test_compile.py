"""The size of the compiled programs does not grow unseen: counts, which are exact, and no times."""

import jax
import pytest

from . import compile as table

# Lines of optimised HLO on JAX 0.10.2, of value and gradient.
VERSION = "0.10.2"
LINES = {"dense": 3704, "chebyshev": 10618, "lobpcg": 13531, "davidson": 11591}
SLACK = 1.1


@pytest.mark.slow
@pytest.mark.skipif(jax.__version__ != VERSION, reason=f"the counts are those of JAX {VERSION}")
@pytest.mark.parametrize("method", table.METHODS)
def test_lines_of_a_gradient(method):
    found = table.measured(method, "float64", None, "grad")["lines"]
    assert found <= SLACK * LINES[method], f"{found} lines of HLO"


def test_the_table(tmp_path, capsys):
    saved = tmp_path / "compile.json"
    assert table.main(["--quick", "--save", str(saved)]) == 0
    assert "dense" in capsys.readouterr().out
    assert saved.exists()
