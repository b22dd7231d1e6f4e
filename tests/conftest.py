"""Strict modes for the whole suite: float64, no silent promotion, warnings are errors."""

import os

# Compile quickly rather than well: compilation is nearly all of the suite's time.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"

import hypothesis
import jax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile(
    "suite", deadline=None, derandomize=True, database=None, max_examples=20
)
hypothesis.settings.load_profile("suite")
