"""ONNX Loop and Scan: a `Call` goes in, the values after the loop and what it collected come
out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import onnx

from aotc.errors import ModelError, UnsupportedError
from aotc.frontend.folding import known_value
from aotc.frontend.intervals import interval
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.onnx_ops.control import scalar, settled
from aotc.frontend.onnx_ops.iterate import Plan, iterate
from aotc.frontend.specialize import EVERYTHING
from aotc.frontend.values import Ragged, Value, kind_of
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType

ENDLESS = 2**31
"""Trip counts from here on are a way to say that only the condition ends the loop."""

MOST_INFERRED = 1 << 16
"""A bound that only follows from arithmetic, and is larger than this, says nothing."""

MAX_BATCH = 256
"""The first Scan repeats its loop for each element of a batch; so many at most."""


def loop(call: Call) -> Sequence[Value | None]:
    """ONNX Loop: the carried values, then the rows of all iterations in one tensor each."""
    graph = call.attrs.graph("body")
    carried = tuple(_given(call, index) for index in range(2, len(call.inputs)))
    count = len(carried)
    _expect_graph(graph, 2 + count, 1 + count)
    collected = _collected(call, count, len(graph.output) - 1 - count)
    given, condition = call.optional(0), call.optional(1)
    trips = call.constant(np.asarray(ops.UNLIMITED))
    going = call.constant(np.asarray(True))
    if given is not None:
        trips = scalar(call, given, DType.I64, "its trip count")
    if condition is not None:
        going = scalar(call, condition, DType.BOOL, "its condition")
    known = known_value(trips)
    if known is None or int(known) >= ENDLESS:
        limit = _most_trips(call, trips, count, collected)
    else:
        limit = max(0, int(known))
    plan = Plan(call, graph, trips, going, limit, carried, (), collected, conditional=True)
    results, rows = iterate(plan)
    return settled(call, [*results, *_spread(rows, collected)])


def _given(call: Call, index: int) -> Value:
    value = call.value(index)
    if value is None:
        raise ModelError(
            f"input {index} is missing", remedy="the node is malformed: export the model again"
        )
    return value


def _expect_graph(graph: onnx.GraphProto, inputs: int, outputs: int) -> None:
    if len(graph.input) != inputs or len(graph.output) < outputs:
        raise ModelError(
            f"its body has {len(graph.input)} inputs and {len(graph.output)} outputs; it needs "
            f"{inputs} and at least {outputs}",
            remedy="the node is malformed: export the model again",
        )


def _collected(call: Call, first: int, count: int) -> tuple[bool, ...]:
    """For each of ``count`` outputs from ``first`` on, whether somebody reads it."""
    used = call.output_used[first : first + count]
    return (*used, *(False,) * (count - len(used)))


def _spread(rows: Sequence[Value], collected: Sequence[bool]) -> list[Value | None]:
    rest = iter(rows)
    return [next(rest) if read else None for read in collected]


def _most_trips(
    call: Call, trips: Node, first: int, collected: Sequence[bool]
) -> int | None:
    """The most iterations: what the user says of the node or of a result that has an element for
    each, else what the model declares or what follows from the sizes that ``trips`` is made of."""
    places = [first + place for place, read in enumerate(collected) if read]
    lists = [place for place in range(first) if not isinstance(call.value(2 + place), Node)]
    named = [call.outputs[place] for place in (*places, *lists) if place < len(call.outputs)]
    for name in (call.origin, *named):
        if name in call.bounds:
            return call.bounds[name]
    for place in places:
        declared = call.declared[place] if place < len(call.declared) else None
        if declared and isinstance(declared[0], int):
            return declared[0]
    _, most = interval(trips, call.builder.limits)
    if most is None or most > MOST_INFERRED:
        return call.bounds.get(EVERYTHING)
    return max(most, 0)


def scan(call: Call) -> Sequence[Value | None]:
    """ONNX Scan: one iteration for each slice of the scanned operands."""
    graph = call.attrs.graph("body")
    batched = call.version < 9
    operands = [_given(call, index) for index in range(int(batched), len(call.inputs))]
    number = call.attrs.integer("num_scan_inputs")
    if not 1 <= number <= len(operands):
        raise ModelError(f"scans {number} of {len(operands)} inputs")
    count = len(operands) - number
    _expect_graph(graph, len(operands), count)
    if batched:
        return _scan_batch(call, graph, operands, number)
    collected = _collected(call, count, len(graph.output) - count)
    directions = _per_operand(call, "scan_input_directions", number)
    axes = _per_operand(call, "scan_input_axes", number)
    scanned, lengths = [], []
    for value, axis, back in zip(operands[count:], axes, directions, strict=True):
        node, length = _oriented(call, value, axis, bool(back))
        scanned.append(node)
        lengths.append(length)
    limit = scanned[0].shape[0]
    if any(node.shape[0] != limit for node in scanned):
        raise ModelError(f"the scanned operands have different lengths: {lengths}")
    length = lengths[0]
    trips = length if isinstance(length, Node) else call.constant(np.asarray(length))
    for other in lengths[1:]:
        if isinstance(other, Node) or isinstance(length, Node):
            size = other if isinstance(other, Node) else call.constant(np.asarray(other))
            call.builder.check(
                call.compare("eq", trips, size),
                f"node '{call.origin}' scans operands of different lengths",
            )
    results, rows = iterate(_scan_plan(call, graph, trips, operands[:count], scanned, collected))
    backwards = _per_operand(call, "scan_output_directions", len(collected))
    places = _per_operand(call, "scan_output_axes", len(collected))
    turns = zip(places, backwards, _spread(rows, collected), strict=True)
    turned = [x if x is None else _placed(call, x, axis, bool(back)) for axis, back, x in turns]
    return settled(call, [*results, *turned])


def _scan_plan(
    call: Call,
    graph: onnx.GraphProto,
    trips: Node,
    carried: Sequence[Value],
    scanned: Sequence[Node],
    collected: tuple[bool, ...],
) -> Plan:
    return Plan(
        call,
        graph,
        trips,
        call.constant(np.asarray(True)),
        scanned[0].shape[0],
        tuple(carried),
        tuple(scanned),
        collected,
        conditional=False,
        padded=call.version < 9,
    )


def _per_operand(call: Call, name: str, count: int) -> tuple[int, ...]:
    values = call.attrs.integers(name, (0,) * count) or ()
    if len(values) != count:
        raise ModelError(f"attribute '{name}' has {len(values)} entries for {count} tensors")
    return values


def _oriented(call: Call, value: Value, axis: int, back: bool) -> tuple[Node, int | Node]:
    """A scanned operand with its slices along axis 0 in the order of the iterations, and how many
    there are."""
    if isinstance(value, Ragged):
        node, sizes = value.node, value.extents
    elif isinstance(value, Node):
        node, sizes = value, value.shape
    else:
        raise UnsupportedError(
            f"it scans {kind_of(value)}", remedy="scan tensors: rewrite this part of the model"
        )
    axis = call.axis(axis, node.type.rank)
    length = sizes[axis]
    if any(isinstance(size, Node) for place, size in enumerate(sizes) if place != axis):
        raise UnsupportedError(
            "the slices that it scans have a size known at run time only",
            remedy="fix it at compile time, or rewrite this part of the model",
        )
    rest = [place for place in range(node.type.rank) if place != axis]
    turned = call.transpose(node, (axis, *rest))
    return (_reversed(call, turned, length) if back else turned), length


def _reversed(call: Call, x: Node, length: int | Node) -> Node:
    """``x`` with the first ``length`` elements of axis 0 in reverse."""
    size = x.shape[0]
    if isinstance(length, int):
        return call.slice_axis(x, 0, size - 1, size, -1) if size else x
    steps = call.constant(np.arange(1, size + 1))
    # what lies beyond the length counts as index 0
    place = call.binary("max", call.binary("sub", length, steps), 0)
    return call.apply(ops.Gather(0), x, place) if size else x


def _placed(call: Call, value: Value, axis: int, back: bool) -> Value:
    """Collected rows (axis 0) in the order and on the axis that the node asks for."""
    assert isinstance(value, Node | Ragged)
    node = value.node if isinstance(value, Ragged) else value
    sizes = value.extents if isinstance(value, Ragged) else value.shape
    axis = call.axis(axis, node.type.rank)
    if back:
        node = _reversed(call, node, sizes[0])
    order = list(range(1, node.type.rank))
    order.insert(axis, 0)
    node = call.transpose(node, order)
    extents = tuple(sizes[place] for place in order)
    return Ragged(node, extents) if isinstance(value, Ragged) else node


def _scan_batch(
    call: Call, graph: onnx.GraphProto, operands: Sequence[Value], number: int
) -> Sequence[Value | None]:
    """The first form of Scan: an outer axis of independent sequences, each of its own length; rows
    beyond it are zeros."""
    nodes = [call[index] for index in range(1, len(call.inputs))]
    count = len(nodes) - number
    collected = _collected(call, count, len(graph.output) - count)
    if any(x.type.rank < 1 + (place >= count) for place, x in enumerate(nodes)):
        raise ModelError("its operands lack the axis of the batch or of the sequence")
    batch = nodes[0].shape[0]
    length = nodes[-1].shape[1]
    if any(x.shape[0] != batch for x in nodes) or any(x.shape[1] != length for x in nodes[count:]):
        raise ModelError("its operands have different batches or lengths")
    if not 1 <= batch <= MAX_BATCH:
        raise UnsupportedError(
            f"a batch of {batch} in the first form of Scan",
            remedy="convert the model to opset 9 or later with onnx.version_converter",
        )
    directions = _per_operand(call, "directions", number)
    lengths = call.optional(0)
    if lengths is not None and (lengths.type.dtype, lengths.shape) != (DType.I64, (batch,)):
        raise ModelError(f"the lengths of its sequences must be int64[{batch}]")
    if lengths is not None and any(directions):
        raise UnsupportedError(
            "sequences of different lengths are scanned in reverse",
            remedy="convert the model to opset 9 or later with onnx.version_converter",
        )
    trips = call.constant(np.asarray(length))
    found = []
    for place in range(batch):
        own = [call.reshape(call.slice_axis(x, 0, place, 1), x.shape[1:]) for x in nodes]
        backs = zip(own[count:], directions, strict=True)
        scanned = [_reversed(call, x, length) if back else x for x, back in backs]
        if lengths is not None:
            trips = call.reshape(call.slice_axis(lengths, 0, place, 1), ())
        results, rows = iterate(
            _scan_plan(call, graph, trips, own[:count], scanned, collected)
        )
        found.append([*results, *rows])
    joined = [_batched(call, column) for column in zip(*found, strict=True)]
    return [*joined[:count], *_spread(joined[count:], collected)]


def _batched(call: Call, column: Sequence[Value]) -> Node:
    parts = []
    for value in column:
        if not isinstance(value, Node):
            raise UnsupportedError(
                f"a result is {kind_of(value)}",
                remedy="convert the model to opset 9 or later with onnx.version_converter",
            )
        parts.append(call.reshape(value, (1, *value.shape)))
    return call.concat(parts, 0)


RULES: Mapping[str, Rule] = MappingProxyType({"Loop": loop, "Scan": scan})
