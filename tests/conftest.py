"""Strict modes for the whole suite: float64, no silent promotion, warnings are errors."""

import gc
import os
from importlib.metadata import version
from pathlib import Path

# Compile quickly rather than well: compilation is nearly all of the suite's time. Of the two code
# generators of jaxlib 0.10 the older takes half as long; later ones have the newer alone. A program
# is compiled in one part, since the suite's processes use all cores already. XLA ends a process
# whose flags it does not know, so that other versions get neither.
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_backend_optimization_level=0",
        "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
        if version("jaxlib").startswith("0.10.")
        else "",
    ]
)

import hypothesis
import jax
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile(
    "suite", deadline=None, derandomize=True, database=None, max_examples=20
)
hypothesis.settings.load_profile("suite")


# Each compiled program holds memory maps, of which a process has 65,530; XLA crashes there. The
# file that lists them is Linux's.
MAPS = Path("/proc/self/maps")
MOST_MAPS = 30_000


@pytest.fixture(autouse=True)
def _forget_compiled_programs():
    yield
    if MAPS.exists() and MAPS.read_bytes().count(b"\n") > MOST_MAPS:
        _forget()


@pytest.fixture(scope="module", autouse=True)
def _forget_the_module_s_programs():
    yield
    _forget()


def _forget():
    jax.clear_caches()
    gc.collect()
