"""Benchmark problems with exact answers, and jax_peig beside its peers on them.

Run ``python -m tests.benchmarks.run`` from the repository root.
"""
