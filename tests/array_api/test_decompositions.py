"""aotc.numpy.linalg against numpy's LAPACK: solutions, factors and their products, on stacks."""

import numpy as np
import pytest

import aotc
import aotc.numpy as xp

LA = xp.linalg
SHAPES = [(1, 1), (2, 4, 4)]
SLOW = [pytest.param(shape, marks=pytest.mark.slow) for shape in ((3, 5, 5), (12, 12))]


def matrix(shape, dtype=np.float64, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def near(found, wanted):
    found = np.asarray(found)
    assert found.shape == np.shape(wanted)
    tolerance = 1e-4 if found.dtype == np.float32 else 1e-10
    size = max(1.0, float(np.abs(wanted).max(initial=0)))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * size)


def orthonormal(q):
    near(np.swapaxes(q, -1, -2) @ q, np.broadcast_to(np.eye(q.shape[-1]), (*q.shape[:-2],
                                                                       *q.shape[-1:] * 2)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES + SLOW)
def test_square_matrices(shape, dtype):
    a, b = matrix(shape, dtype), matrix((*shape[:-1], 3), dtype, 1)
    x = xp.asarray(a)
    near(LA.solve(x, xp.asarray(b)), np.linalg.solve(a, b))
    near(LA.solve(x, xp.asarray(b[(0,) * (b.ndim - 2)][:, 0])),
         np.linalg.solve(a, np.broadcast_to(b[(0,) * (b.ndim - 2)][:, :1], b.shape))[..., 0])
    near(LA.inv(x), np.linalg.inv(a))
    near(LA.det(x), np.linalg.det(a))
    for found, wanted in zip(LA.slogdet(x), np.linalg.slogdet(a), strict=True):
        near(found, wanted)
    near(LA.matrix_power(x, 5), np.linalg.matrix_power(a, 5))
    near(LA.matrix_power(x, 0), np.linalg.matrix_power(a, 0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES + SLOW)
def test_symmetric_matrices(shape, dtype):
    a = matrix(shape, dtype)
    square = a @ np.swapaxes(a, -1, -2) + np.eye(shape[-1], dtype=dtype)
    near(LA.cholesky(xp.asarray(square)), np.linalg.cholesky(square))
    near(LA.cholesky(xp.asarray(square), upper=True), np.linalg.cholesky(square, upper=True))
    both = a + np.swapaxes(a, -1, -2)
    values, vectors = map(np.asarray, LA.eigh(xp.asarray(both)))
    near(values, np.linalg.eigvalsh(both))
    orthonormal(vectors)
    near(vectors * values[..., None, :] @ np.swapaxes(vectors, -1, -2), both)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [pytest.param(np.float32, marks=pytest.mark.slow), np.float64])
@pytest.mark.parametrize("shape", [(1, 1), (2, 4, 3), (3, 4)] + SLOW)
def test_factors(shape, dtype):
    a = matrix(shape, dtype)
    if shape[-1] == 3:
        a[..., 2] = a[..., 0]  # not of full rank
    x = xp.asarray(a)
    for mode in ("reduced", "complete"):
        q, r = map(np.asarray, LA.qr(x, mode=mode))
        near(q @ r, a)
        orthonormal(q)
        assert np.array_equal(r, np.triu(r))
    wanted = np.linalg.svd(a, compute_uv=False)
    for full in (True, False):
        u, s, vh = map(np.asarray, LA.svd(x, full_matrices=full))
        kept = s.shape[-1]
        near(s, wanted)
        near(u[..., :kept] * s[..., None, :] @ vh[..., :kept, :], a)
        orthonormal(u)
        orthonormal(np.swapaxes(vh, -1, -2))
    near(LA.pinv(x, rtol=1e-3), np.linalg.pinv(a, rtol=1e-3))
    assert np.array_equal(np.asarray(LA.matrix_rank(x, rtol=1e-3)),
                          np.linalg.matrix_rank(a, rtol=1e-3))
    for ord in ("fro", "nuc", 1, -1, 2, -2, np.inf, -np.inf):
        near(LA.matrix_norm(x, ord=ord), np.linalg.norm(a, ord, axis=(-2, -1)))


def test_vectors():
    x = matrix((3, 4))
    for ord in (0, 1, 2, 3, 0.5, np.inf, -np.inf):
        near(LA.vector_norm(xp.asarray(x), axis=1, ord=ord), np.linalg.norm(x, ord, axis=1))
    near(LA.outer(xp.asarray(x[0]), xp.asarray(x[1])), np.outer(x[0], x[1]))


def test_singular_and_indefinite_matrices_give_no_exception():
    singular = xp.asarray([[1.0, 2.0], [2.0, 4.0]])
    assert float(LA.det(singular)) == 0
    sign, size = LA.slogdet(singular)
    assert float(sign) == 0 and float(size) == -np.inf
    assert not bool(xp.all(xp.isfinite(LA.inv(singular))))
    assert bool(xp.any(xp.isnan(LA.cholesky(xp.asarray([[1.0, 2.0], [2.0, 1.0]])))))


def test_empty_matrices():
    empty = xp.zeros((0, 0))
    assert float(LA.det(empty)) == 1 and LA.inv(empty).shape == (0, 0)
    assert LA.eigh(empty).eigenvalues.shape == (0,) and LA.svdvals(empty).shape == (0,)
    assert LA.solve(xp.zeros((0, 3, 3)), xp.zeros((0, 3, 2))).shape == (0, 3, 2)
    assert LA.qr(xp.zeros((2, 0, 3))).R.shape == (2, 0, 3)


def test_extreme_numbers_are_scaled():
    a = matrix((3, 3)) * 1e200
    near(xp.asarray(LA.svdvals(xp.asarray(a)).values / 1e200), np.linalg.svd(a)[1] / 1e200)
    q, r = LA.qr(xp.asarray(matrix((3, 2)) * 1e-200))
    orthonormal(np.asarray(q))


@pytest.mark.slow
def test_a_least_squares_fit_compiles():
    def fit(x, y):
        q, r = xp.linalg.qr(x)
        return xp.linalg.solve(r, xp.matrix_transpose(q) @ y)

    x, y = matrix((6, 2)), matrix((6,), seed=1)
    graph = aotc.trace(fit, x, y)
    near(aotc.compile(graph)(x, y), np.linalg.lstsq(x, y)[0])
