"""The model of the embedded demonstration: a clamped square membrane in bilinear elements.

Small transverse vibrations of a membrane under unit tension with mass density rho,

    -Laplace(u) = lam rho u   on (0, 1)^2,      u = 0 on the edge,

in Q1 elements on a uniform mesh of (N + 1)^2 square elements of side h = 1 / (N + 1), rho constant
on each element. The N^2 interior nodal values make the generalised eigenproblem

    K x = lam M(rho) x.                                                                      (1)

On one element the four corner values x_ab, a, b in {0, 1}, meet the matrices

    K_e = k (x) m + m (x) k,      M_e = rho_e m (x) m,                                       (2)
    k = (1/h) [[1, -1], [-1, 1]],      m = (h/6) [[2, 1], [1, 2]],

of one-dimensional linear elements, and K, M are the sums over the elements. Neither is formed: the
corner values of all elements at once are four slices of the zero-padded field, and the sum into a
node is four slices of the elements' results.

For rho = 1, (1) separates: K = K1 (x) M1 + M1 (x) K1 and M = M1 (x) M1 with
K1 = (1/h) tridiag(-1, 2, -1) and M1 = (h/6) tridiag(1, 4, 1), both diagonal in the sine vectors
s_p(i) = sin(i t_p). So the spectrum of the *discrete* problem is known exactly,

    lam_pq = mu_p + mu_q,   mu_p = (6 / h^2) (1 - cos t_p) / (2 + cos t_p),   t_p = p pi h,   (3)

and lam_pq = lam_qp is repeated by the symmetry of the square: an exact degeneracy.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jax_peig import BlockProduct, partial_eigh
from jax_peig._core.results import PartialEigh
from jax_peig.preconditioners import Preconditioner, polynomial

# The one-dimensional element matrices k and m of (2) without their factors of h; both have the form
# [[c, d], [d, c]], so that a pair (c, d) describes one.
_STIFFNESS_1D = (1.0, -1.0)
_MASS_1D = (2.0 / 6.0, 1.0 / 6.0)

_Pair1D = tuple[float, float]


def _sum_over_elements(
    terms: Sequence[tuple[_Pair1D, _Pair1D]],
    weight: jax.Array | None,
    block: jax.Array,
    grid: int,
) -> jax.Array:
    """Apply ``sum_e P_e^T w_e (sum_t left_t (x) right_t) P_e``, P_e the corners of element e.

    Parameters
    ----------
    terms : sequence of (left, right)
        One-dimensional element matrices [[c, d], [d, c]], each as (c, d).
    weight : array (grid + 1, grid + 1), or None for ones
    block : array (grid**2, b)
    grid : int
        Interior nodes along one side.

    Returns
    -------
    array (grid**2, b)
    """
    columns = block.shape[1]
    field = jnp.pad(block.reshape(grid, grid, columns), ((1, 1), (1, 1), (0, 0)))
    side = grid + 1
    # corner[a][b]: the value at corner (a, b) of every element     # (grid + 1, grid + 1, columns)
    corner = [[field[a : a + side, b : b + side] for b in (0, 1)] for a in (0, 1)]
    out = jnp.zeros((grid, grid, columns), block.dtype)
    for a in (0, 1):
        for b in (0, 1):
            here = jnp.zeros((side, side, columns), block.dtype)
            for (lc, ld), (rc, rd) in terms:
                near = rc * corner[a][b] + rd * corner[a][1 - b]
                far = rc * corner[1 - a][b] + rd * corner[1 - a][1 - b]
                here = here + lc * near + ld * far
            if weight is not None:
                here = weight[:, :, None] * here
            # Interior node (i, j), counted from 1, is corner (a, b) of element (i - a, j - b).
            out = out + here[1 - a : side - a, 1 - b : side - b]
    return out.reshape(grid * grid, columns)


@functools.partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["grid"])
@dataclasses.dataclass(frozen=True)
class MembraneStiffness:
    """The stiffness K of (1) as a pytree callable of a block, (n, b) -> (n, b), n = grid**2.

    Parameters
    ----------
    grid : int
        Interior nodes along one side.

    Notes
    -----
    The factors of h in k (x) m cancel, (1/h) * h = 1. K has no parameter here: the pytree has no
    leaves, and ``grid`` is static.
    """

    grid: int

    def __call__(self, block: jax.Array) -> jax.Array:
        """Return K @ block."""
        terms = ((_STIFFNESS_1D, _MASS_1D), (_MASS_1D, _STIFFNESS_1D))
        return _sum_over_elements(terms, None, block, self.grid)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["density"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class MembraneMass:
    """The consistent mass M(rho) of (1) as a pytree callable of a block, (n, b) -> (n, b).

    Parameters
    ----------
    density : array (grid + 1, grid + 1)
        rho_e, one number for each element; positive for M to be positive definite. It is the leaf
        of this pytree, hence what eigenvalues and eigenvectors are differentiated in:

            d(x^T M x) / d(rho_e) = x_e^T (m (x) m) x_e,   x_e the corner values of element e.
    """

    density: jax.Array

    def __call__(self, block: jax.Array) -> jax.Array:
        """Return M(rho) @ block."""
        grid = self.density.shape[0] - 1
        h = 1.0 / (grid + 1)
        weight = (h * h) * self.density
        return _sum_over_elements(((_MASS_1D, _MASS_1D),), weight, block, grid)


def membrane_preconditioner(grid: int) -> Preconditioner:
    """Return a polynomial approximation of K^-1, nine products with K.

    It is close on the upper part, (b / 50, b), of K's spectrum, b = 4: the largest eigenvalue of an
    element's matrix, 1, times the 4 elements that meet in a node. It knows nothing of the
    eigenvectors.
    """
    upper = 4.0
    stiffness = BlockProduct(MembraneStiffness(grid))
    return polynomial(stiffness, degree=9, lower=upper / 50, upper=upper)


@functools.partial(jax.jit, static_argnames="k")
def lowest_modes(density: jax.Array, k: int) -> PartialEigh:
    """Return (w, X, info) of the k lowest modes of (1), every operator given by its product."""
    grid = density.shape[0] - 1
    return partial_eigh(
        BlockProduct(MembraneStiffness(grid)),
        BlockProduct(MembraneMass(density)),
        k,
        n=grid * grid,
        dtype=density.dtype,
        tol=1e-12,
        preconditioner=membrane_preconditioner(grid),
    )


def exact_eigenvalues(grid: int, k: int) -> np.ndarray:
    """Return the k smallest eigenvalues of (1) for rho = 1, ascending, by the closed form (3).

    ``1 - cos t`` is taken as ``2 sin(t/2)^2``, so that the smallest keep all their digits.

    Examples
    --------
    >>> import numpy as np
    >>> from jax_peig._cli.membrane import exact_eigenvalues
    >>> np.round(exact_eigenvalues(200, 4) / np.pi**2, 2)
    array([2., 5., 5., 8.])
    """
    h = 1.0 / (grid + 1)
    t = np.pi * h * np.arange(1, grid + 1)
    mu = (6.0 / h**2) * 2.0 * np.sin(t / 2.0) ** 2 / (2.0 + np.cos(t))
    return np.sort((mu[:, None] + mu[None, :]).ravel())[:k]


def cluster_sizes(eigenvalues: np.ndarray, rtol: float = 1e-9) -> list[int]:
    """Return the sizes of the groups of equal numbers in an ascending array.

    Examples
    --------
    >>> from jax_peig._cli.membrane import cluster_sizes, exact_eigenvalues
    >>> cluster_sizes(exact_eigenvalues(80, 8))
    [1, 2, 1, 2, 2]
    """
    steps = np.diff(eigenvalues) > rtol * np.max(np.abs(eigenvalues))
    edges = np.flatnonzero(np.concatenate([[True], steps, [True]]))
    return [int(size) for size in np.diff(edges)]


def splitting_direction(grid: int) -> np.ndarray:
    """Return a perturbation of the density that splits the repeated pairs, (grid + 1, grid + 1).

    With (x, y) the centre of an element,

        cos(pi x) cos(pi y) + cos(2 pi x) / 2.

    The first term couples u_12 and u_21 (its integral with u_12 u_21 is not zero), the second moves
    one and not the other (its integral with u_12^2 - u_21^2 is not zero).
    """
    centre = (np.arange(grid + 1) + 0.5) / (grid + 1)
    x, y = centre[:, None], centre[None, :]
    return np.cos(np.pi * x) * np.cos(np.pi * y) + 0.5 * np.cos(2.0 * np.pi * x)


def rough_weights(grid: int, seed: int = 0) -> np.ndarray:
    """Return weights c_r for the loss, uniform on (0, 1) and without any symmetry, (grid**2,)."""
    return np.random.default_rng(seed).random(grid * grid)


def gradient_problem(grid: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the uniform density, a direction for it, and the weights of the loss."""
    density = jnp.ones((grid + 1, grid + 1))
    direction = jnp.asarray(splitting_direction(grid), density.dtype)
    return density, direction, jnp.asarray(rough_weights(grid), density.dtype)


