"""What the rules write with: a builder goes in; small steps on nodes come out as nodes of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from aotc.errors import UnsupportedError, UsageError
from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Constant, Graph, Node, Op, Parameter
from aotc.graph.types import DType, TensorType, TupleType

Maybe = Node | None
"""A tangent or cotangent; None where it is zero everywhere."""


@dataclass(frozen=True)
class Emit:
    """The builder of one graph, with numpy's conventions and numbers as operands."""

    builder: Builder

    def apply(self, op: Op, *operands: Node) -> Node:
        """The primitive on operands that fit exactly."""
        return self.builder.apply(op, *operands)

    def unary(self, fn: str, x: Node) -> Node:
        """Elementwise function."""
        return self.builder.unary(fn, x)

    def binary(self, fn: str, a: Node, b: Node | float) -> Node:
        """Elementwise function with broadcasting; a number takes the type of ``a``."""
        return self.builder.binary(fn, a, self.like(b, a))

    def compare(self, fn: str, a: Node, b: Node | float) -> Node:
        """Comparison with broadcasting; a number takes the type of ``a``."""
        return self.builder.compare(fn, a, self.like(b, a))

    def select(self, condition: Node, a: Node | float, b: Node | float) -> Node:
        """``where`` with broadcasting; a number takes the type of the other value."""
        known = a if isinstance(a, Node) else b
        assert isinstance(known, Node)
        return self.builder.select(condition, self.like(a, known), self.like(b, known))

    def like(self, value: Node | float, x: Node) -> Node:
        """A node as it is; a number as a scalar of the element type of ``x``."""
        return value if isinstance(value, Node) else self.builder.scalar_like(value, x)

    def full(self, value: float, type_: TensorType) -> Node:
        """A tensor of one value."""
        scalar = self.builder.constant(value, type_.dtype)
        return self.builder.broadcast(scalar, type_.dims)

    def zeros(self, x: Node) -> Node:
        """Zeros in the shape and type of ``x``."""
        return self.full(0.0, x.type)

    def add(self, a: Maybe, b: Maybe) -> Maybe:
        """The sum of two of one shape, where nothing counts as zero."""
        if a is None or b is None:
            return b if a is None else a
        joined = self._side_by_side(a, b)
        return joined or self.builder.binary("add", a, b, self.builder.origin or b.origin)

    def _side_by_side(self, a: Node, b: Node) -> Maybe:
        """The sum of two tensors with zeros around them that do not meet, as happens to parts of
        one tensor: they are put together. None for others."""
        if not isinstance(a.op, ops.Pad) or not isinstance(b.op, ops.Pad):
            return None
        first, second = (a.op, b.op) if a.op.low <= b.op.low else (b.op, a.op)
        (x,), (y,) = (a.inputs, b.inputs) if first is a.op else (b.inputs, a.inputs)
        sides = zip(first.low, second.low, first.high, second.high, strict=True)
        apart = [at for at, (l1, l2, h1, h2) in enumerate(sides) if (l1, h1) != (l2, h2)]
        if len(apart) != 1 or first.value != 0 or second.value != 0:
            return None
        (axis,) = apart
        gap = second.low[axis] - first.low[axis] - x.shape[axis]
        if gap < 0:
            return None
        between = TensorType(x.type.dtype, (*x.shape[:axis], gap, *x.shape[axis + 1 :]))
        middle = [self.full(0.0, between)] if gap else []
        parts = [piece for part in (x, *middle, y) for piece in _pieces(part, axis)]
        high = (*first.high[:axis], second.high[axis], *first.high[axis + 1 :])
        return self.pad(self.builder.concat(parts, axis), first.low, high)

    def total(self, parts: Iterable[Maybe]) -> Maybe:
        """The sum of all that is there; parts of one tensor with zeros around them come together
        in their order."""
        given = [part for part in parts if part is not None]
        padded = [(x.op.low, at) for at, x in enumerate(given) if isinstance(x.op, ops.Pad)]
        places = [at for _, at in sorted(padded)]
        places += [at for at in range(len(given)) if at not in places]
        result: Maybe = None
        for at in places:
            result = self.add(result, given[at])
        return result

    def slice_axis(self, x: Node, axis: int, start: int, count: int, step: int = 1) -> Node:
        """``count`` elements of one axis from ``start`` in steps of ``step``."""
        if (start, count, step) == (0, x.shape[axis], 1):
            return x
        starts, counts, steps = [0] * x.type.rank, list(x.shape), [1] * x.type.rank
        starts[axis], counts[axis], steps[axis] = start, count, step
        return self.apply(ops.Slice(tuple(starts), tuple(counts), tuple(steps)), x)

    def pad(self, x: Node, low: Sequence[int], high: Sequence[int], value: float = 0.0) -> Node:
        """Constant padding; nothing when there is none."""
        if not any((*low, *high)):
            return x
        if isinstance(x.op, ops.Pad) and x.op.value == value:
            low = [a + b for a, b in zip(x.op.low, low, strict=True)]
            high = [a + b for a, b in zip(x.op.high, high, strict=True)]
            (x,) = x.inputs
        return self.apply(ops.Pad(tuple(low), tuple(high), value), x)

    def pad_axis(self, x: Node, axis: int, low: int, high: int, value: float = 0.0) -> Node:
        """Constant padding of one axis."""
        below, above = [0] * x.type.rank, [0] * x.type.rank
        below[axis], above[axis] = low, high
        return self.pad(x, below, above, value)

    def spread_axis(self, x: Node, axis: int, step: int) -> Node:
        """Zeros between the elements of an axis, so that they stand ``step`` apart."""
        count = x.shape[axis]
        if step == 1 or count == 0:
            return x
        apart = self.builder.reshape(x, (*x.shape[: axis + 1], 1, *x.shape[axis + 1 :]))
        wide = self.pad_axis(apart, axis + 1, 0, step - 1)
        joined = (*x.shape[:axis], count * step, *x.shape[axis + 1 :])
        return self.slice_axis(self.builder.reshape(wide, joined), axis, 0, (count - 1) * step + 1)

    def move_axis(self, x: Node, source: int, target: int) -> Node:
        """The axis ``source`` at place ``target``, the others in their order."""
        perm = [axis for axis in range(x.type.rank) if axis != source]
        perm.insert(target, source)
        return self.builder.transpose(x, tuple(perm))

    def untransposed(self, x: Node, perm: Sequence[int]) -> Node:
        """What ``perm`` has transposed, back in its order."""
        return self.builder.transpose(x, tuple(int(axis) for axis in np.argsort(perm)))

    def indices(self, x: Node) -> Node:
        """Indices as int64; those beyond its range become its largest number."""
        if x.type.dtype is DType.U64:
            x = self.binary("min", x, 2**63 - 1)
        return self.builder.cast(x, DType.I64)

    def items(self, node: Node) -> list[Node]:
        """The elements of the tuple that a control primitive gives."""
        assert isinstance(node.type, TupleType)
        return [self.apply(ops.Item(index), node) for index in range(len(node.type.items))]

    def from_each(self, nodes: Iterable[Node]) -> Iterator[Node]:
        """``nodes`` of another graph one by one; what is made meanwhile has their origin."""
        before = self.builder.origin
        for node in nodes:
            self.builder.origin = node.origin
            yield node
        self.builder.origin = before

    def leaf_or_apply(self, node: Node, operands: Sequence[Node]) -> Node:
        """A node of another graph on operands of this one; parameters are not among them."""
        if isinstance(node.op, Constant):
            return self.builder.reuse_constant(node)
        return self.builder.apply(node.op, *operands, origin=node.origin)


