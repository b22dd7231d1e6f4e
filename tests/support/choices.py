"""What "auto" chooses for matrices, without a solve."""

from jax_peig._api.arguments import Arguments
from jax_peig._eigensolvers.choose import resolve


def chosen(A, M=None, k=3, **options):
    """The name of the method, and the reason."""
    given = Arguments("chosen", A, M, k, **options)
    method, reason = resolve("auto", given.structure(), "chosen")
    return method.name, reason + given.remark
