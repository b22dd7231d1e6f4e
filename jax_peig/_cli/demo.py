"""The demonstration: modes of a membrane, and the gradient of a loss of them, each checked."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jax_peig
from jax_peig._cli import membrane

# The lowest modes: lam_11 | lam_12 = lam_21 | lam_22 | lam_13 = lam_31 | lam_23 = lam_32 | ...
# Neither the 8 that are computed nor the 3 that the loss takes cut a pair.
PAIRS, MODES = 8, 3


@dataclasses.dataclass
class Checks:
    """The checks that the demonstration prints, and whether all of them hold."""

    hold: bool = True

    def at_most(self, what: str, value: float, limit: float) -> None:
        """Print ``value`` against ``limit``; a NaN does not hold."""
        self._note(f"{what}: {value:.2g}, at most {limit:g}", bool(value <= limit))

    def equal(self, what: str, found: object, expected: object) -> None:
        """Print ``found`` against ``expected``."""
        self._note(f"{what}: {found}, expected {expected}", found == expected)

    def _note(self, text: str, holds: bool) -> None:
        self.hold = self.hold and holds
        print(f"  check: {text}: {'yes' if holds else 'NO'}")


def demonstration(grid: int = 80, small_grid: int = 10) -> int:
    """Solve the clamped membrane of `membrane`, differentiate a loss of its modes, compare both.

    Parameters
    ----------
    grid : int
        Interior nodes along one side: n = grid**2, matrix-free and iterative.
    small_grid : int
        The same for the comparison with ``jnp.linalg.eigh``, dense.

    Returns
    -------
    int
        0 if every printed check holds, 1 otherwise.
    """
    checks = Checks()
    start = time.perf_counter()
    solve = jax.jit(jax.value_and_grad(amplitudes, has_aux=True))
    show_modes(grid, solve, checks)
    show_gradient(grid, solve, checks)
    show_usual_way(small_grid, checks)
    print(f"\n{'All checks hold' if checks.hold else 'A CHECK DOES NOT HOLD'}; ", end="")
    print(f"{time.perf_counter() - start:.0f} s in all, with compilation.")
    return 0 if checks.hold else 1


def amplitudes(density: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax_peig.PartialEigh]:
    """The loss of the lowest modes that part 2 tells of, and the pairs."""
    found = membrane.lowest_modes(density, PAIRS)
    return membrane.amplitude_loss(found.eigenvectors[:, :MODES], weights), found


def show_modes(grid: int, solve: Callable[..., Any], checks: Checks) -> None:
    """Print the computed eigenvalues of the uniform membrane beside the exact ones."""
    exact = membrane.exact_eigenvalues(grid, PAIRS)
    uniform, seconds = jnp.ones((grid + 1, grid + 1)), []
    _, _, weights = membrane.gradient_problem(grid)
    for _ in range(2):
        start = time.perf_counter()
        (_, (w, _, info)), _ = jax.block_until_ready(solve(uniform, weights))
        seconds.append(time.perf_counter() - start)
    error = np.abs(np.asarray(w) / exact - 1.0)
    labels, residuals = np.asarray(info.clusters), np.asarray(info.residual_norms)
    print("1. Modes of a clamped square membrane, K x = lam M(rho) x in bilinear finite elements")
    print(f"   n = {grid * grid} ({grid} x {grid} nodes), rho = 1; K and M as functions, no matrix")
    print("   exact: the spectrum of the discrete problem, in closed form")
    print(f"{'':>5}  {'computed':>18}  {'exact':>18}  {'rel. error':>10}  {'residual':>9}  cluster")
    for j in range(PAIRS):
        print(
            f"{j:>5}  {float(w[j]):>18.12f}  {exact[j]:>18.12f}  {error[j]:>10.1e}  "
            f"{residuals[j]:>9.1e}  {labels[j]:>7}"
        )
    print(
        f"  {int(info.matvecs)} + {int(info.matvecs_M)} matvecs with K and M, "
        f"{int(info.steps)} steps;\n  the first call, with a gradient, {seconds[0]:.1f} s (it "
        f"compiles), the second {seconds[1]:.1f} s; {info.message}"
    )
    checks.equal("pairs that converged", int(info.converged), PAIRS)
    checks.at_most("largest relative error of an eigenvalue", float(error.max()), 1e-9)
    found = [int(np.sum(labels == label)) for label in dict.fromkeys(labels.tolist())]
    checks.equal("sizes of the clusters", found, membrane.cluster_sizes(exact))


def show_gradient(grid: int, solve: Callable[..., Any], checks: Checks) -> None:
    """Print a derivative of a loss of the modes, by reverse mode and by finite difference."""
    density, direction, weights = membrane.gradient_problem(grid)
    (value, (w, x, _)), gradient = solve(density, weights)
    step = 1e-3
    ahead, behind = (float(solve(density + s * direction, weights)[0][0]) for s in (step, -step))
    difference = (ahead - behind) / (2.0 * step)
    ours = float(jnp.sum(gradient * direction))
    rate = membrane.splitting_rate(x[:, 1:3], float(w[1]), direction)
    print("\n2. Gradient in the density of the loss h^2 sum_r c_r a_r^2, c random,")
    print("   a_r = x_r0^2 + x_r1^2 + x_r2^2: the lowest mode and the first pair")
    print(f"   loss {float(value):.9f}, {density.size} densities; the program of part 1")
    print("   Along a change d of the density that breaks the symmetry of the square: rho + s d")
    print(f"   splits the pair 1, 2 (lam = {float(w[1]):.3f}) by {rate:.3f} s to first order")
    print(f"   gradient . d          {ours:>20.12f}")
    print(f"   central difference    {difference:>20.12f}   (step {step:.0e})")
    checks.at_most("relative difference", abs(ours / difference - 1.0), 1e-5)


def show_usual_way(grid: int, checks: Checks) -> None:
    """Print the same derivative on a small grid, through ``jnp.linalg.eigh`` and through ours."""
    density, direction, weights = membrane.gradient_problem(grid)

    @jax.jit
    @jax.value_and_grad
    def usual(density: jax.Array) -> jax.Array:
        return membrane.dense_amplitude_loss(density, weights, MODES)

    @jax.jit
    @jax.value_and_grad
    def ours(density: jax.Array) -> jax.Array:
        stiffness, mass = membrane.dense_matrices(density)
        _, x, _ = jax_peig.partial_eigh(stiffness, mass, PAIRS, method="dense")
        return membrane.amplitude_loss(x[:, :MODES], weights)

    step = 1e-4
    ahead, behind = (float(usual(density + s * direction)[0]) for s in (step, -step))
    difference = (ahead - behind) / (2.0 * step)
    print(f"\n3. The same on {grid} x {grid} nodes with dense matrices, n = {grid * grid}")
    print(f"   central difference    {difference:>20.12f}   (step {step:.0e})")
    for name, function in (("jnp.linalg.eigh", usual), ("jax_peig", ours)):
        _, gradient = function(density)
        along = float(jnp.sum(gradient * direction))
        error, bad = abs(along / difference - 1.0), int(jnp.sum(~jnp.isfinite(gradient)))
        comment = f"{bad} of {gradient.size} entries not finite" if bad else f"off by {error:.1e}"
        print(f"   {name:<16} . d  {along:>20.12f}   {comment}")
    checks.at_most("relative difference of jax_peig's", error, 1e-5)
