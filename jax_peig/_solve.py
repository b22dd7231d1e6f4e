"""From operators to approximate eigenpairs: probe, start, and the eigensolver that was chosen."""

import jax
import jax.numpy as jnp

from jax_peig import _blocks, _tolerances
from jax_peig._eigensolvers import chebyshev, dense, lobpcg
from jax_peig._eigensolvers.ritz import Goal, Ritz
from jax_peig._mass import RoughInverse, diagonal_inverse, given_inverse, rough_inverse
from jax_peig._operators import Operator, diagonal_of
from jax_peig._probe import LANCZOS_STEPS, PRODUCTS, Probe, probe, spectral_interval
from jax_peig._request import Given, Request
from jax_peig._types import Array


def block_width(method: str, n: int, k: int) -> int:
    """The width of the block that a method works with."""
    if method == "dense":
        return n
    return {"chebyshev": chebyshev, "lobpcg": lobpcg}[method].block_width(n, k)


def basis_width(n: int, k: int, basis: int | None) -> int:
    """The number of basis vectors that "davidson" keeps."""
    del n, k
    return 0 if basis is None else basis


def solve(request: Request, given: Given) -> tuple[Ritz, Probe, Probe, Array]:
    """Approximate pairs, what the probes of A and M found, and whether all helpers are definite.

    The helpers are the preconditioner and the caller's M_solve.
    """
    k, dtype, n = request.k, request.dtype, given.a.n
    goal = Goal(k, request.which == "largest", request.tol, request.max_steps, request.monitor)
    if request.method == "dense":
        ritz, probe_a, probe_m = dense.solve(given.a, given.m, goal, dtype, given.sigma)
        return ritz, probe_a, probe_m, jnp.array(True)
    keys = jax.random.split(given.key, 5)
    probe_a = probe(given.a, keys[0], n, dtype)
    probe_m = probe(given.m, keys[1], n, dtype)
    worthwhile = healthy(probe_a, probe_m)
    norms = (probe_a.norm, probe_m.norm)
    helper = given.preconditioner if given.m_solve is None else given.m_solve
    probe_helper = probe(helper, keys[3], n, dtype)
    helpful = healthy(probe_helper, probe_helper)
    block = _blocks.random_block(keys[2], n, request.width, dtype)
    if given.start is not None:
        # The guard vectors stay random, so that nothing is out of the iteration's sight.
        start = given.start[:, :k]
        block = jnp.concatenate([start, block[:, start.shape[1] :]], axis=1)
    if request.method == "lobpcg":
        ritz = lobpcg.solve(given.a, given.m, given.preconditioner, block, norms, goal, worthwhile)
        spent_a, spent_m = 0, 0
    else:
        inverse, interval, spent_a, spent_m = _filter_bounds(request, given, probe_a, norms, keys)
        ritz = chebyshev.solve(
            given.a, given.m, inverse, block, interval, norms, goal, worthwhile, keys[4],
            warm=given.start is not None, sigma=given.sigma,
        )  # fmt: skip
    mass_probe = 0 if given.m is None else PRODUCTS
    ritz = ritz._replace(
        products=ritz.products + PRODUCTS + spent_a,
        products_M=ritz.products_M + mass_probe + spent_m,
        definite=ritz.definite & (probe_m.lowest > 0),
    )
    return ritz, probe_a, probe_m, helpful


def _filter_bounds(request: Request, given: Given, probe_a: Probe, norms, keys):
    """A rough inverse of M, the interval of the spectrum, and the products with A and M spent."""
    sign = -1 if request.which == "largest" else 1
    if given.m is None:
        low, high = probe_a.interval
        return None, (low, high) if sign > 0 else (-high, -low), 0, 0
    inverse = _inverse(given.m, given.m_solve, norms[1], keys[3], request.dtype)

    def product(block):
        return sign * given.a(block)

    low, high, _ = spectral_interval(product, inverse.__call__, keys[4], given.a.n, request.dtype)
    spent_m = inverse.products + LANCZOS_STEPS * (inverse.degree - 1)
    return inverse, (low, high), LANCZOS_STEPS, spent_m


def _inverse(m: Operator, m_solve: Operator | None, norm: Array, key: Array, dtype) -> RoughInverse:
    """A rough inverse of M: the caller's, that of a diagonal, or one made of products with M."""
    if m_solve is not None:
        return given_inverse(m, m_solve)
    weights = diagonal_of(m)
    return rough_inverse(m, norm, key, dtype) if weights is None else diagonal_inverse(m, weights)


def healthy(probe_a: Probe, probe_m: Probe) -> Array:
    """Whether the probes found nothing that rules a Hermitian A and a positive M out."""
    limit = _tolerances.hermiticity(probe_a.norm.dtype)
    errors = jnp.maximum(probe_a.hermiticity_error, probe_m.hermiticity_error)
    return (errors <= limit) & (probe_m.lowest > 0) & probe_a.finite & probe_m.finite
