"""Operands that are known at run time only where ONNX lets a shape depend on them: what the model
declares goes in, sizes with a check for the run come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from aotc.frontend.folding import known_value
from aotc.frontend.onnx_ops.call import Call
from aotc.graph.ir import Node
from aotc.graph.types import DType


def ints_or_declared(
    call: Call, index: int, what: str, declared: Sequence[int] | None
) -> tuple[int, ...]:
    """The whole numbers in input ``index``. Where they are computed at run time they are
    ``declared``, what the declared shape of the result implies, and the run checks that.
    UnsupportedError when neither says them."""
    node = call[index]
    value = known_value(node)
    if value is not None and value.dtype.kind == "f" and (value == np.rint(value)).all():
        return tuple(int(size) for size in value.reshape(-1))
    if value is not None or declared is None or node.type.elems != len(declared):
        return call.known_ints(index, what)
    wanted = np.asarray(declared, dtype=np.int64).reshape(node.shape)
    same = call.compare("eq", call.cast(node, DType.I64), call.constant(wanted))
    fits = call.reduce("and", same, range(node.type.rank), keep=False)
    shown = ", ".join(str(size) for size in declared)
    call.builder.check(fits, f"{call.origin}: its {what} must be {shown}, as the model declares")
    return tuple(declared)


def scalar_operand(call: Call, index: int, dtype: DType = DType.I64) -> Node:
    """Input ``index``, one number of any rank, as a scalar of type ``dtype``."""
    return call.cast(call.reshape(call[index], ()), dtype)


def along_axis_operand(
    call: Call, index: int, axes: Sequence[int], rank: int, formula: Callable[[int], Node]
) -> Node:
    """``formula`` along the axis that input ``index`` names. At run time it may be any of ``axes``
    (from the front), for each of which the formula gives a result of one shape; the run checks
    that it is."""
    if known_value(call[index]) is not None:
        return formula(call.axis(call.known_int(index, "axis"), rank))
    named = scalar_operand(call, index)
    axis = call.select(call.compare("lt", named, 0), call.binary("add", named, rank), named)
    return chosen(call, axis, "axis", axes, formula)


def chosen(
    call: Call, operand: Node, what: str, choices: Sequence[int], formula: Callable[[int], Node]
) -> Node:
    """``formula`` of the one of ``choices`` that ``operand`` (i64[]) is at run time, which the run
    checks. The results have one shape."""
    found = call.compare("eq", operand, choices[0])
    result = formula(choices[0])
    for choice in choices[1:]:
        hit = call.compare("eq", operand, choice)
        found = call.binary("or", found, hit)
        result = call.select(hit, formula(choice), result)
    shown = ", ".join(str(choice) for choice in choices)
    call.builder.check(found, f"{call.origin}: its {what} must be one of {shown}")
    return result
