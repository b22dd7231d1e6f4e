"""Iterative solvers of Hermitian systems with many right-hand sides, one shift for each.

Each has the arguments ``(product, B, atol, max_steps, preconditioner)``: ``product(V, index)``
multiplies the columns V (n, c) by the operators that belong to the right-hand sides ``index`` (c,),
B is (n, b), ``atol`` (b,) holds the residual norms to reach, and ``preconditioner`` is None or a
function of a block. Callers do not rely on a solver's own report: they compute the true residual
(see `jax_peig._derivatives.solve`).
"""
