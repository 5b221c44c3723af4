"""ONNX If: a `Call` goes in, the results of the branch come out: of the one taken where that is
known, else of a `Branch` that chooses at run time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from aotc.errors import ModelError
from aotc.frontend.bodies import Body
from aotc.frontend.folding import known_value
from aotc.frontend.layouts import assemble_all, join, layout_of, parts
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.specialize import Declared
from aotc.frontend.values import Ragged, Value
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType


def scalar(call: Call, node: Node, dtype: DType, what: str) -> Node:
    """``node``, which must be one element of type ``dtype``, as a tensor of rank 0."""
    if node.type.dtype is not dtype or node.type.elems != 1:
        raise ModelError(f"{what} must be one {dtype.value}, is {node.type}")
    return call.reshape(node, ())


def settled(call: Call, values: Sequence[Value | None]) -> list[Value | None]:
    """``values`` as outputs of the node: a size known at run time only is the one that the model
    declares, which the run checks."""
    return [
        _settle(call, value, call.declared[place]) if place < len(call.declared) else value
        for place, value in enumerate(values)
    ]


def _settle(call: Call, value: Value | None, declared: Declared | None) -> Value | None:
    if not isinstance(value, Ragged) or declared is None or len(declared) != len(value.extents):
        return value
    node, sizes = value.node, list(value.extents)
    for axis, (size, wanted) in enumerate(zip(value.extents, declared, strict=True)):
        fits = isinstance(wanted, int) and 0 <= wanted <= node.shape[axis]
        if not fits or not isinstance(size, Node) or not isinstance(wanted, int):
            continue
        call.builder.check(
            call.compare("eq", size, wanted),
            f"node '{call.origin}': axis {axis} of a result must have {wanted} elements, as "
            "declared",
        )
        node = call.slice_axis(node, axis, 0, wanted)
        sizes[axis] = wanted
    exact = all(isinstance(size, int) for size in sizes)
    return node if exact else Ragged(node, tuple(sizes))


def if_(call: Call) -> Sequence[Value | None]:
    """The outputs of the branch that the condition takes."""
    condition = scalar(call, call[0], DType.BOOL, "its condition")
    known = known_value(condition)
    names = ("then_branch", "else_branch")
    if known is not None:
        return call.subgraph(call.attrs.graph(names[0] if known else names[1]))
    bodies = Body(call.builder), Body(call.builder)
    results = [
        call.subgraph(call.attrs.graph(name), body=body)
        for name, body in zip(names, bodies, strict=True)
    ]
    if len(results[0]) != len(results[1]):
        raise ModelError(f"its branches have {len(results[0])} and {len(results[1])} outputs")
    pairs = zip(results[0], results[1], strict=True)
    layouts = [join(layout_of(a), layout_of(b)) for a, b in pairs]
    tensors = [
        [
            node
            for value, layout in zip(values, layouts, strict=True)
            for node in parts(body.builder, value, layout)
        ]
        for values, body in zip(results, bodies, strict=True)
    ]
    captured = list(dict.fromkeys(bodies[0].captured + bodies[1].captured))
    then, other = (
        body.finish(f"{call.origin}/{name}", (), captured, outputs)
        for name, body, outputs in zip(names, bodies, tensors, strict=True)
    )
    branch = call.apply(ops.Branch(then, other), condition, *captured)
    items = [call.apply(ops.Item(place), branch) for place in range(len(tensors[0]))]
    return settled(call, assemble_all(call.builder, layouts, items))


RULES: Mapping[str, Rule] = MappingProxyType({"If": if_})
