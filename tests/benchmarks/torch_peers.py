"""The peers in torch: `torch.lobpcg`, `torch.linalg.eigh`, and xitorch.

torch is imported inside the methods only, so that this module imports without it.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np

from .base import Problem
from .solvers import Forward, Gradient, Solver, starting_block

MAX_STEPS = 3000


class _Torch(Solver):
    """What they share: theta as a leaf tensor, gradients by `backward`."""

    package = "torch"
    differentiable = True

    def _solve(self, problem: Problem, theta: Any, tol: float, start: int) -> Any:
        raise NotImplementedError

    def forward(self, problem: Problem, tol: float, start: int) -> Forward:
        """Without gradient tracking."""
        import torch

        theta = torch.from_numpy(problem.theta)

        def solve() -> Any:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self._solve(problem, theta, tol, start)

        return Forward(call=solve, pairs=lambda out: (out[0].numpy(), out[1].numpy()))

    def value_and_grad(self, problem: Problem, loss: str, tol: float, start: int) -> Gradient:
        """A fresh leaf, one forward and one backward pass."""
        import torch

        w, c = torch.from_numpy(problem.w), torch.from_numpy(problem.c)
        theta = torch.from_numpy(problem.theta)

        def call() -> Any:
            leaf = theta.clone().requires_grad_()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                lam, X = self._solve(problem, leaf, tol, start)
                problem.loss(loss, lam, X, w, c).backward()
            return leaf.grad

        return Gradient(call=call, gradient=lambda out: out.numpy())


class TorchEigh(_Torch):
    """`torch.linalg.eigh` of the whole matrix."""

    name = "torch.linalg.eigh"

    def unsuited(self, problem: Problem) -> str | None:
        """Explicit matrices."""
        return "matrix-free" if problem.potential else None

    def _solve(self, problem: Problem, theta: Any, tol: float, start: int) -> Any:
        import torch

        lam, X = torch.linalg.eigh(theta)
        if problem.which == "largest":
            lam, X = lam.flip(-1), X.flip(-1)
        return lam[..., : problem.k], X[..., : problem.k]


class TorchLobpcg(_Torch):
    """`torch.lobpcg` on a dense or a sparse tensor; M = I for gradients, by its own rule."""

    name = "torch.lobpcg"

    def slow(self, problem: Problem) -> bool:
        """Half a minute a solve on the largest problem."""
        return problem.n > 20_000

    def first_tolerance(self, problem: Problem, target: float) -> float:
        """Its test is ||r|| against tol ||X|| (||A|| + |lam| ||B||)."""
        return target / 2.0

    def _solve(self, problem: Problem, theta: Any, tol: float, start: int) -> Any:
        import torch

        A, B = theta, None
        if problem.potential:
            indices, values, diagonal = _coordinates(problem)
            values = values.index_add(0, diagonal, theta)
            A = torch.sparse_coo_tensor(indices, values, (problem.n, problem.n)).coalesce()
        if problem.mass is not None:
            B = _sparse(problem.mass).to_sparse_coo()
        X = torch.from_numpy(starting_block(problem, problem.k, start))
        if problem.batched:
            X = X.expand(*A.shape[:-1], problem.k).clone()
        return torch.lobpcg(
            A, k=problem.k, B=B, X=X, niter=MAX_STEPS, tol=tol,
            largest=problem.which == "largest",
        )  # fmt: skip


class Xitorch(_Torch):
    """`xitorch.linalg.symeig`: Davidson without restart; the whole matrix in a batch."""

    name, package = "xitorch", "xitorch"

    def slow(self, problem: Problem) -> bool:
        """Its basis grows without bound: minutes on the larger grids."""
        return problem.potential and problem.n > 1000

    def first_tolerance(self, problem: Problem, target: float) -> float:
        """Its test is absolute, on the largest entry of the residuals."""
        return target * problem.norm * float(np.sqrt((problem.vectors**2).sum(-2).min()))

    def _solve(self, problem: Problem, theta: Any, tol: float, start: int) -> Any:
        import xitorch
        from xitorch.linalg import symeig

        mode = "lowest" if problem.which == "smallest" else "uppest"
        options: dict[str, Any] = {"neig": problem.k, "mode": mode}
        if problem.batched:
            A = xitorch.LinearOperator.m(theta, is_hermitian=True)
            lam, X = symeig(A, method="exacteig", **options)
        else:
            M = None
            if problem.potential:
                A = _shifted_operator()(_sparse_free(problem), theta)
                if problem.mass is not None:
                    M = _shifted_operator()(_sparse(problem.mass), theta.new_zeros(problem.n))
            else:
                A = xitorch.LinearOperator.m(theta, is_hermitian=True)
            # xitorch's own defaults for clusters, eps^0.6 absolute and eps^0.4 relative, kept
            backward = {"method": "cg", "rtol": 1e-9, "max_niter": MAX_STEPS}
            lam, X = symeig(
                A, M=M, method="davidson", bck_options=backward, min_eps=tol,
                max_niter=MAX_STEPS, **options,
            )  # fmt: skip
        if problem.which == "largest":
            lam, X = lam.flip(-1), X.flip(-1)
        return lam, X


def _sparse(matrix: Any) -> Any:
    """A SciPy matrix as a torch sparse CSR tensor."""
    import torch

    matrix = matrix.tocsr()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "sparse CSR is in beta"
        return torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr.astype(np.int64)),
            torch.from_numpy(matrix.indices.astype(np.int64)),
            torch.from_numpy(matrix.data),
            matrix.shape,
        )


@functools.lru_cache(maxsize=4)
def _sparse_free(problem: Problem) -> Any:
    """A(0): the matrix without the potential."""
    import scipy.sparse as sp

    return _sparse(problem.matrix - sp.diags_array(problem.theta))


@functools.lru_cache(maxsize=4)
def _coordinates(problem: Problem) -> tuple[Any, Any, Any]:
    """COO indices and values of A(0), and the places of the diagonal among them."""
    import scipy.sparse as sp
    import torch

    # the structure must hold the whole diagonal: build it from |A| + I
    free = (problem.matrix - sp.diags_array(problem.theta)).tocsr()
    structure = (abs(free) + sp.eye_array(problem.n)).tocoo()
    row, column = structure.coords
    values = np.asarray(free.tocsr()[row, column]).ravel()
    diagonal = np.flatnonzero(row == column)
    diagonal = diagonal[np.argsort(row[diagonal])]
    return (
        torch.from_numpy(np.stack([row, column]).astype(np.int64)),
        torch.from_numpy(values),
        torch.from_numpy(diagonal),
    )


@functools.lru_cache(maxsize=1)
def _shifted_operator() -> Any:
    """The class of ``base + diag(potential)`` as an xitorch operator, made where xitorch is."""
    import torch
    import xitorch

    class Shifted(xitorch.LinearOperator):
        def __init__(self, base: Any, potential: Any) -> None:
            super().__init__(base.shape, is_hermitian=True, dtype=potential.dtype)
            self.base, self.potential = base, potential

        def _mv(self, x: Any) -> Any:
            return self._mm(x[..., None])[..., 0]

        def _mm(self, x: Any) -> Any:
            if x.ndim > 2:  # one column with its own shift: (k, n, 1)
                return torch.stack([self._mm(one) for one in x])
            return torch.sparse.mm(self.base, x) + self.potential[:, None] * x

        def _getparamnames(self, prefix: str = "") -> list[str]:
            return [prefix + "potential"]

    return Shifted
