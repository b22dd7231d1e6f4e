"""Singular values, through the Hermitian dilation."""