def amplitude_loss(vectors: jax.Array, weights: jax.Array) -> jax.Array:
    """Return ``h^2 sum_r c_r (sum_j x_rj^2)^2``, a gauge-free loss of the eigenvectors.

    Parameters
    ----------
    vectors : array (n, m)
        Eigenvectors of whole clusters: ``sum_j x_rj^2`` then is the diagonal of X X^T, the same for
        every basis X Q of the same clusters. It is the mean square amplitude of the membrane at
        node r, up to a factor, when these modes are excited alike and independently.
    weights : array (n,)

    Returns
    -------
    array ()
    """
    h = 1.0 / (vectors.shape[0] ** 0.5 + 1.0)
    amplitude = jnp.sum(vectors * vectors, axis=1)  # (n,)
    return (h * h) * jnp.sum(weights * amplitude * amplitude)


def splitting_rate(vectors: jax.Array, eigenvalue: float, direction: jax.Array) -> float:
    """Return how fast a repeated eigenvalue splits along a change of the density.

    To first order the eigenvalues of a cluster with M-orthonormal vectors X_g move by those of
    ``-lam X_g^T M(direction) X_g``, M being linear in the density; the spread of these is returned.
    """
    gram = -eigenvalue * (vectors.T @ MembraneMass(direction)(vectors))  # (g, g)
    rates = np.linalg.eigvalsh(np.asarray((gram + gram.T) / 2))
    return float(rates[-1] - rates[0])