def _pieces(x: Node, axis: int) -> tuple[Node, ...]:
    """What ``x`` is joined from along ``axis``."""
    return x.inputs if isinstance(x.op, ops.Concat) and x.op.axis == axis else (x,)


def parameters(builder: Builder, graph: Graph) -> list[Node]:
    """Parameters of the names and types of the inputs of ``graph``, in their order."""
    return [builder.parameter(name_of(x), x.type) for x in graph.inputs]


def name_of(node: Node) -> str:
    """The name of an input."""
    assert isinstance(node.op, Parameter)
    return node.op.name


def is_float(node: Node) -> bool:
    """Whether a node is a tensor of floats."""
    return not isinstance(node.type, TupleType) and node.type.dtype.is_float


def is_constant(node: Node) -> bool:
    """Whether a node holds numbers known at compile time, perhaps stretched."""
    while isinstance(node.op, ops.Broadcast | ops.Reshape):
        (node,) = node.inputs
    return isinstance(node.op, Constant)


def require_static(graph: Graph) -> None:
    """UsageError unless every size of the inputs is known."""
    for node in graph.inputs:
        if not node.type.is_static:
            raise UsageError(
                f"input '{name_of(node)}' is {node.type}",
                where=f"graph '{graph.name}'",
                remedy="bind its sizes before it is differentiated or mapped",
            )


def not_supported(reason: str, node: Node, remedy: str) -> UnsupportedError:
    """The error for a primitive that cannot be differentiated or mapped."""
    where = f"node '{node.origin}' ({node.op.mnemonic})" if node.origin else node.op.mnemonic
    return UnsupportedError(reason, where=where, remedy=remedy)


ROOT_OF_PI = math.sqrt(math.pi)
