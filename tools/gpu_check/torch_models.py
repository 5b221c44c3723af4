"""The architectures of tools/gpu_check/cases.py in PyTorch, as its users write them: weights in the
order in which they are used, and tensors, in; a module out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class Network(nn.Module):
    """One of ARCHITECTURES with these weights; those of products are [out, in]."""

    def __init__(self, architecture: Mapping[str, Any], weights: Sequence[Tensor]) -> None:
        super().__init__()
        self.architecture = dict(architecture)
        self.weights = nn.ParameterList([nn.Parameter(w, requires_grad=False) for w in weights])

    def forward(self, *inputs: Tensor) -> Tensor:
        take = Taker(list(self.weights))
        return ARCHITECTURES[self.architecture["kind"]](self.architecture, take, *inputs)


class Taker:
    """Gives weights one after the other."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self.weights, self.taken = weights, 0

    def __call__(self) -> Tensor:
        self.taken += 1
        return self.weights[self.taken - 1]

    def linear(self, x: Tensor) -> Tensor:
        return functional.linear(x, self(), self())

    def norm(self, x: Tensor, epsilon: float) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], self(), self(), epsilon)

    def convolution(self, x: Tensor, stride: int, padding: int) -> Tensor:
        return functional.conv2d(x, self(), self(), stride, padding)


def resnet(architecture: Mapping[str, Any], take: Taker, x: Tensor) -> Tensor:
    """Images [n, 3, h, w] to scores [n, classes]; bottlenecks with the stride in the middle."""
    x = functional.relu(take.convolution(x, 2, 3))
    x = functional.max_pool2d(x, 3, 2, 1)
    for stage, blocks in enumerate(architecture["blocks"]):
        for block in range(blocks):
            stride = 2 if stage and block == 0 else 1
            y = functional.relu(take.convolution(x, 1, 0))
            y = functional.relu(take.convolution(y, stride, 1))
            y = take.convolution(y, 1, 0)
            x = functional.relu(y + (take.convolution(x, stride, 0) if block == 0 else x))
    return take.linear(x.mean((2, 3)))


def _attention(q: Tensor, k: Tensor, v: Tensor, heads: int, **more: Any) -> Tensor:
    parts = [t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v)]
    mixed = functional.scaled_dot_product_attention(*parts, **more)
    return mixed.transpose(1, 2).flatten(2)


def encoder(architecture: Mapping[str, Any], take: Taker, ids: Tensor, mask: Tensor) -> Tensor:
    """ids and mask int64 [n, tokens] to [n, tokens, wide]."""
    words, kinds, places = take(), take(), take()
    x = functional.embedding(ids, words) + kinds[0] + places[: ids.shape[1]]
    x = take.norm(x, 1e-12)
    kept = (mask != 0)[:, None, None, :]
    for _ in range(architecture["layers"]):
        q, k, v = take.linear(x), take.linear(x), take.linear(x)
        mixed = _attention(q, k, v, architecture["heads"], attn_mask=kept)
        x = take.norm(x + take.linear(mixed), 1e-12)
        x = take.norm(x + take.linear(functional.gelu(take.linear(x))), 1e-12)
    return x


def vit(architecture: Mapping[str, Any], take: Taker, x: Tensor) -> Tensor:
    """Images [n, 3, h, w] to scores [n, classes]."""
    weight, bias = take(), take()
    patches = functional.conv2d(x, weight, bias, weight.shape[-1]).flatten(2).transpose(1, 2)
    first = take().expand(x.shape[0], -1, -1)
    x = torch.cat((first, patches), 1) + take()
    for _ in range(architecture["layers"]):
        y = take.norm(x, 1e-12)
        q, k, v = take.linear(y), take.linear(y), take.linear(y)
        x = x + take.linear(_attention(q, k, v, architecture["heads"]))
        x = x + take.linear(functional.gelu(take.linear(take.norm(x, 1e-12))))
    return take.linear(take.norm(x, 1e-12)[:, 0])


def decoder(architecture: Mapping[str, Any], take: Taker, ids: Tensor) -> Tensor:
    """ids int64 [n, tokens] to the scores of the next word, [n, words]."""
    x = functional.embedding(ids, take()) + take()
    for _ in range(architecture["layers"]):
        q, k, v = take.linear(take.norm(x, 1e-5)).chunk(3, -1)
        x = x + take.linear(_attention(q, k, v, architecture["heads"], is_causal=True))
        inner = functional.gelu(take.linear(take.norm(x, 1e-5)), approximate="tanh")
        x = x + take.linear(inner)
    return functional.linear(take.norm(x, 1e-5)[:, -1], take())


ARCHITECTURES: Mapping[str, Callable[..., Tensor]] = {
    "resnet": resnet, "encoder": encoder, "vit": vit, "decoder": decoder
}  # fmt: skip
