"""Iterative solvers of Hermitian systems with many right-hand sides, one shift for each.

Each has the signature ``solve(product, B, atol, max_steps, preconditioner) -> Z`` where
``product(V, index)`` multiplies the columns V (n, c) by the operators that belong to the
right-hand sides ``index`` (c,), B is (n, b), ``atol`` (b,) the residual norms to reach and
``preconditioner`` None or a function of a block. None of them is believed: callers compute the true
residual (see `jax_peig._sylvester`).
"""
