"""Explicit padding: the value, the axes, and that nothing else changes."""

import numpy as np
import pytest
from pass_graphs import assert_same_values, count, f32, shown

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.types import DType, TensorType
from aotc.passes.explicit_pad import explicit_pad


def padded(op, type_, *more):
    b = Builder()
    x = b.parameter("x", type_)
    graph = b.finish("g", [("y", b.apply(op, x, *(b.constant(each) for each in more)))])
    after = explicit_pad(graph)
    assert_same_values(graph, after)
    return after


@pytest.mark.parametrize("last", [False, True])
def test_conv(last):
    w = np.ones((2, 3, 3, 2), np.float32)
    op = ops.Conv((1, 2), (1, 0), (2, 1), (1, 1), 1, last)
    after = padded(op, f32(1, 4, 5, 3) if last else f32(1, 3, 4, 5), w)
    conv = after.outputs[0][1]
    assert conv.op == ops.Conv((1, 2), (0, 0), (0, 0), (1, 1), 1, last)
    low, high = ((0, 1, 0, 0), (0, 2, 1, 0)) if last else ((0, 0, 1, 0), (0, 0, 2, 1))
    assert conv.inputs[0].op == ops.Pad(low, high, 0.0)


@pytest.mark.parametrize(
    ("fn", "dtype", "value"),
    [
        ("sum", DType.F32, 0.0),
        ("max", DType.F32, float("-inf")),
        ("max", DType.I8, -128.0),
        ("max", DType.U8, 0.0),
        ("max", DType.I64, float(-(2**63))),
    ],
)
def test_windows(fn, dtype, value):
    op = ops.ReduceWindow(fn, (1, 3), (1, 2), (0, 1), (0, 2), (1, 1))
    after = padded(op, TensorType(dtype, (2, 4)))
    assert after.outputs[0][1].inputs[0].op == ops.Pad((0, 1), (0, 2), value)


def test_without_padding_nothing_changes():
    op = ops.ReduceWindow("max", (1, 2), (1, 2), (0, 0), (0, 0), (1, 1))
    after = padded(op, f32(2, 4))
    assert shown(after) == ["reducewindow(x)"] and count(after, ops.Pad) == 0


@pytest.mark.parametrize("cast", [False, True])
def test_what_no_window_reaches_is_not_padded(cast):
    """Two rows of three are left over by one reader, one row by the other."""
    b = Builder()
    x = b.parameter("x", TensorType(DType.U8, (1, 7, 5, 1)) if cast else f32(1, 7, 5, 1))
    padded = b.apply(ops.Pad((0, 1, 1, 0), (0, 3, 1, 0), 2.0), x)
    operand = b.cast(padded, DType.I32) if cast else padded
    weights = b.constant(np.ones((2, 1, 3, 3), np.int32 if cast else np.float32))
    conv = ops.Conv((3, 2), (0, 0), (0, 0), (1, 1), 1, True)
    window = ops.ReduceWindow("max", (1, 2, 2, 1), (1, 2, 1, 1), (0,) * 4, (0,) * 4, (1,) * 4)
    for readers, high in (([conv], 1), ([conv, window], 2)):
        made = [
            b.apply(op, operand, weights) if op is conv else b.apply(op, padded) for op in readers
        ]
        graph = b.finish("g", [(f"y{i}", node) for i, node in enumerate(made)])
        after = explicit_pad(graph)
        assert_same_values(graph, after)
        (pad,) = {node.op for node in after.nodes() if isinstance(node.op, ops.Pad)}
        assert pad.high == (0, high, 1, 0)


def test_an_output_keeps_all_its_padding():
    b = Builder()
    padded = b.apply(ops.Pad((0, 0), (0, 3), 0.0), b.parameter("x", f32(2, 4)))
    window = ops.ReduceWindow("max", (1, 2), (1, 3), (0, 0), (0, 0), (1, 1))
    graph = b.finish("g", [("y", b.apply(window, padded)), ("p", padded)])
    assert [type_.shape for _, type_ in explicit_pad(graph).outputs] == [(2, 2), (2, 7)]
