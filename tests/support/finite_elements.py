"""Sparse matrices of elliptic problems, for multigrid: rough coefficients and an elastic brick."""

import numpy as np
import scipy.sparse

POISSON = 0.3  # Poisson's ratio of the brick; Young's modulus is one


def diffusion(coefficients):
    """-div(c grad) by finite volumes of width one, Dirichlet; c (m, m) is constant on each."""
    m = len(coefficients)
    c = np.pad(coefficients, 1, mode="edge")
    place = np.pad(np.arange(m * m).reshape(m, m), 1, constant_values=-1)
    rows, columns, values = [], [], []
    for axis, end in ((0, 1), (0, -1), (1, 1), (1, -1)):
        there, beyond = np.roll(place, end, axis), np.roll(c, end, axis)
        flux = (2 * c * beyond / (c + beyond))[1:-1, 1:-1].ravel()
        here, there = place[1:-1, 1:-1].ravel(), there[1:-1, 1:-1].ravel()
        inside = there >= 0
        rows += [here, here[inside]]
        columns += [here, there[inside]]
        values += [flux, -flux[inside]]
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return scipy.sparse.coo_array(entries, shape=(m * m, m * m)).tocsr()


def rough(edge, contrast=1e6, seed=0):
    """`diffusion` with inclusions of all sizes in between: c is log-uniform in [1, contrast]."""
    blocks = np.random.default_rng(seed).random((-(-edge // 4),) * 2)
    exponents = np.kron(blocks, np.ones((4, 4)))[:edge, :edge]
    return diffusion(contrast**exponents)


def laplacian(*shape, dtype=float):
    """The stencil (-1, 2, -1) along each axis, Dirichlet."""
    total = scipy.sparse.csr_array((1, 1), dtype=dtype)
    for m in shape:
        one = scipy.sparse.diags_array(
            [-1.0, 2.0, -1.0], offsets=[-1, 0, 1], shape=(m, m), dtype=dtype
        )
        total = scipy.sparse.kronsum(one, total)  # the later axis varies fastest
    return scipy.sparse.csr_array(total)


def neumann(*shape):
    """The Laplacian of a grid as a graph: its rows sum to zero."""
    A = laplacian(*shape)
    return scipy.sparse.csr_array(A - scipy.sparse.diags_array(A @ np.ones(A.shape[0])))


def brick(*shape):
    """An elastic brick, clamped at x = 0; its stiffness (n, n), and its rigid motions (n, 6).

    It has ``shape`` cubes of width one, trilinear elements; the three displacements of a node are
    neighbours.
    """
    stiffness, motions = free_brick(*shape)
    kept = np.arange(3 * np.prod(np.array(shape[1:]) + 1), stiffness.shape[0])
    return stiffness[kept][:, kept].tocsr(), motions[kept]


def free_brick(*shape):
    """`brick` without the clamp: the motions are its null space."""
    corners = np.argwhere(np.ones((2, 2, 2)))  # (8, 3)
    dims = np.array(shape) + 1
    nodes = np.argwhere(np.ones(shape))[:, None] + corners  # (cubes, 8, 3)
    index = np.ravel_multi_index(np.moveaxis(nodes, -1, 0), dims)
    unknown = (3 * index[:, :, None] + np.arange(3)).reshape(len(index), 24)
    rows, columns = np.repeat(unknown, 24, axis=1), np.tile(unknown, (1, 24))
    values = np.tile(_cube(corners).ravel(), len(index))
    stiffness = scipy.sparse.coo_array((values, (rows.ravel(), columns.ravel()))).tocsr()
    x = np.argwhere(np.ones(dims)) - (dims - 1) / 2
    shifts = np.broadcast_to(np.eye(3)[:, None], (3, *x.shape))
    turns = np.cross(np.eye(3)[:, None], x[None])
    return stiffness, np.concatenate([shifts, turns]).reshape(6, -1).T


def _cube(corners):
    """The stiffness (24, 24) of a cube, by two Gauss points along each axis."""
    lame = POISSON / ((1 + POISSON) * (1 - 2 * POISSON))
    shear = 1 / (2 * (1 + POISSON))
    signs, total = 2 * corners - 1, np.zeros((24, 24))
    for point in signs / np.sqrt(3):
        f = (1 + signs * point) / 2
        slopes = signs * np.stack([f[:, 1] * f[:, 2], f[:, 0] * f[:, 2], f[:, 0] * f[:, 1]], axis=1)
        gradient = np.einsum("na,cd->acnd", slopes, np.eye(3))  # of u_c along a
        strain = (gradient + gradient.transpose(1, 0, 2, 3)).reshape(9, 24) / 2
        trace = strain[::4].sum(axis=0)
        total += (2 * shear * strain.T @ strain + lame * np.outer(trace, trace)) / 8
    return total
