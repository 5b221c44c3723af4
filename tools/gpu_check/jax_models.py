"""The architectures of tools/gpu_check/cases.py in JAX: weights in the order in which they are
used, and arrays, in; arrays out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax import lax
from jax import numpy as jnp

Array = jax.Array


def network(architecture: Mapping[str, Any]) -> Callable[..., Array]:
    """A function of a list of weights, those of products [out, in], and the inputs; images are
    [n, h, w, 3]."""
    function = ARCHITECTURES[architecture["kind"]]

    def run(weights: Sequence[Array], *inputs: Array) -> Array:
        return function(architecture, Taker(weights), *inputs)

    return run


class Taker:
    """Gives weights one after the other."""

    def __init__(self, weights: Sequence[Array]) -> None:
        self.weights, self.taken = weights, 0

    def __call__(self) -> Array:
        self.taken += 1
        return self.weights[self.taken - 1]

    def linear(self, x: Array) -> Array:
        return x @ self().T + self()

    def norm(self, x: Array, epsilon: float) -> Array:
        """In float32, as the other frameworks do it."""
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        centred = wide - wide.mean(-1, keepdims=True)
        scaled = centred * lax.rsqrt((centred * centred).mean(-1, keepdims=True) + epsilon)
        return (scaled * self() + self()).astype(x.dtype)

    def convolution(self, x: Array, stride: int, padding: int) -> Array:
        names = ("NHWC", "OIHW", "NHWC")
        around = [(padding, padding)] * 2
        y = lax.conv_general_dilated(x, self(), (stride,) * 2, around, dimension_numbers=names)
        return y + self()


def resnet(architecture: Mapping[str, Any], take: Taker, x: Array) -> Array:
    """Images [n, h, w, 3] to scores [n, classes]; bottlenecks with the stride in the middle."""
    x = jax.nn.relu(take.convolution(x, 2, 3))
    lowest = jnp.array(-jnp.inf, x.dtype)
    around = ((0, 0), (1, 1), (1, 1), (0, 0))
    x = lax.reduce_window(x, lowest, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), around)
    for stage, blocks in enumerate(architecture["blocks"]):
        for block in range(blocks):
            stride = 2 if stage and block == 0 else 1
            y = jax.nn.relu(take.convolution(x, 1, 0))
            y = jax.nn.relu(take.convolution(y, stride, 1))
            y = take.convolution(y, 1, 0)
            x = jax.nn.relu(y + (take.convolution(x, stride, 0) if block == 0 else x))
    return take.linear(x.mean((1, 2)))


def _attention(q: Array, k: Array, v: Array, heads: int, **more: Any) -> Array:
    parts = [t.reshape(*t.shape[:2], heads, -1) for t in (q, k, v)]
    return jax.nn.dot_product_attention(*parts, **more).reshape(q.shape)


def encoder(architecture: Mapping[str, Any], take: Taker, ids: Array, mask: Array) -> Array:
    """ids and mask [n, tokens] to [n, tokens, wide]."""
    words, kinds, places = take(), take(), take()
    x = take.norm(words[ids] + kinds[0] + places[: ids.shape[1]], 1e-12)
    kept = (mask != 0)[:, None, None, :]
    for _ in range(architecture["layers"]):
        q, k, v = take.linear(x), take.linear(x), take.linear(x)
        x = take.norm(x + take.linear(_attention(q, k, v, architecture["heads"], mask=kept)), 1e-12)
        inner = jax.nn.gelu(take.linear(x), approximate=False)
        x = take.norm(x + take.linear(inner), 1e-12)
    return x


def vit(architecture: Mapping[str, Any], take: Taker, x: Array) -> Array:
    """Images [n, h, w, 3] to scores [n, classes]."""
    patches = take.convolution(x, take.weights[take.taken].shape[-1], 0)
    patches = patches.reshape(len(x), -1, patches.shape[-1])
    first = take()
    x = jnp.concatenate((jnp.broadcast_to(first, (len(x), *first.shape[1:])), patches), 1) + take()
    for _ in range(architecture["layers"]):
        y = take.norm(x, 1e-12)
        q, k, v = take.linear(y), take.linear(y), take.linear(y)
        x = x + take.linear(_attention(q, k, v, architecture["heads"]))
        inner = jax.nn.gelu(take.linear(take.norm(x, 1e-12)), approximate=False)
        x = x + take.linear(inner)
    return take.linear(take.norm(x, 1e-12)[:, 0])


def decoder(architecture: Mapping[str, Any], take: Taker, ids: Array) -> Array:
    """ids [n, tokens] to the scores of the next word, [n, words]."""
    x = take()[ids] + take()
    for _ in range(architecture["layers"]):
        q, k, v = jnp.split(take.linear(take.norm(x, 1e-5)), 3, -1)
        x = x + take.linear(_attention(q, k, v, architecture["heads"], is_causal=True))
        inner = jax.nn.gelu(take.linear(take.norm(x, 1e-5)), approximate=True)
        x = x + take.linear(inner)
    return take.norm(x, 1e-5)[:, -1] @ take().T


ARCHITECTURES: Mapping[str, Callable[..., Array]] = {
    "resnet": resnet, "encoder": encoder, "vit": vit, "decoder": decoder
}  # fmt: skip
