#!/usr/bin/env python3
"""scikit-learn's handwritten digits in; one object with a training step and a classifier, its
header, and a header with the digits and the first weights out.

    training.py FOLDER

The network is that of examples/digits: two convolutions, a maximum pool, one dense layer. All of it
is numpy and also runs as it is, on arrays, which is what `train` does to compare.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

import aotc

BATCH, SIDE, KINDS = 32, 8, 10
RATE, SLOW, SLOWER, TINY = 2e-3, 0.9, 0.999, 1e-8
"""Of Adam: the step, how slowly its two means move, and what keeps a division finite."""
SHAPES = {"w1": (9, 16), "b1": (16,), "w2": (144, 32), "b2": (32,), "w3": (512, 10), "b3": (10,)}
WEIGHTS = sum(int(np.prod(shape)) for shape in SHAPES.values())
Weights = dict[str, Any]
State = dict[str, Any]


def unpack(flat: Any) -> Weights:
    """The weights by name, views of a vector of all of them."""
    parts, start = {}, 0
    for name, shape in SHAPES.items():
        count = int(np.prod(shape))
        parts[name] = flat[start : start + count].reshape(shape)
        start += count
    return parts


def pack(weights: Weights) -> Any:
    """All of them in one vector."""
    return np.concatenate([weights[name].reshape(-1) for name in SHAPES])


def convolve(x: Any, w: Any, b: Any) -> Any:
    """3x3 convolution of [N, 8, 8, C] with zeros around the image, and ReLU."""
    wide = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [wide[:, i : i + SIDE, j : j + SIDE] for i in range(3) for j in range(3)]
    return np.maximum(np.concatenate(shifted, axis=-1) @ w + b, 0)


def scores(p: Weights, images: Any) -> Any:
    """The score of each kind [N, 10] for images [N, 64] of pixels from 0 to 16."""
    x = images.reshape(-1, SIDE, SIDE, 1) / np.float32(16)
    h = convolve(convolve(x, p["w1"], p["b1"]), p["w2"], p["b2"])
    pooled = h.reshape(-1, SIDE // 2, 2, SIDE // 2, 2, 32).max(axis=(2, 4))
    return pooled.reshape(-1, 512) @ p["w3"] + p["b3"]


def loss(p: Weights, images: Any, labels: Any) -> Any:
    """The mean cross-entropy of a batch."""
    found = scores(p, images)
    found = found - aotc.stop_gradient(found.max(axis=1, keepdims=True))
    own = np.where(labels[:, None] == np.arange(KINDS), found, 0).sum(axis=1)
    return np.mean(np.log(np.exp(found).sum(axis=1)) - own)


def step(state: State, images: Any, labels: Any) -> tuple[State, Any]:
    """One step of Adam on one batch: the state after it, and the loss before it."""
    value, slopes = aotc.value_and_grad(loss)(unpack(state["weights"]), images, labels)
    slope, count = pack(slopes), state["count"] + 1
    mean = SLOW * state["mean"] + (1 - SLOW) * slope
    square = SLOWER * state["square"] + (1 - SLOWER) * slope * slope
    ahead = mean / (1 - np.float32(SLOW) ** count)
    size = np.sqrt(square / (1 - np.float32(SLOWER) ** count)) + TINY
    weights = state["weights"] - RATE * ahead / size
    return {"weights": weights, "mean": mean, "square": square, "count": count}, value


def classify(learned: Any, image: Any) -> Any:
    """The digits that images [N, 64] show."""
    return np.argmax(scores(unpack(learned), image), axis=1)


def first_state() -> State:
    """He-initialised weights; nothing is known of the slopes yet."""
    random = np.random.default_rng(0)
    drawn = {
        name: random.standard_normal(shape) * np.sqrt(2 / shape[0]) * (len(shape) > 1)
        for name, shape in SHAPES.items()
    }
    zeros = np.zeros(WEIGHTS, np.float32)
    return {"weights": pack(drawn).astype(np.float32), "mean": zeros, "square": zeros,
            "count": np.float32(0)}  # fmt: skip


def digits() -> tuple[np.ndarray, ...]:
    """Images and labels to learn from, then those to test with: one in five."""
    data = load_digits()
    images = data.images.reshape(-1, SIDE * SIDE).astype(np.uint8)
    test = np.random.default_rng(0).permutation(len(images)) % 5 == 0
    labels = data.target.astype(np.int32)
    return images[~test], labels[~test], images[test], labels[test]


class Shuffle:
    """The order of the images in an epoch, drawn as main.c draws it (a linear congruential
    generator, modulus 2^32, the numbers of Numerical Recipes)."""

    def __init__(self, count: int) -> None:
        self.order = np.arange(count)
        self.seed = 1

    def __call__(self) -> np.ndarray:
        for i in range(len(self.order) - 1, 0, -1):
            self.seed = (1664525 * self.seed + 1013904223) % 2**32
            j = (self.seed >> 8) % (i + 1)
            self.order[[i, j]] = self.order[[j, i]]
        return self.order


def train(epochs: int) -> list[float]:
    """What the C program does, in numpy: the accuracy after each epoch."""
    images, labels, test_images, test_labels = digits()
    state, shuffle, found = first_state(), Shuffle(len(images)), []
    for _ in range(epochs):
        order = shuffle()
        for first in range(0, len(order) - BATCH + 1, BATCH):
            batch = order[first : first + BATCH]
            state, _ = step(state, images[batch], labels[batch])
        found.append(float(np.mean(classify(state["weights"], test_images) == test_labels)))
    return found


def header() -> str:
    """The digits and the first weights as C arrays."""
    images, labels, test_images, test_labels = digits()
    lines = ["/* Written by training.py. */"]
    for name, pixels, kinds in (("train", images, labels), ("test", test_images, test_labels)):
        lines.append(f"enum {{ {name.upper()}_DIGITS = {len(pixels)} }};")
        rows = ",\n".join("{" + ",".join(map(str, row)) + "}" for row in pixels)
        lines.append(f"static const unsigned char {name}_images[][64] = {{\n{rows}}};")
        lines.append(f"static const int {name}_labels[] = {{{','.join(map(str, kinds))}}};")
    values = ",\n".join(f"{value.hex()}f" for value in map(float, first_state()["weights"]))
    lines.append(f"static const float first_weights[] = {{\n{values}}};")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes everything into the folder given as the only argument."""
    folder = Path(sys.argv[1])
    batch = aotc.spec((BATCH, SIDE * SIDE), "uint8"), aotc.spec(BATCH, "int32")
    whole = aotc.stateful(step, first_state()).trace(*batch, name="train")
    one = aotc.trace(classify, aotc.spec(WEIGHTS), aotc.spec((1, SIDE * SIDE), "uint8"))
    aotc.compile_together([whole, one], name="trainer").save(folder)
    (folder / "digits.h").write_text(header())


if __name__ == "__main__":
    main()
