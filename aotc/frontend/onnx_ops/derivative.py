"""Gradient of ai.onnx.preview.training: a tensor and what it depends on go in, its derivatives come
out.

Reverse accumulation over the primitives: each has a rule that takes the derivative by its result to
the derivatives by its operands. Where a function has a corner, the derivative is that of one side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.onnx_ops.call import Call
from aotc.graph import ops
from aotc.graph.ir import Constant, Node, Op, Parameter
from aotc.graph.types import DType

Backward = Callable[[Call, Node, Node], Sequence[Node | None]]
"""A node and the derivative by it go in; the derivatives by its operands come out, None for 0."""


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
    order = _between(y, set(variables))
    for node in order:
        places[node] = call.apply(node.op, *(places.get(x, x) for x in node.inputs))
    derivatives = _backward(call, places[y], [places[node] for node in order])
    nothing = {node: call.scalar(0.0, node) for node in values}
    return [
        derivatives.get(node) or call.broadcast(nothing[node], node.shape)
        for node in values[:count]
    ]


def _between(y: Node, variables: set[Node]) -> list[Node]:
    """What lies between the variables and ``y``, operands first; leaves do not belong to it."""
    order: list[Node] = []
    seen: set[Node] = set(variables)
    stack = [(y, False)]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
        elif node not in seen and not isinstance(node.op, Parameter | Constant):
            seen.add(node)
            stack.append((node, True))
            stack.extend((operand, False) for operand in reversed(node.inputs))
    return order


def _backward(call: Call, y: Node, order: Sequence[Node]) -> dict[Node, Node]:
    """The derivative of the sum of ``y`` by each node that it depends on."""
    one = call.broadcast(call.scalar(1.0, y), y.shape)
    derivatives: dict[Node, Node] = {y: one}
    for node in reversed(order):
        outer = derivatives.get(node)
        if outer is None or not node.type.dtype.is_float:
            continue
        rule = BACKWARD.get(type(node.op))
        if rule is None:
            raise call.unsupported(f"the derivative of '{node.op.mnemonic}' is not supported")
        for operand, part in zip(node.inputs, rule(call, node, outer), strict=True):
            if part is not None and operand.type.dtype.is_float:
                before = derivatives.get(operand)
                derivatives[operand] = (
                    part if before is None else call.binary("add", before, part)
                )
    return derivatives


def _unary(call: Call, node: Node, outer: Node) -> Sequence[Node | None]:
    (x,) = node.inputs
    fn = node.op.fn if isinstance(node.op, ops.Unary) else ""
    if fn in ("sign", "floor", "ceil", "round"):
        return [None]
    slope = SLOPES.get(fn)
    if slope is None:
        raise call.unsupported(f"the derivative of '{fn}' is not supported")
    return [call.binary("mul", outer, slope(call, x, node))]


def _square(call: Call, x: Node) -> Node:
    return call.binary("mul", x, x)


def _one_minus(call: Call, x: Node) -> Node:
    return call.binary("add", call.unary("neg", x), 1.0)


def _inverse_root(call: Call, x: Node) -> Node:
    return call.unary("reciprocal", call.unary("sqrt", x))


def _bell(call: Call, x: Node, y: Node) -> Node:
    bell = call.unary("exp", call.unary("neg", _square(call, x)))
    return call.binary("mul", bell, 2 / math.sqrt(math.pi))


SLOPES: Mapping[str, Callable[[Call, Node, Node], Node]] = MappingProxyType(
    {
        "neg": lambda call, x, y: call.scalar(-1.0, x),
        "abs": lambda call, x, y: call.unary("sign", x),
        "exp": lambda call, x, y: y,
        "log": lambda call, x, y: call.unary("reciprocal", x),
        "sqrt": lambda call, x, y: call.unary("reciprocal", call.binary("add", y, y)),
        "reciprocal": lambda call, x, y: call.unary("neg", _square(call, y)),
        "tanh": lambda call, x, y: _one_minus(call, _square(call, y)),
        "erf": _bell,
        "sigmoid": lambda call, x, y: call.binary("mul", y, _one_minus(call, y)),
        "sin": lambda call, x, y: call.unary("cos", x),
        "cos": lambda call, x, y: call.unary("neg", call.unary("sin", x)),
        "tan": lambda call, x, y: call.binary("add", _square(call, y), 1.0),
        "asin": lambda call, x, y: _inverse_root(call, _one_minus(call, _square(call, x))),
        "acos": lambda call, x, y: call.unary(
            "neg", _inverse_root(call, _one_minus(call, _square(call, x)))
        ),
        "atan": lambda call, x, y: call.unary(
            "reciprocal", call.binary("add", _square(call, x), 1.0)
        ),
        "sinh": lambda call, x, y: call.unary("cosh", x),
        "cosh": lambda call, x, y: call.unary("sinh", x),
        "asinh": lambda call, x, y: _inverse_root(call, call.binary("add", _square(call, x), 1.0)),
        "acosh": lambda call, x, y: _inverse_root(call, call.binary("sub", _square(call, x), 1.0)),
        "atanh": lambda call, x, y: call.unary("reciprocal", _one_minus(call, _square(call, x))),
    }
)
"""The derivative of each function of ``x`` with result ``y``."""


def _binary(call: Call, node: Node, outer: Node) -> Sequence[Node | None]:
    a, b = node.inputs
    match node.op.fn if isinstance(node.op, ops.Binary) else "":
        case "add":
            return [outer, outer]
        case "sub":
            return [outer, call.unary("neg", outer)]
        case "mul":
            return [call.binary("mul", outer, b), call.binary("mul", outer, a)]
        case "div":
            by_a = call.binary("div", outer, b)
            return [by_a, call.unary("neg", call.binary("mul", by_a, node))]
        case "pow":
            power = call.binary("pow", a, call.binary("sub", b, 1.0))
            by_a = call.binary("mul", call.binary("mul", outer, b), power)
            by_b = call.binary("mul", call.binary("mul", outer, node), call.unary("log", a))
            return [by_a, by_b]
        case "min" | "max":
            first = call.compare("eq", a, node)
            zero = call.scalar(0.0, outer)
            return [call.select(first, outer, zero), call.select(first, zero, outer)]
        case fn:
            raise call.unsupported(f"the derivative of '{fn}' is not supported")


def _select(call: Call, node: Node, outer: Node) -> Sequence[Node | None]:
    zero = call.scalar(0.0, outer)
    condition = node.inputs[0]
    return [None, call.select(condition, outer, zero), call.select(condition, zero, outer)]


def _cast(call: Call, node: Node, outer: Node) -> Sequence[Node | None]:
    source = node.inputs[0].type.dtype
    return [call.cast(outer, source) if source.is_float else None]


def _broadcast(call: Call, node: Node, outer: Node) -> Sequence[Node | None]:
    old = node.inputs[0].shape
    axes = [at for at, size in enumerate(old) if size != node.shape[at]]
    return [call.reduce("sum", outer, axes) if axes else outer]


def _reshape(call: Call, node: Node, outer: Node) -> Sequence[Node | None]:
    return [call.reshape(outer, node.inputs[0].shape)]


def _transpose(call: Call, node: Node, outer: Node) -> Sequence[Node | None]:
    perm = node.op.perm if isinstance(node.op, ops.Transpose) else ()
    return [call.transpose(outer, np.argsort(perm).tolist())]


def _slice(call: Call, node: Node, outer: Node) -> Sequence[Node | None]:
    """Each element back to where it came from."""
    assert isinstance(node.op, ops.Slice)
    for axis, size in enumerate(node.inputs[0].shape):
        start, step, count = node.op.starts[axis], node.op.steps[axis], node.op.counts[axis]
        if (start, step, count) == (0, 1, size):
            continue
        if count == 0:
            return [None]
        if step < 0:
            outer = call.slice_axis(outer, axis, count - 1, count, -1)
            start, step = start + (count - 1) * step, -step
        shape = outer.shape
        apart = call.reshape(outer, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
        after = [step - 1 if at == axis + 1 else 0 for at in range(len(shape) + 1)]
        wide = call.pad(apart, [0] * len(after), after)
        wide = call.reshape(wide, (*shape[:axis], count * step, *shape[axis + 1 :]))
        wide = call.slice_axis(wide, axis, 0, min(count * step, size - start))
        low, high = [0] * len(shape), [0] * len(shape)
        low[axis], high[axis] = start, size - start - wide.shape[axis]
        outer = call.pad(wide, low, high)
    return [outer]


def _pad(call: Call, node: Node, outer: Node) -> Sequence[Node | None]:
    assert isinstance(node.op, ops.Pad)
    for axis, size in enumerate(node.inputs[0].shape):
        outer = call.slice_axis(outer, axis, node.op.low[axis], size)
    return [outer]


def _concat(call: Call, node: Node, outer: Node) -> Sequence[Node | None]:
    assert isinstance(node.op, ops.Concat)
    axis = node.op.axis
    sizes = [operand.shape[axis] for operand in node.inputs]
    starts = np.cumsum([0, *sizes[:-1]]).tolist()
    return [call.slice_axis(outer, axis, *part) for part in zip(starts, sizes, strict=True)]


def _reduce(call: Call, node: Node, outer: Node) -> Sequence[Node | None]:
    assert isinstance(node.op, ops.Reduce)
    (x,) = node.inputs
    kept = [1 if at in node.op.axes else size for at, size in enumerate(x.shape)]
    spread = call.broadcast(call.reshape(outer, kept), x.shape)
    if node.op.fn == "sum":
        return [spread]
    if node.op.fn == "prod":
        raise call.unsupported("the derivative of a product over an axis is not supported")
    # equal ones share it
    best = call.cast(call.compare("eq", x, call.reshape(node, kept)), x.type.dtype)
    share = call.binary("div", best, call.reduce("sum", best, node.op.axes))
    return [call.binary("mul", spread, share)]


def _dot(call: Call, node: Node, outer: Node) -> Sequence[Node | None]:
    a, b = node.inputs
    rank = a.type.rank
    swapped = (*range(rank - 2), rank - 1, rank - 2)
    return [
        call.apply(ops.Dot(), outer, call.transpose(b, swapped)),
        call.apply(ops.Dot(), call.transpose(a, swapped), outer),
    ]


def _gather(call: Call, node: Node, outer: Node) -> Sequence[Node | None]:
    assert isinstance(node.op, ops.Gather)
    data, indices = node.inputs
    axis, rank = node.op.axis, data.type.rank
    places = range(axis, axis + indices.type.rank)
    order = [*places, *(at for at in range(outer.type.rank) if at not in places)]
    rows = call.transpose(outer, order)
    front = [axis, *(at for at in range(rank) if at != axis)]
    zeros = call.broadcast(call.scalar(0.0, data), [data.shape[at] for at in front])
    index = call.reshape(call.cast(indices, DType.I64), (*indices.shape, 1))
    summed = call.apply(ops.ScatterND("add"), zeros, index, rows)
    return [call.transpose(summed, np.argsort(front).tolist()), None]


def _gather_elements(call: Call, node: Node, outer: Node) -> Sequence[Node | None]:
    assert isinstance(node.op, ops.GatherElements)
    data, indices = node.inputs
    zeros = call.broadcast(call.scalar(0.0, data), data.shape)
    op = ops.ScatterElements(node.op.axis, "add")
    return [call.apply(op, zeros, indices, outer), None]


def _cum_sum(call: Call, node: Node, outer: Node) -> Sequence[Node | None]:
    assert isinstance(node.op, ops.CumSum)
    op = ops.CumSum(node.op.axis, node.op.exclusive, not node.op.reverse)
    return [call.apply(op, outer)]


BACKWARD: Mapping[type[Op], Backward] = MappingProxyType(
    {
        ops.Binary: _binary,
        ops.Broadcast: _broadcast,
        ops.Cast: _cast,
        ops.Concat: _concat,
        ops.CumSum: _cum_sum,
        ops.Dot: _dot,
        ops.Gather: _gather,
        ops.GatherElements: _gather_elements,
        ops.Pad: _pad,
        ops.Reduce: _reduce,
        ops.Reshape: _reshape,
        ops.Select: _select,
        ops.Slice: _slice,
        ops.Transpose: _transpose,
        ops.Unary: _unary,
    }
)
