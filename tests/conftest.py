"""Strict modes for the whole suite: float64, no silent promotion, warnings are errors."""

import hypothesis
import jax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile(
    "suite", deadline=None, derandomize=True, database=None, max_examples=20
)
hypothesis.settings.load_profile("suite")
