"""Small networks, loops and training steps in JAX, compiled, against JAX itself."""

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="JAX is an optional extra: pip install 'aotc[jax]'")

import jax.numpy as jnp  # noqa: E402
from jax import lax  # noqa: E402

from tests.importers.jax_agreement import agree, seeded  # noqa: E402

pytestmark = pytest.mark.slow


def mlp(params, x):
    for w, b in params[:-1]:
        x = jax.nn.relu(x @ w + b)
    w, b = params[-1]
    return x @ w + b


def layers(*sizes):
    pairs = zip(sizes[:-1], sizes[1:], strict=True)
    return [(seeded(n, m) / n**0.5, seeded(m) * 0.1) for n, m in pairs]


def test_mlp_and_its_training_step():
    params, x, labels = layers(6, 16, 4), seeded(5, 6), np.array([0, 3, 1, 1, 2], np.int32)

    def loss(params, x, labels):
        scores = jax.nn.log_softmax(mlp(params, x))
        return -jnp.take_along_axis(scores, labels[:, None], 1).mean()

    @jax.jit
    def step(params, x, labels):
        value, slopes = jax.value_and_grad(loss)(params, x, labels)
        return value, jax.tree_util.tree_map(lambda p, g: p - 0.1 * g, params, slopes)

    agree(step, params, x, labels, rtol=1e-5, atol=1e-6)


def conv_net(params, image):
    x = image
    for w in params["convs"]:
        x = lax.conv_general_dilated(x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO",
                                                                              "NHWC"))
        x = jax.nn.relu(x)
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return x.reshape(x.shape[0], -1) @ params["head"]


def test_conv_net_and_its_gradient():
    convs = [seeded(3, 3, 2, 4) * 0.3, seeded(3, 3, 4, 6) * 0.2]
    params = {"convs": convs, "head": seeded(24, 3) * 0.3}
    image = seeded(2, 8, 8, 2)

    def loss(params, image):
        return (conv_net(params, image) ** 2).sum()

    agree([conv_net, jax.grad(loss)], params, image, rtol=1e-4, atol=1e-4)


def test_overlapping_windows_have_gradients():
    def loss(x):
        best = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3), (1, 2, 2), "SAME")
        mean = lax.reduce_window(x, 0.0, lax.add, (1, 3, 2), (1, 1, 2), "VALID")
        return (best**2).sum() + (mean**2).sum()

    agree(jax.grad(loss), seeded(2, 7, 8), rtol=1e-5, atol=1e-5)


def test_attention_with_a_cache():
    def step(cache, place, x, w):
        q, k, v = jnp.split(x @ w, 3, -1)
        cache = {
            "k": lax.dynamic_update_slice(cache["k"], k[None], (place, 0, 0)),
            "v": lax.dynamic_update_slice(cache["v"], v[None], (place, 0, 0)),
        }
        scores = jnp.einsum("bd,tbd->bt", q, cache["k"]) / np.sqrt(4).astype(np.float32)
        scores = jnp.where(jnp.arange(6) <= place, scores, -jnp.inf)
        return jnp.einsum("bt,tbd->bd", jax.nn.softmax(scores), cache["v"]), cache

    cache = {"k": seeded(6, 2, 4), "v": seeded(6, 2, 4)}
    agree(step, cache, np.int32(3), seeded(2, 4), seeded(4, 12), rtol=1e-5, atol=1e-5)


def test_recurrence_by_scan_and_its_gradient():
    def run(w, u, rows):
        def cell(h, x):
            h = jnp.tanh(h @ w + x @ u)
            return h, h.sum()

        last, sums = lax.scan(cell, jnp.zeros((2, 4)), rows)
        return (last**2).sum() + sums.mean()

    def backward(w, u, rows):
        return lax.scan(lambda h, x: (h * 0.5 + x, h), jnp.zeros((2, 3)), rows, reverse=True)

    inputs = seeded(4, 4) * 0.4, seeded(3, 4), seeded(6, 2, 3)
    agree([run, jax.grad(run, (0, 1)), backward], *inputs, rtol=1e-5, atol=1e-5)


def test_conditions_and_loops():
    def program(x, n):
        root = lax.while_loop(lambda y: jnp.abs(y * y - x).max() > 1e-4,
        lambda y: (y + x / y) / 2, x)
        powers = lax.fori_loop(0, n, lambda i, y: y * 1.5 + i, x)
        chosen = lax.switch(n, [lambda x: x, lambda x: -x, lambda x: x * x], x)
        both = lax.cond(x.sum() > n, lambda x: (x, 1), lambda x: (x + 1, 2), x)
        mapped = lax.map(lambda row: row.cumsum(), jnp.stack([x, x + n]))
        return root, powers, chosen, both, mapped

    for n in (0, 1, 7):
        agree(program, seeded(3, low=1, high=3), np.int32(n), rtol=1e-5)


def test_transformer_block():
    def norm(x):
        return (x - x.mean(-1, keepdims=True)) * lax.rsqrt(x.var(-1, keepdims=True) + 1e-5)

    def block(p, x):
        heads = 2
        q, k, v = (y.reshape(*x.shape[:2], heads, -1) for y in jnp.split(norm(x) @ p["qkv"], 3, -1))
        x = x + jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(x.shape) @ p["out"]
        return x + jax.nn.gelu(norm(x) @ p["up"]) @ p["down"]

    params = {"qkv": seeded(8, 24), "out": seeded(8, 8), "up": seeded(8, 16), "down": seeded(16, 8)}
    params = {name: 0.3 * value for name, value in params.items()}
    agree([block, jax.checkpoint(block)], params, seeded(2, 5, 8), rtol=1e-4, atol=1e-4)


def test_hessian_and_forward_mode():
    def f(x):
        return jnp.sin(x).prod() + (x**3).sum()

    agree([jax.hessian(f), jax.jacfwd(jnp.tanh),
    lambda x: jax.jvp(f, (x,), (x,))], seeded(4), rtol=1e-5)


def test_functions_made_of_many_primitives():
    v = seeded(9)

    def root(x):
        return lax.while_loop(lambda t: t < 10, lambda t: t * 2 + 3, x)

    agree([
        lambda x, v: jax.image.resize(x[None, :, :, None], (1, 3, 11, 1), "cubic"),
        lambda x, v: jnp.quantile(x, 0.3, axis=1),
        lambda x, v: jnp.interp(v, jnp.arange(-2.0, 3), jnp.arange(5.0)),
        lambda x, v: jnp.histogram(v, 5, (-2, 2))[0],
        lambda x, v: jnp.unique(jnp.round(v), size=6, fill_value=9),
        lambda x, v: [jnp.nonzero(x > 0, size=5), lax.associative_scan(jnp.add, v)],
        lambda x, v: [jnp.corrcoef(x), jnp.nextafter(v, v + 1), jnp.nextafter(0 * v, -v)],
        lambda x, v: jax.vmap(root)(jnp.abs(v)),
        lambda x, v: jax.vmap(lambda s: lax.cond(s > 0, lambda s: s * 2, lambda s: -s, s))(v),
        lambda x, v: jax.scipy.linalg.expm(x[:4, :4] * 0.1),
        lambda x, v: jax.random.truncated_normal(jax.random.key(3), -1, 1, (4,)),
        lambda x, v: jax.random.choice(jax.random.key(4), v, (3,)),
    ], seeded(4, 6), v, rtol=1e-4, atol=1e-5)  # fmt: skip
