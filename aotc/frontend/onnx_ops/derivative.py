"""Gradient of ai.onnx.preview.training: a tensor and what it depends on go in, its derivatives come
out.

The part of the graph between them is differentiated in reverse mode (autodiff/) and emitted again
at the values that the inputs give.
"""

from __future__ import annotations

from collections.abc import Sequence

from aotc.autodiff.emit import Emit
from aotc.autodiff.engine import cut, inline
from aotc.autodiff.transform import vjp
from aotc.errors import ModelError
from aotc.frontend.onnx_ops.call import Call
from aotc.graph.ir import Node


def gradient(call: Call) -> Sequence[Node]:
    """The derivatives of the sum of ``y`` by each of ``xs``, at the values in the inputs.

    The inputs are the values of ``xs`` and ``zs``; behind them stand the tensors of these names and
    ``y`` (see `named_operands`)."""
    count = len(call.attrs.strings("xs") or ())
    given = len(call.inputs) // 2
    if len(call.inputs) != 2 * given + 1 or not 1 <= count <= given:
        raise ModelError("needs one input for each of its 'xs' and 'zs'")
    values, variables = call.operands[:given], call.operands[given:-1]
    for value, variable in zip(values, variables, strict=True):
        if value.type != variable.type:
            raise ModelError(f"{value.type} in place of a variable {variable.type}")
    y = call.operands[-1]
    if not all(node.type.dtype.is_float for node in (y, *variables[:count])):
        raise ModelError(f"{y.type} has no derivatives by whole numbers")
    places = dict(zip(variables, values, strict=True))
    order = list(places)
    part, captured = cut([y], order)
    chosen = [order.index(variable) for variable in variables[:count]]
    emit = Emit(call.builder)
    operands = [*places.values(), *captured, emit.full(1.0, y.type)]
    return inline(emit, vjp(part, chosen), operands)[1:]
