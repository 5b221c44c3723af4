"""Operators on narrow floats (bfloat16): a call goes in; its results come out, computed in float32
and rounded once to the type that ONNX gives them.

With the few bits of these types an operator of many primitives that rounded after each would be
far off. float16 is not treated like this: there ONNX's reference rounds step by step, and so do we.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx

from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.values import Ragged, Value
from aotc.graph.ir import Node
from aotc.graph.types import DType

_AS_THEY_ARE = """
    Bernoulli BitCast Cast CastLike CenterCropPad Compress Concat ConstantOfShape DepthToSpace
    DequantizeLinear Dropout Expand EyeLike Flatten Gather GatherElements GatherND Identity If Loop
    OneHot Optional OptionalGetElement OptionalHasElement Pad QLinearMatMul QuantizeLinear
    RandomNormalLike RandomUniformLike Reshape ReverseSequence Scan Scatter ScatterElements
    ScatterND SequenceAt SequenceConstruct SequenceErase SequenceInsert Shape Size Slice
    SpaceToDepth Split SplitToSequence Squeeze TensorScatter Tile TopK Transpose Trilu Unique
    Unsqueeze Where
"""
"""Operators that move data, or whose rules look at element types themselves."""


def run_rule(rule: Rule, call: Call, schema: onnx.defs.OpSchema) -> Sequence[Value | None]:
    """The results of ``rule``; operands of narrow floats are widened before and the results that
    share their type in ``schema`` rounded after."""
    narrow = _narrow_types(call, schema)
    if not narrow or call.operator in _AS_THEY_ARE.split():
        return _listed(rule(call))
    results = _listed(rule(replace(call, inputs=tuple(_widened(call, x) for x in call.inputs))))
    formals = list(schema.outputs)
    return [
        _rounded(call, result, narrow.get(_formal(formals, index).type_str))
        for index, result in enumerate(results)
    ]


def _narrow_types(call: Call, schema: onnx.defs.OpSchema) -> dict[str, DType]:
    """The element type of each of the schema's type variables that stands for a narrow float."""
    found: dict[str, DType] = {}
    formals = list(schema.inputs)
    for index, value in enumerate(call.inputs):
        dtype = _dtype(value)
        if dtype is not None and dtype.is_float and dtype.is_narrow:
            found.setdefault(_formal(formals, index).type_str, dtype)
    return found


def _formal(
    formals: Sequence[onnx.defs.OpSchema.FormalParameter], index: int
) -> onnx.defs.OpSchema.FormalParameter:
    """The parameter at ``index``; the last one may stand for any number."""
    return formals[min(index, len(formals) - 1)]


def _dtype(value: Value | None) -> DType | None:
    if isinstance(value, Ragged):
        value = value.node
    return value.type.dtype if isinstance(value, Node) else None


def _widened(call: Call, value: Value | None) -> Value | None:
    dtype = _dtype(value)
    return _rounded(call, value, DType.F32) if dtype is not None and dtype.is_narrow else value


def _rounded(call: Call, value: Value | None, dtype: DType | None) -> Value | None:
    """A float tensor as ``dtype``; anything else as it is."""
    own = _dtype(value)
    if dtype is None or own is None or not own.is_float:
        return value
    if isinstance(value, Ragged):
        return replace(value, node=call.cast(value.node, dtype))
    return call.cast(value, dtype) if isinstance(value, Node) else value


def _listed(result: Value | Sequence[Value | None]) -> Sequence[Value | None]:
    return result if isinstance(result, Sequence) else [result]
