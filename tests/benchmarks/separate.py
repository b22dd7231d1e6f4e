"""Peers that return separate pairs and triplets, for ``degeneracy.py``: JAX, torch, xitorch.

torch and xitorch are imported inside the methods only, so that this module imports without them.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

# A loss of a matrix, in the terms of a peer.
SeparateLoss: TypeAlias = Callable[["Peer", Any], Any]


class Peer:
    """Pairs and triplets of a matrix, and derivatives of what is made of them.

    Attributes
    ----------
    name, package : str
        In tables; the module that must be importable.
    """

    name = ""
    package = ""

    def installed(self) -> bool:
        """Whether it can run here."""
        return importlib.util.find_spec(self.package) is not None

    def pairs(self, a: Any, k: int) -> tuple[Any, Any]:
        """The k smallest eigenvalues, and their vectors, of the symmetric part."""
        raise NotImplementedError

    def triplets(self, a: Any, k: int) -> tuple[Any, Any, Any]:
        """U, s, Vh of the k largest singular values."""
        raise NotImplementedError

    def exp(self, x: Any) -> Any:
        """Of each entry."""
        raise NotImplementedError

    def array(self, x: np.ndarray) -> Any:
        """Its own kind of array."""
        raise NotImplementedError

    def derivatives(self, loss: SeparateLoss, A: np.ndarray, E: np.ndarray) -> tuple[float, float]:
        """The first and second derivative of t -> loss(A + t E) at zero, by a gradient."""
        raise NotImplementedError


class Jnp(Peer):
    """`jnp.linalg.eigh` and `jnp.linalg.svd`."""

    name, package = "jnp", "jax"

    def pairs(self, a: Any, k: int) -> tuple[Any, Any]:
        w, X = jnp.linalg.eigh((a + a.T) / 2)
        return w[:k], X[:, :k]

    def triplets(self, a: Any, k: int) -> tuple[Any, Any, Any]:
        u, s, vh = jnp.linalg.svd(a, full_matrices=False)
        return u[:, :k], s[:k], vh[:k]

    def exp(self, x: Any) -> Any:
        return jnp.exp(x)

    def array(self, x: np.ndarray) -> Any:
        return jnp.asarray(x)

    def derivatives(self, loss: SeparateLoss, A: np.ndarray, E: np.ndarray) -> tuple[float, float]:
        return derivatives(lambda a: loss(self, a), A, E)


class Torch(Peer):
    """`torch.linalg.eigh` and `torch.linalg.svd`."""

    name, package = "torch", "torch"

    def pairs(self, a: Any, k: int) -> tuple[Any, Any]:
        import torch

        w, X = torch.linalg.eigh((a + a.T) / 2)
        return w[:k], X[:, :k]

    def triplets(self, a: Any, k: int) -> tuple[Any, Any, Any]:
        import torch

        u, s, vh = torch.linalg.svd(a, full_matrices=False)
        return u[:, :k], s[:k], vh[:k]

    def exp(self, x: Any) -> Any:
        return x.exp()

    def array(self, x: np.ndarray) -> Any:
        import torch

        return torch.from_numpy(np.array(x))

    def derivatives(self, loss: SeparateLoss, A: np.ndarray, E: np.ndarray) -> tuple[float, float]:
        """Reverse mode twice."""
        import torch

        a, e = self.array(A).requires_grad_(), self.array(E)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (g,) = torch.autograd.grad(loss(self, a), a, create_graph=True)
            first = (g * e).sum()
            (h,) = torch.autograd.grad(first, a)
        return first.item(), (h * e).sum().item()


class Xitorch(Torch):
    """`xitorch.linalg.symeig` and `svd`, with their defaults.

    The default method, "exacteig", takes all eigenvalues closer than eps^0.6 = 4e-10 as equal, and
    ``degen_atol`` and ``degen_rtol`` do not reach it. "davidson" (min_eps = 1e-12) and
    "custom_exacteig" do take them, by default eps^0.6 and eps^0.4; with the backward solver "cg"
    their first derivatives here are of the same size as those of "exacteig", with the default one,
    which inverts the singular A - w I, those of vectors are wrong. No choice gave a second
    derivative with an error below 4e-3.
    """

    name, package = "xitorch", "xitorch"

    def installed(self) -> bool:
        """It needs torch as well."""
        return super().installed() and importlib.util.find_spec("torch") is not None

    def pairs(self, a: Any, k: int) -> tuple[Any, Any]:
        import xitorch
        from xitorch.linalg import symeig

        return symeig(xitorch.LinearOperator.m((a + a.T) / 2, is_hermitian=True), neig=k)

    def triplets(self, a: Any, k: int) -> tuple[Any, Any, Any]:
        import xitorch
        from xitorch.linalg import svd

        return svd(xitorch.LinearOperator.m(a), k=k)


PEERS = (Jnp(), Torch(), Xitorch())


def derivatives(f: Callable[[Any], Any], A: np.ndarray, E: np.ndarray) -> tuple[float, float]:
    """The same of a JAX function: reverse mode, then forward over reverse."""
    a, e = jnp.asarray(A), jnp.asarray(E)
    slope = jax.jit(lambda a: jnp.sum(jax.grad(f)(a) * e))
    first, second = jax.jvp(slope, (a,), (e,))
    return float(first), float(second)
