"""Weights that are codes stay codes: a graph goes in; in what comes out, matrix products read codes
of eight or four bits (`Widen`) where their right-hand side was computed from such constants.

A product multiplies the same numbers as before, since a `Widen` is the same arithmetic; it takes a
half to an eighth of the memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Graph, Node, Op
from aotc.graph.types import DType
from aotc.passes.bodies import map_nested
from aotc.passes.constants import fits
from aotc.passes.rewrite import reemit

_VIEWS = (ops.Reshape, ops.Transpose, ops.Slice)
_STEPS = 24
#: Along the depth, so many codes may share a scale, the largest number first.
_BLOCKS = (512, 256, 128, 64, 32, 16)


@dataclass(frozen=True)
class _Codes:
    """``(codes - zero) * scale``; scale and zero point, float32 or nothing, look like the codes."""

    codes: np.ndarray
    scale: np.ndarray | None = None
    zero: np.ndarray | None = None

    def through(self, op: Op) -> _Codes:
        """The same after data movement."""
        parts = (self.scale, self.zero)
        scale, zero = (None if x is None else op.evaluate(x) for x in parts)
        return _Codes(op.evaluate(self.codes), scale, zero)


def keep_codes(graph: Graph) -> Graph:
    """Right-hand sides of float32 products that are made of constant codes, as `Widen`.

    Codes are constants of 8 bits or less, converted to float32, perhaps less a zero point, times a
    scale; a scale belongs to a column, or to some consecutive codes of one. Anything else stays.
    """
    if not any(_starts(node) for node in graph.nodes()):
        return graph
    found: dict[Node, _Codes] = {}
    for node in _matrices(graph):
        codes = _codes(node, _STEPS)
        if codes is not None and codes.scale is not None:
            found[node] = codes

    def emit(builder: Builder, node: Node, new: Mapping[Node, Node]) -> Node | None:
        return _widen(builder, found[node], node.origin) if node in found else None

    return reemit(graph, emit) if found else graph


def settle(graph: Graph) -> Graph:
    """Every `Widen` that something else than a product reads becomes float32 numbers."""
    users = graph.users()
    kept = {node for _, node in (*graph.outputs, *graph.checks)}

    def multiplied(node: Node, user: Node) -> bool:
        if isinstance(user.op, (ops.Dot, ops.Conv)):
            return user.inputs[1] is node and user.inputs[0] is not node
        is_view = isinstance(user.op, (*_VIEWS, ops.Broadcast)) and user not in kept
        return is_view and all(multiplied(user, reader) for reader in users[user])

    wrong = {
        node
        for node in graph.nodes()
        if isinstance(node.op, ops.Widen)
        and (node in kept or not all(multiplied(node, user) for user in users[node]))
    }
    return _as_numbers(graph, wrong)


def expand(graph: Graph) -> Graph:
    """Every `Widen`, in nested graphs too, as float32 numbers: for machines whose kernels read no
    codes."""
    graph = map_nested(graph, expand)
    return _as_numbers(graph, {x for x in graph.nodes() if isinstance(x.op, ops.Widen)})


def _as_numbers(graph: Graph, wrong: set[Node]) -> Graph:
    def emit(builder: Builder, node: Node, new: Mapping[Node, Node]) -> Node | None:
        if node not in wrong:
            return None
        arrays = [x.data for x in node.inputs if x.data is not None]
        return builder.constant(node.op.evaluate(*arrays))

    return reemit(graph, emit) if wrong else graph


def _starts(node: Node) -> bool:
    """Whether ``node`` turns codes into float32."""
    return node.op == ops.Cast(DType.F32) and node.inputs[0].type.dtype in (DType.I8, DType.U8)


def _matrices(graph: Graph) -> Iterator[Node]:
    """What float32 products alone have on their right-hand side, before it is stretched over a
    batch."""
    users = graph.users()
    kept = {node for _, node in (*graph.outputs, *graph.checks)}
    for node in graph.nodes():
        if not isinstance(node.op, ops.Dot) or node.type.dtype is not DType.F32:
            continue
        at, reader = node.inputs[1], node
        while users[at] == [reader] and at not in kept and at.data is None:
            if not isinstance(at.op, (ops.Broadcast, ops.Reshape)):
                break
            if at.inputs[0].shape[-2:] != at.shape[-2:]:
                break
            at, reader = at.inputs[0], at
        if users[at] == [reader] and at not in kept and at.data is None:
            yield at


def _codes(node: Node, steps: int) -> _Codes | None:
    """``node`` as codes of constants, if it is that."""
    if steps == 0:
        return None
    if _starts(node):
        codes = _known(node.inputs[0], steps)
        return None if codes is None else _Codes(codes)
    if isinstance(node.op, _VIEWS):
        inner = _codes(node.inputs[0], steps - 1)
        return None if inner is None else inner.through(node.op)
    if node.op == ops.Binary("mul"):
        for x, factor in (node.inputs, node.inputs[::-1]):
            inner, scale = _codes(x, steps - 1), _known(factor, steps)
            if inner is not None and inner.scale is None and scale is not None:
                return _Codes(inner.codes, scale, inner.zero)
    if node.op == ops.Binary("sub"):
        inner, zero = _codes(node.inputs[0], steps - 1), _known(node.inputs[1], steps)
        if inner is not None and zero is not None and inner.scale is inner.zero is None:
            return _Codes(inner.codes, None, zero)
    return None


def _known(node: Node, steps: int) -> np.ndarray | None:
    """The values of what is computed of constants in a few steps."""
    if node.data is not None:
        return node.data
    if steps == 0 or not isinstance(node.op, (*ops.ELEMENTWISE, *_VIEWS, ops.Broadcast)):
        return None
    operands = []
    for x in node.inputs:
        value = _known(x, steps - 1)
        if value is None:
            return None
        operands.append(value)
    return node.op.evaluate(*operands)


def _widen(builder: Builder, found: _Codes, origin: str) -> Node | None:
    """The `Widen` of a matrix [..., depth, columns]; None when its scales lie otherwise."""
    codes, zero = found.codes.astype(np.int16), found.zero
    assert found.scale is not None
    if zero is not None and (zero == zero.flat[0]).all() and zero.flat[0] == np.rint(zero.flat[0]):
        codes, zero = codes - np.int16(zero.flat[0]), None
    for stored in (DType.I4, DType.U4, DType.I8, DType.U8):
        if fits(codes, stored):
            break
    else:
        return None
    parts = [found.scale, *([] if zero is None else [zero])]
    axis = codes.ndim - 2
    block = _block(parts, axis)
    if block is None:
        return None
    places = range(0, codes.shape[axis], block)
    constants = [np.ascontiguousarray(part.take(places, axis)) for part in parts]
    return builder.apply(
        ops.Widen(stored, axis, block),
        builder.constant(codes.astype(stored.machine.numpy)),
        *map(builder.constant, constants),
        origin=origin,
    )


def _block(parts: list[np.ndarray], axis: int) -> int | None:
    """How many codes along ``axis`` share a scale and a zero point; None when that is too few."""
    extent = parts[0].shape[axis]
    for block in (extent, *_BLOCKS):
        first = np.arange(extent) // block * block
        if all((part == part.take(first, axis)).all() for part in parts):
            return block
    return None
