"""The builder: applies primitives, checks them with their own type rules, and interns equal nodes.

Passes re-emit a graph into a fresh builder, so common subexpressions and dead nodes vanish by
construction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from aotc.errors import ModelError
from aotc.graph import ops
from aotc.graph.ir import Constant, Graph, Node, Op, Parameter
from aotc.graph.rules import result_type
from aotc.graph.types import DType, TensorType, broadcast_dims


class Builder:
    """Makes the nodes of one graph.

    Applying the same op to the same operands twice gives the same node. ``origin`` is that of nodes
    which are given none.
    """

    origin = ""

    def __init__(self) -> None:
        self._interned: dict[tuple[object, ...], Node] = {}
        self._inputs: list[Node] = []
        self._checks: dict[Node, str] = {}

    def parameter(self, name: str, type: TensorType) -> Node:
        """A graph input; inputs keep the order in which they were made. ModelError if too large."""
        try:
            type = result_type(type.dtype, type.shape)
        except ValueError as error:
            raise ModelError(str(error), where=f"input '{name}'") from None
        node = Node(Parameter(name), (), type, origin=name)
        self._inputs.append(node)
        return node

    def constant(
        self, array: np.ndarray | Sequence[int] | float, dtype: DType | None = None
    ) -> Node:
        """A constant; Python numbers need ``dtype``. A contiguous array is shared, not copied."""
        values = np.asarray(array, dtype=dtype.numpy if dtype else None)
        native = values.dtype.newbyteorder("=")  # the digest and the object file hold native bytes
        values = np.ascontiguousarray(values, dtype=native).reshape(values.shape)
        if DType.of(values).size_bits < 8:
            # numbers of 2 and 4 bits lie in bytes whose other bits may be anything
            raw = values.reshape(-1).view(np.uint8)
            used = raw & np.uint8((1 << DType.of(values).size_bits) - 1)
            values = used.view(values.dtype).reshape(values.shape)
        if values.flags.writeable:
            values = values.view()
            values.flags.writeable = False
        type_ = TensorType(DType.of(values), values.shape)
        op = Constant.of(values)
        return self._interned.setdefault((op, type_), Node(op, (), type_, data=values))

    def reuse_constant(self, node: Node, shape: tuple[int, ...] | None = None) -> Node:
        """A constant of another graph, optionally under another shape of as many elements.

        The values are shared and the digest (which covers bytes, not shape) is kept: nothing is
        copied or hashed, whatever the size.
        """
        assert node.data is not None
        if shape is not None and shape != node.data.shape:
            type_ = TensorType(node.type.dtype, shape)
            node = Node(node.op, (), type_, data=node.data.reshape(shape), origin=node.origin)
        return self._interned.setdefault((node.op, node.type), node)

    def apply(self, op: Op, *operands: Node, origin: str = "") -> Node:
        """The node ``op(operands)``; ModelError names ``origin`` when the type rule refuses."""
        key = (op, *map(id, operands))
        node = self._interned.get(key)
        if node is None:
            origin = origin or self.origin
            try:
                type_ = op.infer(*(operand.type for operand in operands))
            except ValueError as error:
                raise ModelError(str(error), where=f"node '{origin}' ({op.mnemonic})") from None
            node = Node(op, tuple(operands), type_, origin=origin)
            self._interned[key] = node
        return node

    def check(self, condition: Node, sentence: str) -> None:
        """The graph fails with ``sentence`` when ``condition`` (bool[]) is false at run time;
        nothing when it is known to hold."""
        if condition.type != TensorType(DType.BOOL, ()):
            raise ModelError(f"a check must be bool[], not {condition.type}")
        if condition.data is None or not condition.data:
            self._checks.setdefault(condition, sentence)

    def finish(self, name: str, outputs: Iterable[tuple[str, Node]]) -> Graph:
        """The graph of everything that the outputs and the checks need."""
        checks = tuple((sentence, node) for node, sentence in self._checks.items())
        return Graph(name, tuple(self._inputs), tuple(outputs), checks)

    # Conveniences: numpy's conventions on top of the strict primitives.

    def broadcast(self, x: Node, shape: tuple[int, ...]) -> Node:
        """numpy broadcasting of ``x`` to ``shape``: prepend axes, then stretch."""
        if x.shape == shape:
            return x
        padded = (1,) * (len(shape) - len(x.shape)) + x.shape
        if padded != x.shape:
            x = self.apply(ops.Reshape(padded), x, origin=x.origin)
        return x if padded == shape else self.apply(ops.Broadcast(shape), x, origin=x.origin)

    def _elementwise(self, op: Op, *operands: Node, origin: str = "") -> Node:
        try:
            shape = broadcast_dims(*(operand.shape for operand in operands))
        except ValueError as error:
            raise ModelError(str(error), where=f"node '{origin}' ({op.mnemonic})") from None
        return self.apply(op, *(self.broadcast(x, shape) for x in operands), origin=origin)

    def unary(self, fn: str, x: Node, origin: str = "") -> Node:
        """Elementwise ``fn`` (see ops.Unary)."""
        return self.apply(ops.Unary(fn), x, origin=origin)

    def binary(self, fn: str, a: Node, b: Node, origin: str = "") -> Node:
        """Elementwise ``fn`` (see ops.Binary) with numpy broadcasting."""
        return self._elementwise(ops.Binary(fn), a, b, origin=origin)

    def compare(self, fn: str, a: Node, b: Node, origin: str = "") -> Node:
        """Elementwise comparison with numpy broadcasting."""
        return self._elementwise(ops.Compare(fn), a, b, origin=origin)

    def select(self, condition: Node, a: Node, b: Node, origin: str = "") -> Node:
        """``where`` with numpy broadcasting."""
        return self._elementwise(ops.Select(), condition, a, b, origin=origin)

    def cast(self, x: Node, dtype: DType, origin: str = "") -> Node:
        """Conversion; nothing when the type already fits."""
        return x if x.type.dtype is dtype else self.apply(ops.Cast(dtype), x, origin=origin)

    def scalar_like(self, value: float, x: Node) -> Node:
        """A rank-0 constant of the element type of ``x``."""
        return self.constant(value, x.type.dtype)

    def reshape(self, x: Node, shape: tuple[int, ...], origin: str = "") -> Node:
        """Reshape; nothing when the shape already fits."""
        return x if x.shape == shape else self.apply(ops.Reshape(shape), x, origin=origin)

    def transpose(self, x: Node, perm: tuple[int, ...], origin: str = "") -> Node:
        """Transpose; nothing for the identity."""
        same = perm == tuple(range(len(perm)))
        return x if same else self.apply(ops.Transpose(perm), x, origin=origin)

    def concat(self, parts: Sequence[Node], axis: int, origin: str = "") -> Node:
        """Join along ``axis``; nothing for a single part."""
        return parts[0] if len(parts) == 1 else self.apply(ops.Concat(axis), *parts, origin=origin)

    def reduce(self, fn: str, x: Node, axes: Iterable[int], keep: bool, origin: str = "") -> Node:
        """Reduction over ``axes`` (may be negative); ``keep`` leaves them as size 1."""
        rank = x.type.rank
        # an axis beyond the rank stays as it is, for the type rule to refuse
        chosen = tuple(sorted(axis + rank if -rank <= axis < 0 else axis for axis in axes))
        y = self.apply(ops.Reduce(fn, chosen), x, origin=origin) if chosen else x
        kept = tuple(1 if axis in chosen else dim for axis, dim in enumerate(x.shape))
        return self.reshape(y, kept, origin) if keep else y
