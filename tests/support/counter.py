"""A product that counts on the host what it multiplies."""

import jax
import numpy as np


class Counter:
    """The product with a matrix on the host, which counts the vectors that it multiplies.

    ``jax.pure_callback`` with ``vmap_method="broadcast_all"`` hands the host all columns of a block
    at once; zero columns, which stand for dropped directions, count as others do.
    """

    def __init__(self, matrix):
        self.matrix, self.count = np.asarray(matrix), 0

    def host(self, vectors):
        vectors = np.asarray(vectors)  # (..., n)
        self.count += vectors.size // self.matrix.shape[0]
        return vectors @ self.matrix.T

    def __call__(self, v):
        shape = jax.ShapeDtypeStruct(v.shape, v.dtype)
        return jax.pure_callback(self.host, shape, v, vmap_method="broadcast_all")

    def block(self, block):
        return self(block.T).T
