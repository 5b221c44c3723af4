"""JAX's primitives by family: functions of one jaxpr, its results in machine code against JAX."""

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="JAX is an optional extra: pip install 'aotc[jax]'")

import jax.numpy as jnp  # noqa: E402
from jax import lax  # noqa: E402

from tests.importers.jax_agreement import agree, seeded  # noqa: E402

pytestmark = pytest.mark.slow


def test_functions_of_one_number():
    x, p = seeded(3, 5), seeded(3, 5, low=0.1, high=0.9)
    agree([
        lambda x, p: [f(x) for f in (
            jnp.abs, jnp.exp, jnp.expm1, jnp.negative, jnp.sin, jnp.cos, jnp.tan, jnp.sinh,
            jnp.cosh,
            jnp.tanh, jnp.arctan, jnp.arcsinh, jnp.floor, jnp.ceil, jnp.round, jnp.trunc, jnp.sign,
            jnp.square, jnp.exp2, jnp.reciprocal, jnp.isnan, jnp.isfinite, jnp.cbrt,
            jnp.logical_not,
            jax.nn.relu, jax.nn.gelu, jax.nn.silu, jax.nn.softplus, jax.nn.elu, jax.nn.sigmoid,
            jax.nn.mish, jax.nn.hard_swish, jax.nn.leaky_relu, jax.nn.log_sigmoid, lax.erf,
            lax.erfc,
        )],
        lambda x, p: [f(p) for f in (
            jnp.log, jnp.log1p, jnp.log2, jnp.log10, jnp.sqrt, lax.rsqrt, jnp.arcsin, jnp.arccos,
            jnp.arctanh, lax.erf_inv, lambda p: p**0.5, lambda p: p**-2, lambda p: p**1.3,
            lambda p: jnp.arccosh(p + 1), lambda p: lax.round(8 * p),
            lambda p: lax.integer_pow(p, 7),
        )],
    ], x, p, rtol=6e-6)  # fmt: skip