def dense_matrices(density: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return K and M(rho) as full (n, n) arrays, the products with the identity."""
    grid = density.shape[0] - 1
    identity = jnp.eye(grid * grid, dtype=density.dtype)
    return MembraneStiffness(grid)(identity), MembraneMass(density)(identity)


def dense_amplitude_loss(density: jax.Array, weights: jax.Array, modes: int) -> jax.Array:
    """Return `amplitude_loss` of the lowest modes by ``jnp.linalg.eigh``, the usual way in JAX.

    With M = C C^T the problem (1) becomes the standard one ``C^-1 K C^-T y = lam y``, x = C^-T y.
    The value is right. Where an eigenvalue repeats the gradient is not: the derivative rule of
    ``jnp.linalg.eigh`` divides by ``lam_i - lam_j`` for all pairs of the *full* spectrum, inside
    clusters too, where the difference is rounding or zero.
    """
    stiffness, mass = dense_matrices(density)
    factor = jnp.linalg.cholesky(mass)
    lower: Callable[[jax.Array], jax.Array] = functools.partial(
        jax.scipy.linalg.solve_triangular, factor, lower=True
    )
    standard = lower(lower(stiffness).T)  # (n, n)
    _, y = jnp.linalg.eigh((standard + standard.T) / 2)
    x = jax.scipy.linalg.solve_triangular(factor, y[:, :modes], lower=True, trans="T")
    return amplitude_loss(x, weights)
