"""Shared by every layer: types, tolerances, algebra of blocks, options and results."""
