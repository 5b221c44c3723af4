"""The importer's builder: primitives go in, small known results come out as constants.

Shape arithmetic in a model (Shape, Gather, Concat, ... feeding Reshape) thus becomes constants
while the model is read, and every tensor gets a static shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from aotc.errors import ModelError
from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Node, Op
from aotc.graph.types import DType

EXACT_ELEMS = 4096
"""Integers and bools up to this many elements are computed at once: they may become shapes."""

_NEVER = (ops.Broadcast, ops.Iota, ops.Conv, ops.Dot, ops.ReduceWindow, ops.Branch, ops.Repeat)
"""Left alone: the first two are better unevaluated, the others may need far more room; a loop may
never end."""

SHORT = 64
"""No shape has more axes than this."""

FLOAT_ELEMS = 256
"""Floats up to this many: scales and sizes, not weights, which the folding pass looks after."""


def known_value(node: Node) -> np.ndarray | None:
    """The values of a constant, or of a constant stretched by `Broadcast`, or of an `Iota`, if
    small; of a tensor without elements whatever it is."""
    if node.data is not None:
        return node.data
    if node.type.elems == 0:
        return np.zeros(node.shape, node.type.dtype.numpy)
    if isinstance(node.op, ops.Iota) and node.type.elems <= EXACT_ELEMS:
        return node.op.evaluate()
    if isinstance(node.op, ops.Broadcast) and node.inputs[0].data is not None:
        # a view, so even a huge result costs nothing here
        return np.broadcast_to(node.inputs[0].data, node.shape)
    return None


def is_small(node_or_size: int, is_float: bool) -> bool:
    """Whether a tensor of so many elements is computed while reading."""
    return node_or_size <= (FLOAT_ELEMS if is_float else EXACT_ELEMS)


def _keeps_codes(op: Op, operands: tuple[Node, ...]) -> bool:
    """Whether ``op`` makes numbers of quantised weights, which a pass had better see as codes."""
    if not isinstance(op, ops.Cast) or not op.dtype.is_float:
        return False
    return operands[0].type.rank > 1 and operands[0].type.dtype in (DType.I8, DType.U8)


class FoldingBuilder(Builder):
    """A `Builder` that evaluates small primitives of known operands at once.

    `Broadcast` and `Iota` are kept as they are (a stretched scalar is better than a dense array)
    but count as known; a `Reshape` of any constant shares its bytes. ``limits`` has the sizes of
    run time (i64[]) whose least and largest values are known, ``guards`` the conditions under which
    what is checked must hold, ``copies`` how often loops around it are imported again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.limits: dict[Node, tuple[int, int]] = {}
        self._parts: dict[Node, list[Node] | None] = {}
        self.guards: list[Callable[[], Node]] = []
        self.copies = 1

    @contextmanager
    def guarded(self, condition: Node) -> Iterator[None]:
        """What is checked inside must hold only if ``condition`` (bool[]) does: the nodes there
        are computed always, but mean something only then."""
        open_ = condition.data is None or not condition.data
        before = self.guards
        self.guards = [*before, lambda: condition] if open_ else before
        try:
            yield
        finally:
            self.guards = before

    def check(self, condition: Node, sentence: str) -> None:
        """`Builder.check` under the guards around it."""
        for guard in self.guards:
            condition = self.binary("or", condition, self.unary("not", guard()))
        super().check(condition, sentence)

    def apply(self, op: Op, *operands: Node, origin: str = "") -> Node:
        """The node ``op(operands)``, or its value; ModelError names ``origin`` when the type rule
        refuses."""
        if isinstance(op, _NEVER) or _keeps_codes(op, operands):
            return super().apply(op, *operands, origin=origin)
        picked = self._picked(op, operands)
        if picked is not None:
            return picked
        if not all(isinstance(x.op, ops.Constant | ops.Broadcast | ops.Iota) for x in operands):
            return super().apply(op, *operands, origin=origin)
        try:
            type_ = op.infer(*(operand.type for operand in operands))
        except ValueError as error:
            raise ModelError(str(error), where=f"node '{origin}' ({op.mnemonic})") from None
        if isinstance(op, ops.Reshape) and operands[0].data is not None:
            return self.reuse_constant(operands[0], type_.dims)
        sizes = [(type_.elems, type_.dtype.is_float)]
        sizes += [(x.type.elems, x.type.dtype.is_float) for x in operands]
        if not all(is_small(elems, is_float) for elems, is_float in sizes):
            return super().apply(op, *operands, origin=origin)
        values = [known_value(operand) for operand in operands]
        known = [value for value in values if value is not None]
        if len(known) < len(operands):
            return super().apply(op, *operands, origin=origin)
        return self.constant(np.asarray(op.evaluate(*known), dtype=type_.dtype.numpy))

    def _picked(self, op: Op, operands: tuple[Node, ...]) -> Node | None:
        """What ``op`` picks of a shape whose sizes are not all known: each size stays the scalar it
        was. None for anything else."""
        if isinstance(op, ops.Reshape):
            inner = operands[0]
            same = isinstance(inner.op, ops.Reshape) and inner.inputs[0].shape == op.shape
            return inner.inputs[0] if same else None
        if not isinstance(op, ops.Slice | ops.Gather):
            return None
        if not isinstance(operands[0].op, (ops.Concat, *ops.ELEMENTWISE)):
            return None
        parts = self._elements(operands[0])
        if parts is None:
            return None
        place = np.arange(len(parts))
        if isinstance(op, ops.Slice):
            (start,), (count,), (step,) = op.starts, op.counts, op.steps
            if not all(0 <= at < len(parts) for at in (start, start + max(count - 1, 0) * step)):
                return None
            chosen = place[start] + step * np.arange(count)
        else:
            index = known_value(operands[1])
            if index is None or index.ndim > 1:
                return None
            if not ((index >= -len(parts)) & (index < len(parts))).all():
                return None
            chosen = place[index.reshape(-1)]
            if index.ndim == 0:
                return self.reshape(parts[int(chosen[0])], ())
        return self.concat([parts[at] for at in chosen.tolist()], 0) if chosen.size else None

    def _elements(self, node: Node) -> list[Node] | None:
        """The elements of a short vector of integers or bools as vectors of one element each."""
        if node not in self._parts:
            self._parts[node] = self._split(node)
        return self._parts[node]

    def _split(self, node: Node) -> list[Node] | None:
        if node.type.rank != 1 or node.type.dtype.is_float or node.shape[0] > SHORT:
            return None
        if node.shape == (1,):
            return [node]
        if node.data is not None:
            return [self.constant(node.data[at : at + 1]) for at in range(node.shape[0])]
        if not isinstance(node.op, (ops.Concat, *ops.ELEMENTWISE)):
            return None
        parts = [self._elements(part) for part in node.inputs]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return None
        if isinstance(node.op, ops.Concat):
            return [element for part in known for element in part]
        columns = zip(*known, strict=True)
        return [self.apply(node.op, *column, origin=node.origin) for column in columns]
