"""Forms of values: values from two paths of control go in, the one form that holds either comes
out, and values as the tensors of that form and back.

Where only sizes differ, the joint form is a box of the largest ones; where only one path has a
value or an element, it is optional or counted. A scalar counts as one element of the other's rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from aotc.errors import UnsupportedError
from aotc.frontend.folding import FoldingBuilder
from aotc.frontend.values import OptionalValue, Ragged, SequenceValue, Text, Value
from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Node
from aotc.graph.types import DType, TensorType

SIZE = TensorType(DType.I64, ())
FLAG = TensorType(DType.BOOL, ())


@dataclass(frozen=True)
class TensorLayout:
    """A tensor in a box of ``type``; ``ragged`` marks the axes whose size is a tensor of its
    own."""

    type: TensorType
    ragged: tuple[bool, ...]


@dataclass(frozen=True)
class TextLayout:
    """Strings as ``type``, u8[..., width]; ``ragged`` as in `TensorLayout`, without the width."""

    type: TensorType
    ragged: tuple[bool, ...]


@dataclass(frozen=True)
class SequenceLayout:
    """Elements; ``counted`` when their number is a tensor of its own."""

    items: tuple[Layout, ...]
    counted: bool


@dataclass(frozen=True)
class OptionalLayout:
    """A value and a flag that tells whether it is there; None: it never is."""

    value: Layout | None


Layout = TensorLayout | TextLayout | SequenceLayout | OptionalLayout


def layout_of(value: Value) -> Layout:
    """The form of ``value``; an optional value that is known to be there has that of the value."""
    match value:
        case Ragged(node=node, extents=extents):
            return TensorLayout(node.type, tuple(isinstance(size, Node) for size in extents))
        case Text(node=node, extents=extents):
            sizes = extents or ()
            ragged = tuple(isinstance(size, Node) for size in sizes) or (False,) * len(value.shape)
            return TextLayout(node.type, ragged)
        case SequenceValue(items=items, length=length):
            return SequenceLayout(tuple(map(layout_of, items)), length is not None)
        case OptionalValue(value=inner, present=present):
            if inner is None:
                return OptionalLayout(None)
            layout = layout_of(inner)
            return layout if present is True else OptionalLayout(layout)
    return TensorLayout(value.type, (False,) * value.type.rank)


def join(a: Layout, b: Layout) -> Layout:
    """The form that holds values of both; UnsupportedError when there is none."""
    if isinstance(a, OptionalLayout) or isinstance(b, OptionalLayout):
        return _join_optionals(a, b)
    match a, b:
        case TensorLayout(), TensorLayout():
            return _join_tensors(a, b)
        case TextLayout(), TextLayout():
            boxes = (TensorLayout(x.type, (*x.ragged, False)) for x in (a, b))
            joint = _join_tensors(*boxes)
            return TextLayout(joint.type, joint.ragged[:-1])
        case SequenceLayout(), SequenceLayout():
            shared = min(len(a.items), len(b.items))
            both = zip(a.items[:shared], b.items[:shared], strict=True)
            items = (*(join(*pair) for pair in both), *a.items[shared:], *b.items[shared:])
            counted = a.counted or b.counted or len(a.items) != len(b.items)
            return SequenceLayout(items, counted)
    raise UnsupportedError(
        f"a value is {describe(a)} on one way through it and {describe(b)} on another",
        remedy="make both ways give the same kind of value",
    )


def _join_optionals(a: Layout, b: Layout) -> OptionalLayout:
    inner = [x.value if isinstance(x, OptionalLayout) else x for x in (a, b)]
    held = [x for x in inner if x is not None]
    if not held:
        return OptionalLayout(None)
    return OptionalLayout(held[0] if len(held) == 1 else join(*held))


def _join_tensors(a: TensorLayout, b: TensorLayout) -> TensorLayout:
    if a.type.dtype is b.type.dtype and _is_single(a) and _is_single(b):
        # a scalar on one way and one element on the other: the form with more axes, since
        # a rank cannot depend on the run
        return max(a, b, key=lambda layout: layout.type.rank)
    if a.type.dtype is not b.type.dtype or a.type.rank != b.type.rank:
        raise UnsupportedError(
            f"a value is {describe(a)} on one way through it and {describe(b)} on another",
            remedy="make both ways give one element type and as many axes",
        )
    pairs = list(zip(a.type.dims, b.type.dims, strict=True))
    flags = zip(a.ragged, b.ragged, pairs, strict=True)
    return TensorLayout(
        TensorType(a.type.dtype, tuple(max(pair) for pair in pairs)),
        tuple(one or other or size != most for one, other, (size, most) in flags),
    )


def _is_single(layout: TensorLayout) -> bool:
    return layout.type.elems == 1 and not any(layout.ragged)


def describe(layout: Layout) -> str:
    """``layout`` in a message."""
    match layout:
        case TensorLayout(type=type_):
            return f"a tensor {type_}"
        case TextLayout():
            return "a tensor of strings"
        case SequenceLayout(items=items):
            return f"a sequence of {len(items)}"
    return "an optional value"


def types(layout: Layout) -> list[TensorType]:
    """The types of the tensors of ``layout``."""
    match layout:
        case TensorLayout(type=type_, ragged=ragged):
            return [type_, *[SIZE] * sum(ragged)]
        case TextLayout(type=type_, ragged=ragged):
            return [type_, *[SIZE] * sum(ragged)]
        case SequenceLayout(items=items, counted=counted):
            return [type_ for item in items for type_ in types(item)] + [SIZE] * counted
        case OptionalLayout(value=inner):
            return [] if inner is None else [*types(inner), FLAG]


def parts(builder: Builder, value: Value, layout: Layout) -> list[Node]:
    """The tensors of ``value`` in the form ``layout``.

    A ragged size beyond the layout's box is a check that fails at run time.
    """
    if isinstance(layout, OptionalLayout):
        return _optional_parts(builder, value, layout)
    match value, layout:
        case OptionalValue(value=inner), _ if inner is not None:
            return parts(builder, inner, layout)
        case Text(node=node, extents=extents), TextLayout(type=type_, ragged=ragged):
            sizes = [*(value.shape if extents is None else extents), value.width]
            return _box_parts(builder, node, sizes, type_, (*ragged, False))
        case SequenceValue(items=items), SequenceLayout():
            nodes = []
            for place, form in enumerate(layout.items):
                known = place < len(items)
                nodes += parts(builder, items[place], form) if known else filler(builder, form)
            if layout.counted:
                nodes.append(length_of(builder, value))
            return nodes
        case (Node() | Ragged(), TensorLayout(type=type_, ragged=ragged)):
            if isinstance(value, Ragged):
                return _box_parts(builder, value.node, value.extents, type_, ragged)
            return _box_parts(builder, value, value.shape, type_, ragged)
    raise AssertionError(layout)


def _box_parts(
    builder: Builder,
    node: Node,
    extents: Sequence[int | Node],
    type_: TensorType,
    ragged: Sequence[bool],
) -> list[Node]:
    """``node`` in a box of ``type_``, and its size on each ``ragged`` axis."""
    if node.type.rank != type_.rank:
        return [builder.reshape(node, type_.dims, node.origin)]
    sizes = [_size(builder, size) for size in extents]
    for size, most, box in zip(sizes, type_.dims, node.shape, strict=True):
        if box > most:
            fits = builder.compare("le", size, builder.constant(most, DType.I64))
            builder.check(fits, f"a size that changes in a loop exceeds {most}")
    chosen = [size for size, own in zip(sizes, ragged, strict=True) if own]
    return [_boxed(builder, node, type_.dims), *chosen]


def _size(builder: Builder, size: int | Node) -> Node:
    return size if isinstance(size, Node) else builder.constant(size, DType.I64)


def _optional_parts(builder: Builder, value: Value, layout: OptionalLayout) -> list[Node]:
    if layout.value is None:
        return []
    if not isinstance(value, OptionalValue):
        return [*parts(builder, value, layout.value), builder.constant(True, DType.BOOL)]
    if value.value is None:
        return [*filler(builder, layout.value), builder.constant(False, DType.BOOL)]
    return [*parts(builder, value.value, layout.value), flag_of(builder, value)]


def flag_of(builder: Builder, value: OptionalValue) -> Node:
    """Whether ``value`` is there, bool[]."""
    if isinstance(value.present, Node):
        return value.present
    return builder.constant(value.value is not None, DType.BOOL)


def length_of(builder: Builder, value: SequenceValue) -> Node:
    """The number of elements, i64[]."""
    if value.length is not None:
        return value.length
    return builder.constant(len(value.items), DType.I64)


def filler(builder: Builder, layout: Layout) -> list[Node]:
    """Zeros in the form ``layout``."""
    zeros = []
    for type_ in types(layout):
        zero = builder.constant(0, type_.dtype)
        zeros.append(builder.broadcast(zero, type_.dims))
    return zeros


def _boxed(builder: Builder, node: Node, box: tuple[int, ...]) -> Node:
    """``node`` padded with zeros, or cut, to the sizes of ``box``."""
    kept = tuple(min(pair) for pair in zip(node.shape, box, strict=True))
    if kept != node.shape:
        rank = node.type.rank
        node = builder.apply(ops.Slice((0,) * rank, kept, (1,) * rank), node, origin=node.origin)
    missing = tuple(most - size for most, size in zip(box, kept, strict=True))
    if not any(missing):
        return node
    return builder.apply(ops.Pad((0,) * len(box), missing, 0.0), node, origin=node.origin)


def assemble(layout: Layout, nodes: Iterator[Node]) -> Value:
    """The value that the next of ``nodes`` hold in the form ``layout``."""
    match layout:
        case TensorLayout(type=type_, ragged=ragged):
            node = next(nodes)
            if not any(ragged):
                return node
            sizes = zip(type_.dims, ragged, strict=True)
            return Ragged(node, tuple(next(nodes) if own else size for size, own in sizes))
        case TextLayout(type=type_, ragged=ragged):
            node = next(nodes)
            if not any(ragged):
                return Text(node)
            sizes = zip(type_.dims[:-1], ragged, strict=True)
            return Text(node, tuple(next(nodes) if own else size for size, own in sizes))
        case SequenceLayout(items=items, counted=counted):
            values = tuple(assemble(item, nodes) for item in items)
            return SequenceValue(values, next(nodes) if counted else None)
        case OptionalLayout(value=inner):
            if inner is None:
                return OptionalValue(None, present=False)
            return OptionalValue(assemble(inner, nodes), next(nodes))


def assemble_all(
    builder: FoldingBuilder, layouts: Iterable[Layout], nodes: Sequence[Node]
) -> list[Value]:
    """The values that ``nodes`` hold in the forms ``layouts``, one after the other."""
    rest = iter(nodes)
    return [bounded(builder, assemble(layout, rest)) for layout in layouts]


def bounded(builder: FoldingBuilder, value: Value) -> Value:
    """``value``; the builder learns that its sizes lie within its boxes."""
    match value:
        case Ragged(node=node, extents=tuple(extents)) | Text(node=node, extents=tuple(extents)):
            for size, most in zip(extents, node.shape, strict=False):
                if isinstance(size, Node):
                    builder.limits.setdefault(size, (0, most))
        case SequenceValue(items=items, length=length):
            if length is not None:
                builder.limits.setdefault(length, (0, len(items)))
            for item in items:
                bounded(builder, item)
        case OptionalValue(value=inner) if inner is not None:
            bounded(builder, inner)
    return value


def choose(builder: Builder, condition: Node, a: Value, b: Value) -> Value:
    """``a`` where ``condition`` (bool[]) holds, else ``b``; both are computed. UnsupportedError
    when one form cannot hold both."""
    if condition.data is not None:
        return a if condition.data else b
    if a is b:
        return a
    match a, b:
        case SequenceValue(), SequenceValue():
            shared = min(len(a.items), len(b.items))
            both = zip(a.items[:shared], b.items[:shared], strict=True)
            items = [choose(builder, condition, *pair) for pair in both]
            # beyond the length of one side, whatever the other holds will do
            items += [*a.items[shared:], *b.items[shared:]]
            lengths = [length_of(builder, a), length_of(builder, b)]
            exact = a.length is None and b.length is None and len(a.items) == len(b.items)
            length = None if exact else _select(builder, condition, *lengths)
            return SequenceValue(tuple(items), length)
        case (OptionalValue(), _) | (_, OptionalValue()):
            return _choose_optional(builder, condition, _as_optional(a), _as_optional(b))
    layout = join(layout_of(a), layout_of(b))
    pairs = zip(parts(builder, a, layout), parts(builder, b, layout), strict=True)
    return assemble(layout, iter([_select(builder, condition, *pair) for pair in pairs]))


def _as_optional(value: Value) -> OptionalValue:
    return value if isinstance(value, OptionalValue) else OptionalValue(value, present=True)


def _choose_optional(
    builder: Builder, condition: Node, a: OptionalValue, b: OptionalValue
) -> Value:
    flag = _select(builder, condition, flag_of(builder, a), flag_of(builder, b))
    if a.value is None or b.value is None:
        return OptionalValue(a.value if b.value is None else b.value, flag)
    return present_or(choose(builder, condition, a.value, b.value), flag)


def present_or(value: Value, flag: Node) -> Value:
    """``value`` if ``flag`` (bool[]) holds, else nothing."""
    if flag.data is None:
        return OptionalValue(value, flag)
    return OptionalValue(value, True) if flag.data else OptionalValue(None, False)


def _select(builder: Builder, condition: Node, a: Node, b: Node) -> Node:
    return a if a is b else builder.select(condition, a, b)
