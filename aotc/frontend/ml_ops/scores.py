"""What follows the scores of ONNX's classical models: transforms of scores, and class labels.

The formulas are those of the operator pages of ONNX (docs/Operators-ml.md); where they leave a
choice, the one that ONNX Runtime takes.
"""

from __future__ import annotations

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.onnx_ops.call import Call
from aotc.frontend.values import Text, Value
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType

TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
"""The transforms of scores, in the order in which TreeEnsemble numbers them."""


def rows_of(call: Call) -> Node:
    """Input 0 as rows of features [N, F]; one row when it has a single axis."""
    x = call[0]
    if x.type.rank == 1:
        return call.reshape(x, (1, *x.shape))
    if x.type.rank != 2:
        raise ModelError(f"{call.operator} takes rows of features, got {x.type}")
    return x


def float_rows(call: Call) -> Node:
    """`rows_of` as f32."""
    return call.cast(rows_of(call), DType.F32)


def optional_reals(call: Call, name: str) -> tuple[float, ...]:
    """The attribute ``name``, a list of floats; empty when it is missing."""
    return call.attrs.reals(name) if name in call.attrs else ()


def transform_named(call: Call) -> str:
    """The attribute ``post_transform``."""
    name = call.attrs.string("post_transform", "NONE")
    if name not in TRANSFORMS:
        raise ModelError(f"post_transform is '{name}', not one of {', '.join(TRANSFORMS)}")
    return name


def transformed(call: Call, scores: Node, name: str) -> Node:
    """The transform called ``name`` of the scores on the last axis."""
    match name:
        case "SOFTMAX":
            return _softmax(call, scores)
        case "SOFTMAX_ZERO":
            return _softmax_zero(call, scores)
        case "LOGISTIC":
            return logistic(call, scores)
        case "PROBIT":
            return probit(call, scores)
    return scores


def logistic(call: Call, x: Node) -> Node:
    """1 / (1 + exp(-x))."""
    return call.unary("sigmoid", x)


def probit(call: Call, x: Node) -> Node:
    """sqrt(2) erfinv(2x - 1) with Winitzki's approximation of erfinv (a = 0.147)."""
    twice = call.binary("sub", call.binary("mul", x, 2.0), 1.0)
    minus, plus = call.binary("sub", call.scalar(1.0, x), twice), call.binary("add", twice, 1.0)
    log = call.unary("log", call.binary("mul", minus, plus))
    half = call.binary("add", call.binary("mul", log, 0.5), 2.0 / (3.14159 * 0.147))
    rest = call.binary("mul", log, 1.0 / 0.147)
    root = call.unary("sqrt", call.binary("sub", call.binary("mul", half, half), rest))
    size = call.unary("sqrt", call.binary("sub", root, half))
    negative = call.compare("lt", twice, 0.0)
    signed = call.select(negative, call.unary("neg", size), size)
    return call.binary("mul", signed, 1.41421356)


def _softmax(call: Call, x: Node) -> Node:
    shifted = call.binary("sub", x, call.reduce("max", x, (-1,)))
    powers = call.unary("exp", shifted)
    return call.binary("div", powers, call.reduce("sum", powers, (-1,)))


def _softmax_zero(call: Call, x: Node) -> Node:
    """Softmax over the scores that are not about zero; the others stay about zero."""
    most = call.reduce("max", x, (-1,))
    counts = call.compare("gt", call.unary("abs", x), 1e-7)
    powers = call.unary("exp", call.binary("sub", x, most))
    kept = call.select(counts, powers, call.scalar(0.0, x))
    small = call.binary("mul", x, call.unary("exp", call.unary("neg", most)))
    total = call.reduce("sum", kept, (-1,))
    return call.binary("div", call.select(counts, powers, small), total)


def two_scores(call: Call, score: Node, name: str, probability: bool) -> Node:
    """The two columns that a single score [N, 1] of a binary classifier becomes: the probability of
    the second class, or else a margin whose sign decides."""
    if name == "LOGISTIC":
        return logistic(call, call.concat([call.unary("neg", score), score], 1))
    if probability:
        return call.concat([call.binary("sub", call.scalar(1.0, score), score), score], 1)
    return call.concat([call.unary("neg", score), score], 1)


def first_largest(call: Call, scores: Node) -> Node:
    """The place of the largest score on the last axis, the first of equal ones (i64)."""
    return call.apply(ops.ArgReduce("max", scores.type.rank - 1, False), scores)


class Labels:
    """The labels of the classes, numbers or text."""

    def __init__(self, call: Call, numbers: str, texts: str = "classlabels_strings") -> None:
        self.call = call
        self.texts = call.attrs.strings(texts) or ()
        self.numbers = call.attrs.integers(numbers, ()) or ()
        if not self.texts and not self.numbers:
            raise ModelError(
                f"has neither {numbers} nor {texts}", remedy="export the model again"
            )

    @property
    def count(self) -> int:
        """How many classes there are."""
        return len(self.texts or self.numbers)

    def of(self, places: Node) -> Value:
        """The labels of the classes numbered by ``places`` (i64)."""
        if self.texts:
            return gather_text(self.call, self.texts, places)
        return gather_numbers(self.call, np.array(self.numbers, np.int64), places)

    def either(self, second: Node, bare: bool = False) -> Value:
        """The label of the second class where ``second`` (bool) holds, else that of the first;
        numbers are 1 and 0 when there are not two, or when ``bare``."""
        if self.texts:
            if self.count < 2:
                raise ModelError("a classifier of two classes has one label")
            return gather_text(self.call, self.texts, self.call.cast(second, DType.I64))
        if bare or self.count < 2:
            return self.call.cast(second, DType.I64)
        one, two = (self.call.constant(np.asarray(label)) for label in self.numbers[:2])
        return self.call.select(second, two, one)


def gather_numbers(call: Call, values: np.ndarray, places: Node) -> Node:
    """``values[places]``."""
    if np.array_equal(values, np.arange(values.size)):
        return places
    return call.apply(ops.Gather(0), call.constant(values), places)


def gather_text(call: Call, texts: tuple[str, ...], places: Node) -> Text:
    """``texts[places]``."""
    return Text(call.apply(ops.Gather(0), call.constant(text_table(texts)), places))


def text_table(texts: tuple[str, ...]) -> np.ndarray:
    """The UTF-8 bytes of each text, padded with NUL (u8[count, width])."""
    encoded = [text.encode() for text in texts]
    table = np.zeros((len(texts), max(1, *map(len, encoded))), np.uint8)
    for row, content in zip(table, encoded, strict=True):
        row[: len(content)] = np.frombuffer(content, np.uint8)
    return table
