"""The benchmarks' exact answers, the judge, the clock and the runner, checked at small sizes.

The exact spectra are compared with dense `scipy.linalg.eigh`, the reference gradients with finite
differences of the losses, which are gauge-free; jax_peig takes part in the runner's test alone.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from . import peers, problems, rows, run, solvers, timing

SIZES = {"P1": 7, "P2": 9, "P3": 6, "P4": 40, "P5": 120, "P6": 3}
LOSSES = ("L1", "L2")


@pytest.fixture(params=sorted(SIZES))
def problem(request):
    return problems.make(request.param, SIZES[request.param])


def dense(matrix):
    return matrix if isinstance(matrix, np.ndarray) else matrix.toarray()


def dense_pairs(problem, theta):
    """The k wanted pairs and the next two of A(theta), by LAPACK, in the problem's order."""
    if problem.batched:
        lam, X = np.linalg.eigh(theta)
    else:
        A = theta
        if problem.potential:
            A = dense(problem.matrix) + np.diag(theta - problem.theta)
        mass = None if problem.mass is None else dense(problem.mass)
        few = problem.k + 2
        part = [0, few - 1] if problem.which == "smallest" else [problem.n - few, problem.n - 1]
        lam, X = scipy.linalg.eigh(A, mass, subset_by_index=part)
        if problem.which == "largest":
            lam, X = lam[::-1], X[:, ::-1]
    return lam[..., : problem.k + 2], X[..., : problem.k]


def dense_losses(problem, theta):
    """L1 and L2 at theta, an array of two."""
    lam, X = dense_pairs(problem, theta)
    lam = lam[..., : problem.k]
    return np.array([problem.loss(loss, lam, X, problem.w, problem.c) for loss in LOSSES])


def direction(problem, seed):
    """A random direction in theta that moves eigenvalues by at most about 1."""
    d = np.random.default_rng(seed).standard_normal(problem.theta.shape)
    if not problem.potential:
        d = d + np.swapaxes(d, -1, -2)
        return d / np.linalg.norm(d, 2, axis=(-2, -1), keepdims=True)
    return d / np.abs(d).max() / (problem.vectors**2).sum(0).max()


def smallest_gap(problem):
    """The distance from the k pairs, and from the occupied ones, to the next eigenvalue."""
    lam = np.atleast_2d(problem.wanted)
    ends = [problem.k, problem.occupied]
    return min(np.abs(lam[:, end] - lam[:, end - 1]).min() for end in ends)


def test_exact_pairs_are_those_of_the_dense_matrix(problem):
    lam, _ = dense_pairs(problem, problem.theta)
    scale = np.abs(lam).max()
    np.testing.assert_allclose(problem.wanted, lam, atol=1e-12 * scale, rtol=0)
    verdict = solvers.judge(problem, problem.wanted[..., : problem.k], problem.vectors)
    assert verdict.right
    assert verdict.residual < 1e-13
    assert verdict.orthonormality < 1e-12


def test_clusters_are_closed_and_as_described(problem):
    sizes = np.bincount(problem.clusters).tolist()
    expected = {
        "P1": [1, 2, 1, 2, 2],
        "P2": [1, 3, 3, 3],
        "P3": [1, 2, 1, 2, 2],
        "P4": [1, 1, 3, 1, 1, 1, 1, 1],
        "P5": [1, 1, 1, 1],
        "P6": [1, 2, 1],
    }
    assert sizes == expected[problem.name]
    assert problem.occupied in np.cumsum(sizes)
    assert smallest_gap(problem) > 1e-6 * problem.norm


def test_norms(problem):
    matrices = problem.matrix if problem.batched else [dense(problem.matrix)]
    norm = max(np.linalg.norm(A, 2) for A in matrices)
    assert problem.norm == pytest.approx(norm, rel=1e-12)
    if problem.mass is not None:
        assert problem.mass_norm == pytest.approx(np.linalg.norm(dense(problem.mass), 2))


@pytest.mark.parametrize("columns", [None, 1, 3])
def test_products_are_those_of_the_scipy_matrices(problem, columns):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((problem.n,) if columns is None else (problem.n, columns))
    theta, matrix = problem.theta, problem.matrix
    if problem.batched:
        theta, matrix = theta[-1], matrix[-1]
    elif problem.potential:  # somewhere else than the potential that `matrix` was made with
        shift = rng.standard_normal(problem.n)
        theta, matrix = theta + shift, dense(matrix) + np.diag(shift)
    got = problem.product(jnp.asarray(theta), jnp.asarray(x))
    np.testing.assert_allclose(got, matrix @ x, atol=1e-12 * problem.norm)
    if problem.mass is not None:
        got = problem.mass_product(jnp.asarray(x))
        np.testing.assert_allclose(got, problem.mass @ x, atol=1e-12 * problem.mass_norm)


