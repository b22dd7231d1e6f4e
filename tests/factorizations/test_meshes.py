"""Structures on meshes: a plate with repeated modes, a free brick, a surface."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg

from jax_peig import ShiftInvert, Status, partial_eigh
from tests.support import meshes

# Central differences of a smooth function with this relative step have an error of its square,
# and of the reference's own error over the step.
STEP = 1e-4


def by_superlu(K, M, k):
    """The k smallest pairs of a definite pencil."""
    start = np.random.default_rng(0).standard_normal(K.shape[0])
    return np.sort(scipy.sparse.linalg.eigsh(K.tocsc(), k, M.tocsc(), sigma=0.0, v0=start)[0])


def direction(n):
    return np.random.default_rng(1).standard_normal(n)


class TestPlate:
    """Modes (1, 2) and (2, 1) have one frequency; so have their discrete versions."""

    stiffness, mass = meshes.plate()
    uniform = np.ones(stiffness.lift.shape[1])

    def reference(self, thickness, k=4):
        return by_superlu(self.stiffness.matrix(thickness**3), self.mass.matrix(thickness), k)

    def modes(self, thickness, k):
        (K, to_k), (M, to_m) = self.stiffness.operator(), self.mass.operator()
        A, B = K.with_values(to_k(thickness**3)), M.with_values(to_m(thickness))
        return partial_eigh(A, B, k, method=ShiftInvert())

    @pytest.mark.slow
    def test_both_copies_are_found(self):
        """As one cluster, and within the error bounds."""
        w, _, info = self.modes(jnp.asarray(self.uniform), 4)
        expected = self.reference(self.uniform)
        assert info.status == Status.CONVERGED
        np.testing.assert_allclose(w, expected, rtol=1e-8)
        assert expected[2] - expected[1] < 1e-9 * expected[1]
        assert info.clusters[1] == info.clusters[2]
        assert len(np.unique(info.clusters)) == 3
        assert np.all(np.abs(w - expected) <= info.error_bounds + 1e-9 * expected)

    @pytest.mark.slow
    def test_the_pair_s_sum_in_the_thickness(self):
        """It is smooth where the two are not, along a direction that splits them."""
        d = direction(len(self.uniform))
        slope = jax.grad(lambda t: jnp.sum(self.modes(t, 3).eigenvalues[1:]))(
            jnp.asarray(self.uniform)
        )
        sums = [np.sum(self.reference(self.uniform + s * d)[1:3]) for s in (STEP, -STEP)]
        split = self.reference(self.uniform + STEP * d)[1:3]
        assert split[1] - split[0] > 1e-7 * split[0]
        difference = (sums[0] - sums[1]) / (2 * STEP)
        scale = np.linalg.norm(slope) * np.linalg.norm(d)
        assert abs(slope @ d - difference) < 100 * STEP**2 * scale


class TestBrick:
    """Six rigid motions, which sigma = 0 meets exactly."""

    stiffness, mass = meshes.brick(6, 5, 4)
    uniform = np.ones(stiffness.lift.shape[1])

    def reference(self, modulus):
        K, M = self.stiffness.matrix(modulus), self.mass.matrix(self.uniform)
        return scipy.linalg.eigh(
            K.toarray(), M.toarray(), eigvals_only=True, subset_by_index=[0, 7]
        )

    def modes(self, modulus, k):
        K, entries = self.stiffness.operator()
        M = self.mass.matrix(self.uniform)
        return partial_eigh(K.with_values(entries(modulus)), M, k, sigma=0.0)

    @pytest.mark.slow
    def test_six_modes_are_rigid(self):
        w, _, info = self.modes(jnp.asarray(self.uniform), 7)
        expected = self.reference(self.uniform)
        assert info.status == Status.CONVERGED
        assert info.method == "shift_invert"
        assert info.pole < 0
        np.testing.assert_allclose(w[6], expected[6], rtol=1e-8)
        # Rounding of K, in the unit of the eigenvalues.
        norm = abs(self.stiffness.pattern).sum(axis=0).max()
        rounding = np.finfo(float).eps * norm / self.mass.pattern.diagonal().min()
        assert np.all(np.abs(w[:6]) < 100 * rounding)
        assert np.all(np.abs(w[:6]) <= info.error_bounds[:6])
        assert len(np.unique(info.clusters[:6])) == 1
        assert info.clusters[6] != info.clusters[5]

    @pytest.mark.slow
    def test_the_first_elastic_mode_in_young_s_modulus(self):
        d = direction(len(self.uniform))
        assert self.reference(self.uniform)[7] > 1.01 * self.reference(self.uniform)[6]
        slope = jax.grad(lambda e: self.modes(e, 7).eigenvalues[6])(jnp.asarray(self.uniform))
        ends = [self.reference(self.uniform + s * d)[6] for s in (STEP, -STEP)]
        difference = (ends[0] - ends[1]) / (2 * STEP)
        scale = np.linalg.norm(slope) * np.linalg.norm(d)
        assert abs(slope @ d - difference) < 100 * STEP**2 * scale
        # It is linear in a common factor.
        np.testing.assert_allclose(np.sum(slope), self.reference(self.uniform)[6], rtol=1e-8)


class TestSurface:
    """A cotangent Laplacian; real meshes have vertices that no triangle uses."""

    vertices, triangles = meshes.sphere(4)

    @pytest.mark.slow
    def test_harmonics(self):
        """0, then 2 three times: l (l + 1) on the sphere, but for the mesh."""
        stiffness, mass = meshes.cotangent_laplacian(self.vertices, self.triangles)
        w = partial_eigh(stiffness, mass, 4, sigma=0.0).eigenvalues
        assert abs(w[0]) < 1e-6
        np.testing.assert_allclose(w[1:], 2.0, rtol=0.02)
        np.testing.assert_allclose(w[1:], w[1], rtol=1e-8)

    def test_an_unreferenced_vertex_is_named(self):
        loose = 17
        vertices = np.insert(self.vertices, loose, 0.5, axis=0)
        triangles = self.triangles + (self.triangles >= loose)
        stiffness, mass = meshes.cotangent_laplacian(vertices, triangles)
        sparse = scipy.sparse.csr_array(scipy.sparse.diags_array(mass))
        for M, method in ((sparse, "auto"), (mass, ShiftInvert())):
            with pytest.raises(ValueError, match=r"degree of freedom 17 \(1 in all\)"):
                partial_eigh(stiffness, M, 4, sigma=0.0, method=method)
        with pytest.raises(ValueError, match=r"its diagonal holds 0.0 at 17"):
            partial_eigh(stiffness, mass, 4, sigma=0.0)
