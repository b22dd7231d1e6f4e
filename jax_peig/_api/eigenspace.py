"""eigenspace: the space of k eigenvectors as one object, whatever repeats inside it."""

from typing import Unpack

from jax_peig._api.eigh import pairs, partial_eigh
from jax_peig._api.keywords import EighOptions, passes_on
from jax_peig._core.results import Eigenspace
from jax_peig._core.types import OperatorLike
from jax_peig._derivatives.rules import SpaceRule


@passes_on(EighOptions, like=partial_eigh)
def eigenspace(
    A: OperatorLike,
    M: OperatorLike = None,
    k: int | None = None,
    **options: Unpack[EighOptions],
) -> Eigenspace:
    """Compute the space of k extreme or interior eigenvectors, differentiably as a whole.

    ``A X = M X R``, ``X^H M X = I``, A Hermitian, M Hermitian positive definite. All k pairs are
    one cluster: a loss of (R, X) that X -> X Q, R -> Q^H R Q leaves unchanged for every unitary Q
    has exact first and second derivatives, whatever eigenvalues repeat among the k, also where it
    weighs them differently, as smeared occupations do. See `hermitian_function`, `density`,
    `spectral_apply` and `spectral_sum` for such losses. Third derivatives of polynomials in R are
    exact too. Reverse mode three times over is refused (NaN): take forward mode for one of them.

    Parameters
    ----------
    A : operator
        As in `partial_eigh`.
    M : operator, optional
        As in `partial_eigh`.
    k : int
        The dimension of the space.
    **options
        The keyword arguments of `partial_eigh`: ``which``, ``sigma``, ``n``, ``dtype``, ``v0``,
        ``like``, ``preconditioner``, ``M_solve``, ``OPinv``, ``method``, ``tol``, ``max_steps``,
        ``degeneracy_tol``, ``derivative``, ``key``, ``history``, ``progress``.

    Returns
    -------
    Eigenspace
        ``rayleigh`` R (k, k) of the dtype of the basis, diagonal in value, in the order of
        `partial_eigh`; ``basis`` X (n, k); ``info``, whose ``clusters`` are those of
        `partial_eigh`, as a description.

    Raises
    ------
    TypeError, ValueError
        As `partial_eigh`; for unknown options.

    Differentiability
    -----------------
    * In: all that A and M hold or close over, as in `partial_eigh`.
    * Modes: forward and reverse.
    * Orders: the first and the second, whatever repeats among the k; the third of polynomials in R,
      not by reverse mode three times over (NaN).
    * Refused: NaN for a loss that a rotation of the space changes, for one that uses X where k cuts
      a cluster, for a second derivative at such a cut, and where the pairs or the linear systems
      did not converge.

    Notes
    -----
    With G = herm(X^H A' X) - (R M'_s + M'_s R)/2 and M'_s = herm(X^H M' X) (eqs 2.3-2.6 of Kasim,
    arXiv:2011.04366, corrected, with every pair in one cluster)

        R' = G,     X' = -X M'_s / 2 + Z,     P^H (A Z - M Z R) = -P^H (A' X - M' X R),

    P = I - X X^H M. No difference of the k eigenvalues is divided by; only the gap to the next
    matters, ``info.gap``. A gradient costs one reverse pass through A X and, where the loss uses X,
    one solve of k linear systems, as that of `partial_eigh`.

    The gradient is NaN for a loss that a rotation changes (an entry of R or of X), and for a loss
    that uses X where k cuts a cluster (``info.cut``). A loss of R alone gets one generalised
    gradient there. ``Derivative(on_gauge=...)`` says otherwise. The check is of first order, at the
    pairs as they are: it sees an entry of R between two equal eigenvalues in a loss of R alone, but
    not beside terms that use X.

    *Forward mode* returns R' and X' of this gauge, in which X does not turn inside its space.

    Examples
    --------
    The double eigenvalue 2 splits when A moves along E; the sum over its pair of w^2 is smooth:

    >>> import jax, jax.numpy as jnp
    >>> from jax_peig import eigenspace
    >>> A, E = jnp.diag(jnp.array([2.0, 2.0, 3.0, 5.0])), jnp.ones((4, 4))
    >>> def squares(t):
    ...     return jnp.sum(eigenspace(A + t * E, k=2).rayleigh ** 2)
    >>> [round(float(x), 3) for x in (squares(0.0), jax.grad(squares)(0.0))]
    [8.0, 8.0]
    >>> round(float(jax.grad(jax.grad(squares))(0.0)), 3)  # NaN by separate eigenvalues
    -13.333
    """
    return space("eigenspace", A, M, k, options)


def space(
    caller: str, A: OperatorLike, M: OperatorLike, k: int | None, options: EighOptions
) -> Eigenspace:
    """`eigenspace`, with errors that carry the name of the public function that was called.

    Raises
    ------
    TypeError, ValueError
        As `eigenspace`.
    """
    return Eigenspace(*pairs(caller, A, M, k, options, rule=SpaceRule))
