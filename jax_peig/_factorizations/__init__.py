"""Solves with A - sigma M by factorisation: in JAX where it is dense, on the host where sparse."""