def test_reference_values_and_gradients_against_finite_differences(problem):
    exact = problem.exact
    value = [exact.value[loss] for loss in LOSSES]
    np.testing.assert_allclose(value, dense_losses(problem, problem.theta), rtol=1e-9)
    d, t = direction(problem, 3), 1e-2 * smallest_gap(problem)

    def central(step):
        ahead = dense_losses(problem, problem.theta + step * d)
        return (ahead - dense_losses(problem, problem.theta - step * d)) / (2 * step)

    # Richardson: the error of 4/3 D(t) - 1/3 D(2t) is of fourth order in t
    slopes = (4.0 * central(t) - central(2 * t)) / 3.0
    for loss, slope in zip(LOSSES, slopes, strict=True):
        gradient = exact.gradient[loss]
        size = np.linalg.norm(gradient) * np.linalg.norm(d)
        assert np.sum(gradient * d) == pytest.approx(slope, rel=1e-6, abs=1e-7 * size)


def test_deflated_resolvent_needs_few_pairs():
    """P5's reference, from the leading pairs and a linear solve, equals the sum over all pairs."""
    problem = problems.make("P5", SIZES["P5"])
    lam, X = np.linalg.eigh(problem.matrix.toarray())
    lam, X = lam[::-1], X[:, ::-1]
    g = np.random.default_rng(1).standard_normal(problem.n)
    free = slice(problem.occupied, None)
    expected = X[:, free] @ ((X[:, free].T @ g) / (lam[0] - lam[free]))
    np.testing.assert_allclose(problem.resolvent(0, g), expected, rtol=0, atol=1e-9)


def test_unknown_names_and_sizes_are_refused():
    with pytest.raises(ValueError, match="unknown problem 'P7'"):
        problems.make("P7")
    with pytest.raises(ValueError, match="'small' or a number"):
        problems.make("P1", "tiny")
    with pytest.raises(ValueError, match="cluster across pair 8"):
        problems.make("P1", 4)
    with pytest.raises(ValueError, match="only P1, P2, P3 are made for any k"):
        problems.make("P4", "small", 5)


def test_any_number_of_pairs_that_cuts_no_cluster():
    with pytest.raises(problems.CutClusterError, match="cluster across pair 7"):
        problems.make("P1", 14, 7)
    problem = problems.make_near("P1", 14, 7)
    assert problem.k == 6
    lam, _ = dense_pairs(problem, problem.theta)
    np.testing.assert_allclose(problem.wanted, lam, atol=1e-12 * problem.norm)
    assert problem.vectors.shape == (196, 6)


class TestJudge:
    """A residual test certifies nothing where eigenvalues repeat: the judge must see more."""

    problem = problems.make("P1", 7)

    def pairs(self, columns):
        # eigenvectors of the dense matrix, chosen by their place in the spectrum
        lam, X = np.linalg.eigh(self.problem.matrix.toarray())
        return lam[columns], X[:, columns]

    def test_any_order_and_any_basis_of_a_cluster(self):
        lam, X = self.pairs([7, 0, 2, 1, 3, 4, 5, 6])
        rotation = np.array([[0.6, -0.8], [0.8, 0.6]])
        X[:, 2:4] = X[:, 2:4] @ rotation
        verdict = solvers.judge(self.problem, lam, 3.0 * X)
        assert verdict.right
        assert verdict.residual < 1e-13

    @pytest.mark.parametrize("columns", [[0, 1, 3, 4, 5, 6, 7, 8], [0, 1, 1, 3, 4, 5, 6, 7]])
    def test_a_missing_or_doubled_copy_is_wrong(self, columns):
        verdict = solvers.judge(self.problem, *self.pairs(columns))
        assert verdict.residual < 1e-13
        assert not verdict.right

    def test_residual_is_relative_to_the_exact_norm(self):
        lam, X = self.pairs(range(8))
        X[:, 3] += 1e-6 * np.linalg.eigh(self.problem.matrix.toarray())[1][:, -1]
        verdict = solvers.judge(self.problem, lam, X)
        assert verdict.right
        assert verdict.residual == pytest.approx(1e-6, rel=0.2)

    def test_nan_is_wrong(self):
        lam, X = self.pairs(range(8))
        verdict = solvers.judge(self.problem, lam, np.nan * X)
        assert not verdict.right


