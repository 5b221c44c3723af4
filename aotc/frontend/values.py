"""What a name in an ONNX model can stand for: tensors as graph nodes, and what is made of them.

The graph knows tensors of fixed shapes only. Whatever else ONNX has is taken apart while the model
is read: a size known at run time only becomes a scalar beside a tensor of the largest size, a
sequence becomes its elements, text becomes bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from aotc.errors import ModelError
from aotc.graph.ir import Node
from aotc.graph.types import DType, TensorType


@dataclass(frozen=True)
class Ragged:
    """A tensor some of whose sizes are known at run time only.

    ``node`` is a box of the largest sizes; the tensor fills its corner at index 0, what lies beyond
    is unspecified. ``extents`` has one entry per axis: the size itself where it is fixed (then it
    is the box's), else a node (i64[]) with a value from 0 to the box's size.
    """

    node: Node
    extents: tuple[int | Node, ...]

    def __post_init__(self) -> None:
        if len(self.extents) != self.node.type.rank:
            raise ModelError(f"{len(self.extents)} sizes for {self.node.type}")
        for size, most in zip(self.extents, self.node.shape, strict=True):
            if isinstance(size, Node):
                assert size.type == TensorType(DType.I64, ())
            elif size != most:
                raise ModelError(f"a size of {size} in a box of {most}")


@dataclass(frozen=True)
class Text:
    """A tensor of strings: ``node`` is u8[..., width], UTF-8 padded with NUL bytes to ``width``.

    ``extents`` are its sizes (without the width) when some are known at run time only, as those of
    `Ragged`; strings beyond them are unspecified.
    """

    node: Node
    extents: tuple[int | Node, ...] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the tensor of strings."""
        return self.node.shape[:-1]

    @property
    def elems(self) -> int:
        """The number of strings, in all of the box."""
        return math.prod(self.shape)

    @property
    def width(self) -> int:
        """The most bytes of a string."""
        return self.node.shape[-1]


@dataclass(frozen=True)
class SequenceValue:
    """A sequence: as many ``items`` as it can hold. ``length`` is None when it holds all of them,
    else a node (i64[]); items from there on are unspecified."""

    items: tuple[Value, ...]
    length: Node | None = None


@dataclass(frozen=True)
class OptionalValue:
    """A value that may be absent. ``value`` is None when it is known to be; ``present`` is True
    when it is known to be there, else a node (bool[])."""

    value: Value | None
    present: bool | Node


Value = Node | Ragged | Text | SequenceValue | OptionalValue


def map_nodes(value: Value, change: Callable[[Node], Node]) -> Value:
    """``value`` with ``change`` applied to every node in it; sizes that are numbers stay."""
    match value:
        case Ragged(node=node, extents=extents):
            sizes = (change(size) if isinstance(size, Node) else size for size in extents)
            return Ragged(change(node), tuple(sizes))
        case Text(node=node, extents=tuple(extents)):
            sizes = (change(size) if isinstance(size, Node) else size for size in extents)
            return Text(change(node), tuple(sizes))
        case Text(node=node):
            return Text(change(node))
        case SequenceValue(items=items, length=length):
            count = None if length is None else change(length)
            return SequenceValue(tuple(map_nodes(item, change) for item in items), count)
        case OptionalValue(value=inner, present=present):
            held = None if inner is None else map_nodes(inner, change)
            flag = change(present) if isinstance(present, Node) else present
            return OptionalValue(held, flag)
    return change(value)


def kind_of(value: Value) -> str:
    """What to call the kind of ``value`` in a message."""
    names = {
        Ragged: "a tensor of run-time size",
        Text: "a tensor of strings",
        SequenceValue: "a sequence",
        OptionalValue: "an optional value",
    }
    return names.get(type(value), "a tensor")