def test_operators_of_two_tensors():
    a, b = seeded(3, 4), seeded(4)
    n, m = seeded(3, 4, dtype=np.int32, low=-9, high=9), seeded(4, dtype=np.int32, low=1, high=5)
    u = seeded(3, 4, dtype=np.uint32, low=0, high=1 << 31)
    agree([
        lambda a, b, n, m, u: [a + b, a - n, a * b, a / b, n / m, n // m, n % m, a % b, a**2.0],
        lambda a, b, n, m, u: [jnp.maximum(a, b), jnp.minimum(n, m), lax.rem(n, n * 0 + m), 2.0**a],
        lambda a, b, n, m, u: [lax.div(n, n * 0 + m), jnp.arctan2(a, b), jnp.hypot(a, b), a > b],
        lambda a, b, n, m, u: [n == m, a <= 0, jnp.where(n > 0, a, b), jnp.clip(a, -1, 0.5)],
        lambda a, b, n, m, u: [n & m, n | m, n ^ m, ~n, n << 2, n >> 1, u >> 3,
                               u << m.astype("uint32")],
        lambda a, b, n, m, u: [lax.shift_right_logical(n, n * 0 + 1), lax.population_count(u)],
        lambda a, b, n, m, u: [lax.clz(u), n.astype(jnp.float16), a.astype(jnp.int8),
                               a.astype(bool)],
        lambda a, b, n, m, u: [lax.bitcast_convert_type(a, jnp.uint32), jnp.logaddexp(a, b)],
        lambda a, b, n, m, u: [lax.select_n((n > 0) * 1 + (n > 5) * 1, a, 2 * a, 3 * a),
                               jnp.signbit(a)],
        lambda a, b, n, m, u: [lax.reduce_precision(a, 8, 7), jnp.nan_to_num(a / (n > 0)),
                               n * 3 - m],
        lambda a, b, n, m, u: [jnp.logical_xor(n > 0, a > 0), jnp.floor_divide(a, b),
                               jnp.copysign(a, b)],
    ], a, b, n, m, u, rtol=4e-6)  # fmt: skip


def test_movement():
    x = seeded(2, 3, 4)
    agree([
        lambda x: [x.reshape(6, 4), x.T, x.swapaxes(0, 1), x[None], x[:1].squeeze(0), x[:, 1]],
        lambda x: [x[..., 1:3], x[:, ::-2], x[1, 2, 3], jnp.broadcast_to(x, (2, 2, 3, 4))],
        lambda x: [jnp.concatenate([x, 2 * x], 1), jnp.stack([x, -x], 1), jnp.split(x, [1, 3], 2)],
        lambda x: [jnp.tile(x, (2, 1, 3)), jnp.repeat(x, 2, 1), jnp.flip(x, (0, 2)),
                   jnp.roll(x, 1, 1)],
        lambda x: [jnp.pad(x, 1), jnp.pad(x, ((0, 0), (1, 2), (2, 0)), constant_values=3.0)],
        lambda x: [jnp.pad(x, ((0, 0), (2, 1), (1, 1)), mode="reflect"), jnp.rot90(x, 1, (1, 2))],
        lambda x: lax.pad(x, jnp.float32(1.5), ((0, 1, 2), (-1, 2, 1), (1, -1, 0))),
        lambda x: lax.pad(x, x[0, 0, 0], ((0, 1, 0), (0, 0, 1), (1, 0, 0))),
        lambda x: [jnp.tril(x), jnp.triu(x, 1), jnp.diagonal(x, 0, 1, 2), jnp.eye(3) @ x],
        lambda x: [jnp.arange(4.0) * x, jnp.linspace(0, 1, 4) + x, jnp.zeros_like(x),
                   jnp.unstack(x, axis=1)],
        lambda x: lax.broadcasted_iota(jnp.int32, (2, 3), 1),
        lambda x: jnp.meshgrid(x[0, 0], x[0, :, 0]),
    ], x)  # fmt: skip


def test_gather_and_scatter():
    x, i = seeded(5, 4), np.array([3, 0, -1], np.int32)
    j, start = np.array([[0, 2, 3], [1, 1, 9]], np.int32), np.int32(3)
    agree([
        lambda x, i, j, s: [x[i], x[:, j], x[i, i], x[i][:, i], x[i, 1:3], x[s], x[s, j],
                            x[:, None, i]],
        lambda x, i, j, s: [jnp.take(x, j, 0), jnp.take(x, j, 1, mode="clip"), x[j, j[:, ::-1]]],
        lambda x, i, j, s: [jnp.take(x, j, 1, mode="fill"),
                            x.at[j, j].get(mode="fill", fill_value=7.0)],
        lambda x, i, j, s: [jnp.take_along_axis(x[:2], j % 4, 1),
                            jax.vmap(lambda r, k: r[k])(x[:2], j)],
        lambda x, i, j, s: [x.at[i].set(0.0), x.at[i, i].add(2.0), x.at[j, 0].set(5.0),
                            x.at[:, s].mul(3)],
        lambda x, i, j, s: [x.at[j].min(-1.0), x.at[j].max(1.0), x.at[1:3, ::2].set(9.0)],
        lambda x, i, j, s: x.at[j, j].add(1.5, mode="drop"),
        lambda x, i, j, s: x.at[j, j].set(1.5, mode="clip"),
        lambda x, i, j, s: lax.dynamic_slice(x, (s, s - 2), (3, 2)),
        lambda x, i, j, s: lax.dynamic_update_slice(x, 2 * x[:2, :3], (s, s)),
        lambda x, i, j, s: lax.dynamic_update_slice_in_dim(x, x[:2], s - 9, 0),
        lambda x, i, j, s: jax.vmap(lambda r, k: r.at[k].set(-1.0))(x[:2], j),
        lambda x, i, j, s: [jax.nn.one_hot(j, 4), jnp.zeros(4, jnp.int32).at[j].add(1)],
        lambda x, i, j, s: jax.ops.segment_sum(x[:3], i % 2, 3),
        lambda x, i, j, s: x[x[:, 0].argsort()],
        lambda x, i, j, s: jnp.searchsorted(jnp.arange(5.0), x[0]),
    ], x, i, j, start)  # fmt: skip


def test_reductions():
    x, n = seeded(2, 3, 4), seeded(2, 3, 4, dtype=np.int32, low=-5, high=5)
    agree([
        lambda x, n: [x.sum(), x.mean((0, 2)), n.sum(1), x.prod(1), x.max(2), n.min(), x.var(1),
                      x.std()],
        lambda x, n: [(n > 0).any(1), (n > -4).all(), x.argmax(1), n.argmin(), jnp.ptp(x, 0)],
        lambda x, n: [x.cumsum(1), n.cumprod(2), lax.cummax(x, 1), lax.cummin(n, 2, reverse=True)],
        lambda x, n: [lax.cumlogsumexp(x, 2), lax.cumsum(x, 0, reverse=True), jnp.median(x, 1)],
        lambda x, n: [jnp.sort(x, 1), jnp.argsort(n, 2), lax.top_k(x, 2), lax.approx_max_k(x, 1)],
        lambda x, n: lax.sort((n, x, n + 1), dimension=2, num_keys=2),
        lambda x, n: jnp.lexsort((x, n)),
        lambda x, n: [jax.nn.softmax(x), jax.nn.log_softmax(x, 1), jax.nn.logsumexp(x, 2)],
        lambda x, n: [jnp.linalg.norm(x, axis=1), jax.nn.standardize(x), jnp.count_nonzero(n, 1)],
        lambda x, n: lax.reduce_window(x, 0.0, lax.add, (1, 2, 2), (1, 1, 2), "SAME"),
        lambda x, n: lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2), (1, 2, 1), "VALID"),
        lambda x, n: lax.reduce_window(n, np.int32(2**31 - 1), lax.min, (1, 2, 3), (1, 1, 1),
                                       "SAME"),
    ], x, n, rtol=1e-5)  # fmt: skip