class Perturbed(solvers.Solver):
    """The exact pairs with a residual of ten times its tolerance; wrong or failing on request."""

    name, package = "perturbed", "numpy"

    def __init__(self, mistake=None):
        self.mistake = mistake
        self.asked = []

    def forward(self, problem, tol, start):
        self.asked.append(tol)
        if self.mistake == "raises":
            raise RuntimeError("out of luck")
        X = problem.vectors.copy()
        X[:, 0] += 10.0 * tol * scipy.linalg.eigh(dense(problem.matrix))[1][:, -1]
        lam = problem.wanted[: problem.k] + (1.0 if self.mistake == "wrong" else 0.0)
        return solvers.Forward(lambda: (lam, X), lambda out: out, claim=lambda out: True)


class TestRows:
    problem = problems.make("P1", 7)

    def bench(self, solver):
        return rows.bench(solver, self.problem, rows.Settings(starts=2, repeat=2))

    def test_the_loosest_good_tolerance_is_found(self):
        row = self.bench(Perturbed())
        assert row["status"] == "ok"
        assert 1e-8 / rows.STEP < row["residual"] <= 1e-8
        assert row["tol"] == pytest.approx(1e-9, rel=1e-6)
        assert row["right_starts"] == [2, 2]

    def test_a_wrong_set_that_claims_to_have_converged(self):
        row = self.bench(Perturbed("wrong"))
        assert row["status"] == "not reached"
        assert not row["right"]
        assert row["false_claims"] > 0

    def test_failures_stay(self):
        assert self.bench(Perturbed("raises"))["status"] == "failed: RuntimeError: out of luck"
        absent = Perturbed()
        absent.package = "no_such_package"
        assert self.bench(absent)["status"] == "not run: no_such_package is not installed"
        assert absent.asked == []

    def test_ratios_mark_what_was_not_reached(self):
        ours = {"problem": "P1", "solver": "jax_peig", "status": "ok", "seconds": 0.1}
        ours |= {"noisy": False, "products": 100}
        peer = ours | {"solver": "peer", "seconds": 0.4, "status": "not reached", "products": 50}
        (ratio,) = run.ratios([ours, peer])
        assert ratio["forward"] == pytest.approx(4.0)
        assert ratio["products"] == pytest.approx(0.5)
        assert not ratio["both_reached"]


def test_every_peer_says_whether_it_can_run(problem):
    for peer in peers.all_peers():
        for reason in (peer.unavailable(), peer.unsuited(problem)):
            assert reason is None or isinstance(reason, str)
    suited = [p.name for p in peers.all_peers() if p.unsuited(problem) is None]
    assert ("jnp.linalg.eigh" in suited) == (problem.name in ("P4", "P6"))
    assert ("PRIMME" in suited) == (problem.name != "P6")


def test_counter_counts_vectors():
    counter = solvers.Counter(problems.make("P1", 7).matrix)
    counter.operator @ np.ones(49)
    counter.operator @ np.ones((49, 5))
    assert counter.count == 6


def test_measure_reports_what_it_did():
    calls = []
    found = timing.measure(lambda: calls.append(0), 5, rounds=3, slowdown_limit=np.inf)
    assert found.repetitions == 5
    assert len(calls) == 1 + 5 * found.rounds
    assert 0.0 <= found.best <= found.seconds
    never = timing.measure(lambda: None, 2, rounds=2, slowdown_limit=0.0)
    assert never.noisy
    assert never.rounds == 2


def test_compile_ahead_keeps_compilation_apart():
    compiled, seconds = timing.compile_ahead(lambda x: 2.0 * x, jnp.arange(3.0))
    assert seconds > 0.0
    np.testing.assert_array_equal(compiled(jnp.arange(3.0)), [0.0, 2.0, 4.0])


@pytest.mark.slow
def test_runner_on_small_problems(tmp_path, capsys):
    assert jax.config.jax_enable_x64
    saved = tmp_path / "table.json"
    options = ["--size", "small", "--repeat", "1", "--starts", "1", "--save", str(saved)]
    assert run.main(["P1", "P4", *options]) == 0
    table = json.loads(saved.read_text())
    assert [row["solver"] for row in table["rows"]] == ["jax_peig", "jax_peig"]
    for row in table["rows"]:
        assert row["status"] == "ok"
        assert row["right"]
        assert row["residual"] < 1e-8
        for loss in LOSSES:
            gradient = row["gradients"][loss]
            assert gradient["error"] < max(1e-12, 10 * row["expected_gradient_error"])
    # a loss of eigenvalues alone solves no linear system: one product with the k vectors
    assert table["rows"][0]["gradients"]["L1"]["backward_products"] <= table["problems"][0]["k"]
    printed = capsys.readouterr().out
    assert "P4: explicit, n = 120" in printed
    assert "jax_peig" in printed
