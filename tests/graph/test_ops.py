"""Every primitive: its numpy meaning has the type that its rule gives; bad operands are refused."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from graph_cases import APPLICATIONS, random_values
from hypothesis import given, settings
from hypothesis import strategies as st

from aotc.graph import ops
from aotc.graph.ir import Op
from aotc.graph.types import DType, TensorType, TupleType


def test_every_primitive_has_a_case() -> None:
    assert list(APPLICATIONS) == list(ops.PRIMITIVES)


@pytest.mark.parametrize("kind", APPLICATIONS, ids=lambda kind: kind.__name__)
def test_evaluate_gives_the_inferred_type_quietly(kind: type[Op]) -> None:
    @settings(max_examples=25, deadline=None)
    @given(APPLICATIONS[kind](), st.integers(0, 99))
    def check(application: tuple[Op, tuple[TensorType, ...]], seed: int) -> None:
        op, types = application
        operands = [random_values(type_, seed + i) for i, type_ in enumerate(types)]
        before = [array.tobytes() for array in flat(operands)]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            result = op.evaluate(*operands)
        inferred = op.infer(*types)
        wanted = inferred.items if isinstance(inferred, TupleType) else (inferred,)
        for array, type_ in zip(flat([result]), wanted, strict=True):
            assert isinstance(array, np.ndarray)
            assert (DType.of(array), array.shape) == (type_.dtype, type_.shape)
        assert [array.tobytes() for array in flat(operands)] == before

    check()


def flat(values: list) -> list[np.ndarray]:
    """The arrays among ``values``, tuples taken apart."""
    return [x for value in values for x in (value if isinstance(value, tuple) else [value])]


def f32(*shape: int) -> TensorType:
    return TensorType(DType.F32, shape)


def i64(*shape: int) -> TensorType:
    return TensorType(DType.I64, shape)


ONES = (1, 1)
NONE = (0, 0)
BOOL = TensorType(DType.BOOL, (2,))


@pytest.mark.parametrize(
    ("op", "operands", "sentence"),
    [
        (ops.Unary("cube"), [f32(2)], "no function 'cube'"),
        (ops.Unary("exp"), [i64(2)], "'exp' needs floats"),
        (ops.Unary("not"), [f32(2)], "'not' needs bool"),
        (ops.Unary("bitnot"), [f32(2)], "needs integers"),
        (ops.Unary("exp"), [f32(2), f32(2)], "takes 1 operands, got 2"),
        (ops.Binary("add"), [f32(2), f32(3)], "different shapes"),
        (ops.Binary("add"), [f32(2), i64(2)], "different element types"),
        (ops.Binary("add"), [BOOL, BOOL], "needs numbers"),
        (ops.Binary("and"), [f32(2), f32(2)], "needs bool or integers"),
        (ops.Binary("shl"), [f32(2), f32(2)], "needs integers"),
        (ops.Compare("lt"), [BOOL, BOOL], "needs numbers"),
        (ops.Compare("approx"), [f32(2), f32(2)], "no function"),
        (ops.Select(), [f32(2), f32(2), f32(2)], "must be bool"),
        (ops.Select(), [BOOL, f32(3), f32(3)], "differ in shape"),
        (ops.Broadcast((3, 4)), [f32(2, 4)], "does not stretch"),
        (ops.Broadcast((3, 4)), [f32(4)], "2 entries for 1 axes"),
        (ops.Broadcast((-3,)), [f32(1)], "negative size"),
        (ops.Broadcast((2**30, 2**30)), [f32(1, 1)], f"asks for {2**60} elements"),
        (ops.Reshape((5,)), [f32(2, 3)], "has 6 elements"),
        (ops.Reshape((-1, 6)), [f32(2, 3)], "negative size"),
        (ops.Transpose((0, 0)), [f32(2, 3)], "not a permutation"),
        (ops.Transpose((1, 0)), [f32(2)], "not a permutation"),
        (ops.Slice((0,), (1,), (0,)), [f32(2)], "step of axis 0 is 0"),
        (ops.Slice((1,), (2,), (1,)), [f32(2)], "outside"),
        (ops.Slice((0,), (2,), (-1,)), [f32(2)], "outside"),
        (ops.Slice((0,), (-1,), (1,)), [f32(2)], "negative"),
        (ops.Pad((-1,), (0,), 0.0), [f32(2)], "must not be negative"),
        (ops.Pad((0,), (1,), 0.5), [i64(2)], "cannot hold"),
        (ops.Pad((0,), (1,), -math.inf), [i64(2)], "cannot hold"),
        (ops.Pad((0,), (2**41,), 0.0), [f32(2)], "asks for"),
        (ops.Concat(0), [], "at least one"),
        (ops.Concat(0), [f32(2, 3), f32(2, 4)], "differ beside axis 0"),
        (ops.Concat(2), [f32(2, 3)], "axis 2 is outside"),
        (ops.Gather(0), [f32(2), f32(2)], "needs integers"),
        (ops.Gather(-1), [f32(2), i64(2)], "axis -1 is outside"),
        (ops.Gather(0), [f32(0), i64(2)], "nothing to index"),
        (ops.GatherElements(0), [f32(2, 2), i64(5, 3)], "reach beyond"),
        (ops.GatherElements(0), [f32(2, 2), i64(5)], "differ in rank"),
        (ops.GatherND(0), [f32(2, 2), i64(4, 3)], "address 3 axes"),
        (ops.GatherND(1), [f32(2, 2), i64(3, 1)], "differ in the first 1 axes"),
        (ops.GatherND(0), [f32(2, 2), f32(4, 1)], "must be int64"),
        (ops.ScatterND("set"), [f32(2, 3), i64(4, 1), f32(4, 2)], "updates must be"),
        (ops.ScatterND("swap"), [f32(2), i64(1, 1), f32(1)], "no function"),
        (ops.ScatterElements(0, "set"), [f32(2), i64(1), i64(1)], "updates must be"),
        (ops.Iota((3,), 1, DType.I64), [], "axis 1 is outside"),
        (ops.Iota((2**31, 2**31), 1, DType.I64), [], "asks for"),
        (ops.Iota((3,), 0, DType.BOOL), [], "not in bool"),
        (ops.Reduce("sum", (2,)), [f32(2, 3)], "axis 2 is outside"),
        (ops.Reduce("sum", (1, 0)), [f32(2, 3)], "not sorted"),
        (ops.Reduce("max", (0,)), [f32(0, 3)], "has no value"),
        (ops.Reduce("and", (0,)), [f32(2)], "needs bool"),
        (ops.ArgReduce("max", 0, False), [f32(0)], "is empty"),
        (ops.ArgReduce("sum", 0, False), [f32(3)], "no function"),
        (ops.CumSum(1, False, False), [f32(3)], "axis 1 is outside"),
        (ops.ReduceWindow("sum", (4,), (1,), (0,), (0,), (1,)), [f32(3)], "does not fit"),
        (ops.ReduceWindow("sum", (2,), (0,), (0,), (0,), (1,)), [f32(3)], "must be >= 1"),
        (ops.ReduceWindow("sum", (2,), (1,), (-1,), (0,), (1,)), [f32(3)], "not be negative"),
        (ops.Dot(), [f32(2, 3), f32(4, 5)], "3 columns"),
        (ops.Dot(), [f32(3), f32(3)], "rank of 2 or more"),
        (ops.Dot(), [f32(2, 2, 3), f32(3, 3, 5)], "batch axes differ"),
        (ops.Dot(), [f32(2, 3), TensorType(DType.F64, (3, 5))], "different types"),
        (ops.Dot(), [f32(2**21, 1), f32(1, 2**21)], f"asks for {2**42} elements"),
        (
            ops.Conv(ONES, NONE, NONE, ONES, 2, False),
            [f32(1, 4, 5, 5), f32(4, 4, 3, 3)],
            "do not fit weights",
        ),
        (
            ops.Conv((1,), NONE, NONE, ONES, 1, False),
            [f32(1, 4, 5, 5), f32(4, 4, 3, 3)],
            "'strides' has 1 entries",
        ),
        (ops.Conv((), (), (), (), 1, False), [f32(1, 4), f32(4, 4)], "1 to 3 spatial axes"),
        (ops.TopK(4, 0, True), [f32(3)], "cannot take 4 of 3"),
    ],
)
def test_rules_refuse_with_a_sentence(op: Op, operands: list[TensorType], sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        op.infer(*operands)
    assert sentence in str(caught.value)