def test_products_and_convolutions():
    x, y = seeded(2, 3, 8), seeded(2, 8, 5)
    image, w = seeded(1, 9, 8, 4), seeded(3, 3, 4, 6)
    wide = seeded(2, 4, 10)

    def conv(image, w, **choices):
        return lax.conv_general_dilated(
            image, w, **{"window_strides": (1, 1), "padding": "SAME", **choices},
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip

    agree([
        lambda x, y, i, w, t: [x @ y, x[0] @ y[0], x[0, 0] @ y[0],
                               jnp.einsum("bij,bjk->kbi", x, y)],
        lambda x, y, i, w, t: [jnp.tensordot(x, y, ((2,), (1,))), jnp.outer(x[0, 0], y[0, 0])],
        lambda x, y, i, w, t: jnp.matmul(x.astype(jnp.bfloat16), y.astype(jnp.bfloat16),
                                         preferred_element_type=jnp.float32),
        lambda x, y, i, w, t: lax.dot_general(x, y, (((2,), (1,)), ((0,), (0,)))),
        lambda x, y, i, w, t: [conv(i, w), conv(i, w, window_strides=(2, 1), padding="VALID")],
        lambda x, y, i, w, t: conv(i, w, padding=((2, -1), (0, 1)), rhs_dilation=(2, 1)),
        lambda x, y, i, w, t: conv(i, w, lhs_dilation=(2, 3), padding=((1, 1), (2, 0))),
        lambda x, y, i, w, t: conv(i, w[:, :, :2], feature_group_count=2),
        lambda x, y, i, w, t: lax.conv_transpose(i, w, (2, 2), "SAME"),
        lambda x, y, i, w, t: lax.conv(t, seeded(6, 4, 3), (2,), "VALID"),
        lambda x, y, i, w, t: jnp.convolve(t[0, 0], x[0, 0]),
        lambda x, y, i, w, t: lax.conv_general_dilated(t, seeded(6, 4, 3), (1,), "SAME",
                                                       batch_group_count=2),
    ], x, y, image, w, wide, rtol=2e-5, atol=2e-5)  # fmt: skip


def test_other_types():
    x = seeded(3, 8)
    n = seeded(3, 8, dtype=np.int8, low=-100, high=100)
    agree([
        lambda x, n: x.astype(jnp.bfloat16) * 2 + 1, lambda x, n: jnp.sum(x.astype(jnp.float16), 0),
        lambda x, n: jnp.exp(x.astype(jnp.float16)), lambda x, n: n + n, lambda x, n: n.sum(),
        lambda x, n: lax.dot(n, n.T, preferred_element_type=jnp.int32),
        lambda x, n: n.astype(jnp.uint8),
    ], x, n, rtol=4e-3, atol=4e-3)  # fmt: skip


def test_random_numbers_are_those_of_jax():
    def program(key, seed):
        first, second = jax.random.split(key)
        folded = jax.random.fold_in(second, seed)
        keys = jax.random.split(jax.random.key(seed), 3)
        return [
            jax.random.uniform(first, (3, 5)), jax.random.normal(second, (7,)),
            jax.random.randint(folded, (6,), -5, 20), jax.random.bernoulli(first, 0.3, (9,)),
            jax.vmap(lambda k: jax.random.bits(k, (2,)))(keys), jax.random.bits(first, (3,),
                                                                                "uint8"),
            jax.random.permutation(first, 6), jax.random.categorical(first, jnp.ones((4, 3))),
        ]  # fmt: skip

    agree(program, np.array([7, 123456789], np.uint32), np.uint32(5), rtol=4e-6)


def test_factorisations():
    x, b = seeded(2, 4, 4), seeded(2, 4, 3)
    L = jnp.linalg
    triangular = jax.scipy.linalg.solve_triangular
    agree([
        lambda x, b: [L.solve(x, b), L.inv(x), L.det(x), tuple(L.slogdet(x))],
        lambda x, b: [L.cholesky(x @ x.mT + jnp.eye(4)), L.eigvalsh(x + x.mT)],
        lambda x, b: [L.svd(b, compute_uv=False), jnp.matmul(*L.qr(b)), jnp.abs(L.qr(b)[1])],
        lambda x, b: [triangular(x[0], b[0]), triangular(x[0], b[0], lower=True, trans=1)],
        lambda x, b: jax.scipy.linalg.cho_solve((L.cholesky(x @ x.mT + jnp.eye(4)), True), b),
        lambda x, b: jax.grad(lambda x: L.solve(x, b).sum())(x),
        lambda x, b: lax.linalg.lu(x),
    ], x, b, rtol=1e-3, atol=1e-3)  # fmt: skip


def test_custom_derivatives_are_called():
    @jax.custom_vjp
    def twice(x):
        return x * 2

    twice.defvjp(lambda x: (twice(x), None), lambda _, g: (g * 3,))

    @jax.custom_jvp
    def thrice(x):
        return x * 3

    thrice.defjvps(lambda t, y, x: t * 5)
    agree([
        lambda x: twice(x) + thrice(x), jax.grad(lambda x: twice(x).sum()),
        jax.grad(lambda x: thrice(x).sum()),
    ], seeded(3))  # fmt: skip
