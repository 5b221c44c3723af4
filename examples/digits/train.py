#!/usr/bin/env python3
"""scikit-learn's handwritten digits in; digits.onnx, a trained network, and test_digits.h out.

    pip install scikit-learn
    examples/digits/train.py

The network (two convolutions, a maximum pool, one dense layer; 9930 weights) is trained with numpy
alone. One digit in five is never trained on; a few of those go into test_digits.h for main.c to
show. Both results are kept in git, so that nobody needs to run this.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

HERE = Path(__file__).resolve().parent
EPOCHS, BATCH, RATE = 30, 32, 2e-3
Arrays = dict[str, np.ndarray]


def make_weights(random: np.random.Generator) -> Arrays:
    """He-initialised weights of the network."""

    def draw(*dims: int) -> np.ndarray:
        return random.standard_normal(dims) * np.sqrt(2 / np.prod(dims[1:]))

    return {
        "w1": draw(16, 1, 3, 3),
        "b1": np.zeros(16),
        "w2": draw(32, 16, 3, 3),
        "b2": np.zeros(32),
        "w3": draw(10, 512),
        "b3": np.zeros(10),
    }


def patches(x: np.ndarray) -> np.ndarray:
    """[N, C, 8, 8] -> [N, 64, C*9]: the 3x3 neighbourhood of each pixel, zeros around the image."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return windows.transpose(0, 2, 3, 1, 4, 5).reshape(len(x), 64, -1)


def convolve(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """3x3 convolution and ReLU; also the patches, for the gradient."""
    columns = patches(x)
    y = np.maximum(columns @ w.reshape(len(w), -1).T + b, 0)
    return y.transpose(0, 2, 1).reshape(len(x), len(w), 8, 8), columns


def forward(x: np.ndarray, p: Arrays) -> tuple[np.ndarray, Arrays]:
    """Class probabilities of images [N, 1, 8, 8], and what the gradient needs."""
    h1, columns1 = convolve(x, p["w1"], p["b1"])
    h2, columns2 = convolve(h1, p["w2"], p["b2"])
    blocks = h2.reshape(len(x), 32, 4, 2, 4, 2)
    pooled = blocks.max(axis=(3, 5))
    flat = pooled.reshape(len(x), -1)
    scores = flat @ p["w3"].T + p["b3"]
    scores -= scores.max(axis=1, keepdims=True)
    result = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return result, {
        "h1": h1, "h2": h2, "c1": columns1, "c2": columns2, "pooled": pooled, "flat": flat
    }  # fmt: skip


def gradients(x: np.ndarray, labels: np.ndarray, p: Arrays) -> Arrays:
    """The gradient of the mean cross-entropy for every weight."""
    count = len(x)
    probabilities, kept = forward(x, p)
    d = (probabilities - np.eye(10)[labels]) / count
    g = {"w3": d.T @ kept["flat"], "b3": d.sum(axis=0)}
    d = (d @ p["w3"]).reshape(count, 32, 4, 1, 4, 1)
    blocks = kept["h2"].reshape(count, 32, 4, 2, 4, 2)
    chosen = (blocks == kept["pooled"].reshape(count, 32, 4, 1, 4, 1)) & (blocks > 0)
    d = np.where(chosen, d, 0).reshape(count, 32, 64)
    g["w2"] = np.einsum("noi,nik->ok", d, kept["c2"]).reshape(p["w2"].shape)
    g["b2"] = d.sum(axis=(0, 2))
    # The gradient of a convolution's input is a convolution with the weights turned by 180 degrees.
    turned = p["w2"][:, :, ::-1, ::-1].transpose(1, 0, 2, 3).reshape(16, -1)
    d = patches(d.reshape(count, 32, 8, 8)) @ turned.T
    d = np.where(kept["h1"] > 0, d.transpose(0, 2, 1).reshape(kept["h1"].shape), 0)
    d = d.reshape(count, 16, 64)
    g["w1"] = np.einsum("noi,nik->ok", d, kept["c1"]).reshape(p["w1"].shape)
    g["b1"] = d.sum(axis=(0, 2))
    return g


def train(x: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> Arrays:
    """Adam with a rate that falls to zero."""
    p = make_weights(random)
    mean = {name: np.zeros_like(w) for name, w in p.items()}
    square = {name: np.zeros_like(w) for name, w in p.items()}
    batches = len(x) // BATCH
    for step in range(EPOCHS * batches):
        if step % batches == 0:
            order = random.permutation(len(x))[: batches * BATCH].reshape(batches, BATCH)
        batch = order[step % batches]
        rate = RATE * (1 - step / (EPOCHS * batches))
        for name, g in gradients(x[batch], labels[batch], p).items():
            mean[name] += 0.1 * (g - mean[name])
            square[name] += 0.001 * (g * g - square[name])
            scale = np.sqrt(square[name] / (1 - 0.999 ** (step + 1))) + 1e-8
            p[name] = p[name] - rate * mean[name] / (1 - 0.9 ** (step + 1)) / scale
    return p


def save_model(p: Arrays, path: Path) -> None:
    """The network as ONNX: pixels 0 to 16 in, probabilities of the ten digits out."""
    node = helper.make_node
    nodes = [
        node("Div", ["image", "white"], ["scaled"]),
        node("Conv", ["scaled", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["h1"]),
        node("Conv", ["h1", "w2", "b2"], ["c2"], pads=[1, 1, 1, 1]),
        node("Relu", ["c2"], ["h2"]),
        node("MaxPool", ["h2"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["pooled"], ["flat"]),
        node("Gemm", ["flat", "w3", "b3"], ["scores"], transB=1),
        node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    weights = {"white": np.array(16.0), **p}
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, 8, 8])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [1, 10])],
        [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, producer_name="examples/digits/train.py")
    model.ir_version = 8
    onnx.checker.check_model(model)
    onnx.save(model, path)


def save_header(images: np.ndarray, labels: np.ndarray, path: Path) -> None:
    """The first test image of each digit as C arrays."""
    first = [int(np.flatnonzero(labels == digit)[0]) for digit in range(10)]
    lines = [
        "/* Ten digits that the network was not trained on; written by train.py. */",
        f"#define TEST_DIGITS {len(first)}",
        f"static const int test_labels[TEST_DIGITS] = {{{', '.join(map(str, labels[first]))}}};",
        "static const unsigned char test_images[TEST_DIGITS][64] = {",
    ]
    for index in first:
        rows = images[index].reshape(8, 8).astype(int)
        text = ",\n     ".join(", ".join(f"{pixel:2}" for pixel in row) for row in rows)
        lines.append(f"    {{{text}}},")
    path.write_text("\n".join([*lines, "};"]) + "\n")


def main() -> None:
    """Trains, reports the accuracy on the digits left out, and writes both files."""
    data = load_digits()
    random = np.random.default_rng(0)
    images, labels = data.images.reshape(-1, 1, 8, 8), data.target
    test = random.permutation(len(images)) % 5 == 0
    weights = train(images[~test] / 16, labels[~test], random)
    weights = {name: w.astype(np.float32) for name, w in weights.items()}
    guesses = forward(images[test] / 16, weights)[0].argmax(axis=1)
    accuracy = np.mean(guesses == labels[test])
    print(f"{accuracy:.2%} of {test.sum()} test digits are recognised")
    save_model(weights, HERE / "digits.onnx")
    save_header(images[test], labels[test], HERE / "test_digits.h")


if __name__ == "__main__":
    main()
