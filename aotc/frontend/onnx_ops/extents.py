"""Sizes that are numbers where they are known and graph nodes where they are not: operands and
declared shapes in, boxes of fixed shape and the extents filled in them out.

The box of a result is what the model declares of it, what the operator implies, or what the user
said with ``--max``; the run checks whatever does not follow from the operands' shapes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from aotc.errors import ModelError, UnsupportedError
from aotc.frontend.folding import known_value
from aotc.frontend.intervals import interval
from aotc.frontend.onnx_ops.call import KNOWN_ELEMS, Call, Result, Rule
from aotc.frontend.specialize import EVERYTHING
from aotc.frontend.values import Ragged
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType

Size = int | Node
"""A number of elements, or any other whole number: a node is i64[]."""

MAX_RANK = 16
"""More axes than this are not told apart at run time."""


def either(known: Rule, otherwise: Rule, *operands: int) -> Rule:
    """The rule that is ``known`` when input 0 is a plain tensor and the inputs at ``operands`` are
    constants or left out, else ``otherwise``."""

    def rule(call: Call) -> Result:
        plain = not isinstance(call.value(0), Ragged)
        return known(call) if plain and all(map(call.is_known, operands)) else otherwise(call)

    return rule


def simple(node: Node) -> Size:
    """``node``, an i64[], as a number when it is known."""
    value = known_value(node)
    return node if value is None else int(value.reshape(()))


def as_node(call: Call, size: Size) -> Node:
    """``size`` as i64[]."""
    return size if isinstance(size, Node) else call.constant(np.asarray(size, dtype=np.int64))


def compute(call: Call, fn: str, a: Size, b: Size) -> Size:
    """The `Binary` function of two sizes; a number when both are."""
    return simple(call.binary(fn, as_node(call, a), as_node(call, b)))


def choose(call: Call, condition: Node, a: Size, b: Size) -> Size:
    """``condition ? a : b``."""
    known = known_value(condition)
    if a == b or known is not None:
        return a if known is None or known.all() else b
    return simple(call.select(condition, as_node(call, a), as_node(call, b)))


def least(call: Call, size: Size) -> int | None:
    """The smallest that ``size`` can be; None when that is not known."""
    return size if isinstance(size, int) else interval(size, call.builder.limits)[0]


def product(call: Call, sizes: Sequence[Size]) -> Size:
    """The product of ``sizes``."""
    total: Size = 1
    for size in sizes:
        total = size if total == 1 else compute(call, "mul", total, size)
    return total


def holds(call: Call, fn: str, a: Size, b: Size) -> Node:
    """The comparison of two sizes, bool[]."""
    if a is b:
        return call.constant(np.asarray(fn in ("eq", "le", "ge")))
    return call.compare(fn, as_node(call, a), as_node(call, b))


def require(call: Call, condition: Node, sentence: str) -> None:
    """The run fails unless ``condition`` holds; ModelError when it is known not to."""
    value = known_value(condition)
    if value is not None and not value.all():
        raise ModelError(sentence)
    call.builder.check(condition, f"{call.origin}: {sentence}")


def elements(call: Call, index: int, what: str) -> list[Size]:
    """The whole numbers in input ``index`` (any rank, flattened)."""
    if call.is_known(index):
        return list(call.known_ints(index, what))
    node = call[index]
    if not node.type.dtype.is_int or node.type.elems > 4096:
        raise ModelError(f"its {what} (input {index}) must be a few integers, got {node.type}")
    flat = call.cast(call.reshape(node, (node.type.elems,)), DType.I64)
    parts = [call.slice_axis(flat, 0, at, 1) for at in range(node.type.elems)]
    return [simple(_uncast(call, part)) for part in parts]


def _uncast(call: Call, part: Node) -> Node:
    """An i64[1] as i64[], without a way through int32 on which nothing is lost."""
    if isinstance(part.op, ops.Cast):
        narrow = part.inputs[0]
        if isinstance(narrow.op, ops.Cast) and narrow.type.dtype is DType.I32:
            whole = call.reshape(narrow.inputs[0], ())
            low, high = interval(whole, call.builder.limits)
            # an interval has bounds that an int32 can hold, or none
            if whole.type.dtype is DType.I64 and low is not None and high is not None:
                return whole
    return call.reshape(part, ())


def data_of(call: Call, index: int) -> tuple[Node, tuple[Size, ...]]:
    """The tensor in input ``index``: its box and its sizes, of which those known at run time only
    are nodes."""
    value = call.value(index)
    if isinstance(value, Ragged):
        return value.node, value.extents
    return call[index], call[index].shape


def boxed(node: Node, extents: Sequence[Size]) -> Node | Ragged:
    """``node`` itself when all of it is filled."""
    if all(isinstance(size, int) for size in extents):
        return node
    return Ragged(node, tuple(extents))


def settle(
    call: Call, sizes: Sequence[Size], most: Sequence[int | None], output: int = 0
) -> tuple[tuple[int, ...], tuple[Size, ...]]:
    """The shape of the box for a result of ``sizes``, and the sizes as far as they are still open.

    A size that is not known is what the model declares, which the run checks; else the least of
    ``most`` (what the operator implies) and the user's bound. UnsupportedError when there is none.
    """
    declared = call.declared[output] if output < len(call.declared) else None
    if declared is not None and len(declared) != len(sizes):
        raise ModelError(
            f"its result has {len(sizes)} axes, the model declares {len(declared)}",
            remedy="the model contradicts itself: export it again",
        )
    box: list[int] = []
    extents: list[Size] = []
    for axis, (size, bound) in enumerate(zip(sizes, most, strict=True)):
        wanted = declared[axis] if declared is not None else None
        if isinstance(size, int):
            if size < 0:
                raise ModelError(f"axis {axis} of its result would have {size} elements")
            box.append(size)
            extents.append(size)
        elif isinstance(wanted, int):
            sentence = f"axis {axis} of its result must have {wanted} elements, as declared"
            require(call, holds(call, "eq", size, wanted), sentence)
            box.append(wanted)
            extents.append(wanted)
        else:
            limit = _limit(call, axis, size, bound, output)
            call.builder.limits.setdefault(size, (0, limit))
            if limit != bound:
                call.builder.check(
                    _within(call, size, limit),
                    f"{call.origin}: axis {axis} of its result has at most {limit} elements",
                )
            box.append(limit)
            extents.append(size)
    if EVERYTHING in call.bounds and list(extents) != box and math.prod(box) > KNOWN_ELEMS:
        raise UnsupportedError(
            f"its result has a size known at run time only, and up to {math.prod(box)} elements",
            remedy="declare its shape in the model, or give each such size its own bound: "
            f"--max {call.outputs[output]}=N",
        )
    return tuple(box), tuple(extents)


def _within(call: Call, size: Size, limit: int) -> Node:
    return call.binary("and", holds(call, "ge", size, 0), holds(call, "le", size, limit))


def _limit(call: Call, axis: int, size: Node, bound: int | None, output: int) -> int:
    """The most elements that an axis of a result can have."""
    name = call.outputs[output] if output < len(call.outputs) else ""
    given = call.bounds.get(name)
    _, computed = interval(size, call.builder.limits)
    known = [max(limit, 0) for limit in (bound, given, computed) if limit is not None]
    if not known and EVERYTHING in call.bounds:
        # only where nothing else bounds it: what the operator implies may well be larger
        return call.bounds[EVERYTHING]
    if not known:
        raise UnsupportedError(
            f"the size of axis {axis} of its result is computed at run time, and nothing says how "
            "large it can be",
            remedy=f"declare the shape of '{name}' in the model, or give its largest size: "
            f"--max {name}=N; or make the operand that decides it a constant",
        )
    return min(known)


def iota(call: Call, count: int) -> Node:
    """0, 1, 2, ...: i64[count]."""
    return call.apply(ops.Iota((count,), 0, DType.I64))


def along(call: Call, column: Node, axis: int, rank: int) -> Node:
    """A vector laid along ``axis`` of a tensor of ``rank`` axes, the others of size 1."""
    return call.reshape(column, [column.shape[0] if at == axis else 1 for at in range(rank)])


def box_mask(call: Call, shape: Sequence[int], extents: Sequence[Size]) -> Node | None:
    """Where a box of ``shape`` is filled, of sizes 1 along the axes that are whole; None when all
    are."""
    mask: Node | None = None
    for axis, size in enumerate(extents):
        if isinstance(size, Node):
            inside = call.compare("lt", iota(call, shape[axis]), size)
            column = along(call, inside, axis, len(shape))
            mask = column if mask is None else call.binary("and", mask, column)
    return mask


def spread(
    call: Call,
    axes: Sequence[Size] | None,
    rank: int,
    columns: Sequence[Sequence[Size]],
    defaults: Sequence[Size],
) -> list[list[Size] | None]:
    """For each of ``rank`` axes the entry of every column that belongs to it, None where none does.

    ``axes`` says to which axis each entry belongs, the first ones by default. Where it is computed
    at run time each axis takes one entry or the ``defaults``, and the run checks that the axes are
    different ones of the tensor.
    """
    count = len(columns[0])
    named = list(range(count)) if axes is None else list(axes)
    if any(len(column) != count for column in (*columns, named)) or count > rank:
        shown = ", ".join(str(len(column)) for column in (*columns, named))
        raise ModelError(f"its operands have {shown} numbers, which do not fit {rank} axes")
    found: list[list[Size] | None] = [None] * rank
    fixed = [axis for axis in named if isinstance(axis, int)]
    if len(fixed) == count:
        for place, axis in enumerate(call.axes(fixed, rank)):
            found[axis] = [column[place] for column in columns]
        return found
    if rank > MAX_RANK:
        raise call.unsupported(f"axes of a tensor of rank {rank} are computed at run time")
    hits = axis_hits(call, named, rank)
    for axis in range(rank):
        entry = list(defaults)
        for place in range(count):
            mine = [column[place] for column in columns]
            pairs = zip(mine, entry, strict=True)
            entry = [choose(call, hits[place][axis], own, other) for own, other in pairs]
        found[axis] = entry
    return found


def axis_hits(call: Call, named: Sequence[Size], rank: int) -> list[list[Node]]:
    """Whether entry i of ``named`` means axis j; the run checks that the entries mean different
    axes."""
    hits = []
    for axis in named:
        front = choose(
            call, holds(call, "lt", axis, 0), compute(call, "add", axis, rank), axis
        )
        hits.append([holds(call, "eq", front, at) for at in range(rank)])
    sentence = f"its axes must be different ones of a tensor of rank {rank}"
    for place, row in enumerate(hits):
        condition = any_of(call, row)
        for earlier in hits[:place]:
            both = [call.binary("and", a, b) for a, b in zip(row, earlier, strict=True)]
            condition = call.binary("and", condition, call.unary("not", any_of(call, both)))
        require(call, condition, sentence)
    return hits


def any_of(call: Call, conditions: Sequence[Node]) -> Node:
    """Whether one of ``conditions`` holds."""
    found = call.constant(np.asarray(False)) if not conditions else conditions[0]
    for condition in conditions[1:]:
        found = call.binary("or", found, condition)
    return found


def all_of(call: Call, conditions: Sequence[Node]) -> Node:
    """Whether all of ``conditions`` hold."""
    found = call.constant(np.asarray(True)) if not conditions else conditions[0]
    for condition in conditions[1:]:
        found = call.binary("and", found, condition)
    return found
