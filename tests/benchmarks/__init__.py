"""Benchmark problems with exact answers, and jax_peig beside its peers on them.

``README.md`` has the tables, and the command that makes each.
"""
