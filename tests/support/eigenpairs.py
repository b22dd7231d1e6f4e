"""What the k wanted pairs of a prescribed pencil have to be."""

import numpy as np

from jax_peig import Status, partial_eigh
from tests.support import spectra

# One shape for most tests: what is compiled once serves them all.
N, K = 36, 6
METHODS = ("dense", "lobpcg")
# (dtype, condition number of M)
KINDS = {
    "real": (np.float64, None),
    "real, M": (np.float64, 1e2),
    "complex": (np.complex128, None),
    "complex, M": (np.complex128, 1e2),
}
EPS = np.finfo(np.float64).eps
TOL = EPS ** (2 / 3)  # the documented default


def check(result, pencil, k, *, which="smallest", tol=TOL, eps=EPS, groups=()):
    """The k wanted pairs of ``pencil``, to what ``tol`` and rounding promise.

    ``groups`` are index ranges (of the ascending spectrum) whose invariant subspace is well
    separated from the rest and has to agree.
    """
    a, mass = pencil.A.astype(np.complex128), pencil.mass.astype(np.complex128)
    w, x = np.asarray(result.eigenvalues), np.asarray(result.eigenvectors).astype(np.complex128)
    n = a.shape[0]
    lengths = np.linalg.norm(x, axis=0)
    norm_a, norm_m = np.linalg.norm(a, 2), np.linalg.norm(mass, 2)
    condition = norm_m * np.linalg.norm(np.linalg.inv(mass), 2)
    scale = np.max(np.abs(pencil.values))

    assert int(result.info.status) == Status.CONVERGED, result.info.message
    assert w.shape == (k,)
    assert x.shape == (n, k)
    assert np.isrealobj(w)
    steps = np.diff(w) if which == "smallest" else -np.diff(w)
    assert np.all(steps >= -10 * eps * scale), "not sorted"

    wanted = pencil.values[:k] if which == "smallest" else pencil.values[::-1][:k]
    rounding = 100 * eps * condition * scale
    np.testing.assert_allclose(w, wanted, rtol=0, atol=rounding)

    gram = x.conj().T @ mass @ x
    np.testing.assert_allclose(gram, np.eye(k), rtol=0, atol=50 * eps * condition)

    r = np.linalg.norm(a @ x - mass @ x * w, axis=0)
    assert np.all(r <= (2 * tol + 100 * eps) * (norm_a + np.abs(w) * norm_m) * lengths)

    for first, last in groups:
        columns = slice(first, last) if which == "smallest" else slice(n - last, n - first)
        got = spectra.projector(x[:, columns], pencil.M)
        expected = pencil.projector(first, last)
        # sin(angle) <= residual / gap in the M-norm, and the gaps here are at least one.
        angle = (4 * tol + 100 * eps) * condition * (norm_a / norm_m + scale)
        np.testing.assert_allclose(got, expected, rtol=0, atol=angle)


def solve(pencil, k=K, **options):
    return partial_eigh(pencil.A, pencil.M, k, **options)


# -- clusters and near clusters -------------------------------------------------------------------


def cluster_groups(where):
    """Return the clusters of spectra.clustered(N, K, where), single pairs included."""
    values = spectra.clustered(N, K, where)
    values = np.sort(values)[:K]
    starts = [i for i in range(K) if i == 0 or values[i] != values[i - 1]]
    return list(zip(starts, [*starts[1:], K], strict=True))
