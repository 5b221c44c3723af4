"""Which tensors a GPU holds in 16 bits between kernels: groups of a graph and a target go in, the
stored type of each such tensor comes out, and the groups that are left.

With ``--precision f16`` or ``bf16`` a product rounds what it multiplies to 16 bits. So what only
products read is rounded when it is stored, which changes nothing; and so is what lies on the way
from one product to another (results of products, of windows, of pointwise nodes, softmax and
norms), which costs one more rounding of it. float32 stay:

- inputs, outputs, constants, and tensors in control flow, whose places others know;
- everything before the first product, unless it is normalized, and behind the last one:
  coordinates, scores, losses;
- what a function reads that magnifies or cuts (logarithms, divisors, roots, angles, rounding to
  integers, comparison with other than zero), and what an exponential or a power gives;
- sums over rows and over axes, which are few;
- what an operator reads that is none of these (sorting, running sums, scattered updates).

Arithmetic and sums are float32 everywhere. In every precision, a tensor whose numbers have no more
bits, because the model rounds them, is held in as many; and what merely makes float32 of stored
float16 or bfloat16 is a view of these, not a kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import ml_dtypes
import numpy as np

from aotc.fuse.groups import VIEW_OPS, Group, GroupKind, Groups
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType
from aotc.lower.context import Held, scalar_value
from aotc.target import Target

#: What a tensor is stored as, by precision; bfloat16 as its bits.
STORED: Mapping[str, DType] = MappingProxyType({"f16": DType.F16, "bf16": DType.U16})
#: Kinds of groups whose kernels read and write by way of Access.
_KINDS = frozenset(
    (GroupKind.CONTRACT, GroupKind.DEPTHWISE, GroupKind.WINDOW, GroupKind.MAP)
    + (GroupKind.ROWS, GroupKind.REDUCE)
)
_MOVERS = (ops.Pad, ops.Concat, ops.Gather)
#: Functions that turn a small relative error of their operand into a small error of their result.
_TAME = frozenset(
    ["neg", "abs", "exp", "tanh", "erf", "sigmoid", "sinh", "cosh", "atan", "asinh", "sign"]
    + ["isnan", "isinf"]
)
_TAME_PAIRS = frozenset(["add", "sub", "mul", "max", "min"])
#: Functions whose results differ by as much as they can where operands differ by little.
_STEPS = frozenset(["floor", "ceil", "round", "mod"])
#: Functions whose results have a range, or a precision, that 16 bits have not.
_WIDE = frozenset(["exp", "log", "reciprocal", "pow", "sinh", "cosh", "tan"])


@dataclass(frozen=True)
class _Readers:
    """What reads a tensor, views looked through. ``known``: by kernels that can read 16 bits;
    ``tolerant``: it bears one more rounding; ``rounding``: it rounds by itself."""

    known: bool = True
    tolerant: bool = True
    rounding: bool = True

    def __and__(self, other: _Readers) -> _Readers:
        return _Readers(
            self.known and other.known,
            self.tolerant and other.tolerant,
            self.rounding and other.rounding,
        )


_OUTSIDE = _Readers(False, False, False)


def hold(groups: Groups, target: Target) -> tuple[Groups, Held]:
    """``groups`` without those that only decode 16-bit floats, and what is held in 16 bits."""
    if not target.is_gpu:
        return groups, Held()
    facts = Facts(groups)
    decoded = {
        group.result: source
        for group in groups.groups
        if (source := _encoded(group)) is not None and facts.readers[group.result].known
    }
    rest = tuple(group for group in groups.groups if group.result not in decoded)
    rounded = STORED.get(target.precision)
    stored: dict[Node, DType] = {}
    for group in rest:
        kept = facts.exact.get(group.result)
        if kept is not None and facts.may_show(group):
            stored[group.result] = kept
        elif rounded is not None and facts.may_round(group):
            stored[group.result] = rounded
    return replace(groups, groups=rest), Held(stored, decoded)


def _encoded(group: Group) -> Node | None:
    """The node with the float16, or the bits of bfloat16, that ``group`` makes float32 of, if it
    does nothing else."""
    result = group.result
    if group.kind is not GroupKind.MAP or result.type.dtype is not DType.F32:
        return None
    if len(group.nodes) == 1 and isinstance(result.op, ops.Cast):
        (code,) = result.inputs
        return code if code.type.dtype is DType.F16 else None
    wide = _bits_by(result, "shl", 16)
    if len(group.nodes) != 3 or wide is None or not isinstance(wide.op, ops.Cast):
        return None
    (code,) = wide.inputs
    return code if code.type.dtype is DType.U16 and wide in group.nodes else None


def _bits_by(node: Node, fn: str, number: int) -> Node | None:
    """The integer of which ``node`` shows the bits as float32 after ``fn`` with ``number``."""
    if not isinstance(node.op, ops.Bitcast) or node.type.dtype is not DType.F32:
        return None
    (bits,) = node.inputs
    if not isinstance(bits.op, ops.Binary) or bits.op.fn != fn:
        return None
    return bits.inputs[0] if scalar_value(bits.inputs[1]) == number else None


def _exact_types(nodes: Sequence[Node]) -> dict[Node, DType]:
    """The 16-bit types, bfloat16 as U16, of float32 nodes whose numbers have no more bits."""
    found: dict[Node, DType] = {}
    for node in nodes:
        op = node.op
        if isinstance(op, ops.Cast) and node.type.dtype is DType.F32:
            if node.inputs[0].type.dtype is DType.F16:
                found[node] = DType.F16
        elif _bits_by(node, "and", -(1 << 16)) or _bits_by(node, "shl", 16):
            found[node] = DType.U16
        elif isinstance(op, (*VIEW_OPS, *_MOVERS)) and node.type.dtype is DType.F32:
            moved = node.inputs if isinstance(op, ops.Concat) else node.inputs[:1]
            types = {found.get(operand) for operand in moved}
            kept = types.pop()
            if kept is not None and not types and _has_border(node, kept):
                found[node] = kept
    return found


def _has_border(node: Node, kept: DType) -> bool:
    """Whether the border that ``node`` adds, if it is a Pad, is exact in ``kept`` too."""
    if not isinstance(node.op, ops.Pad):
        return True
    short = np.float16 if kept is DType.F16 else ml_dtypes.bfloat16
    with np.errstate(over="ignore"):
        value = np.float32(node.op.value)
        return bool(value.astype(short).astype(np.float32) == value)


class Facts:
    """What is known of the nodes of one graph: who reads each, and whether it lies before or behind
    a product."""

    def __init__(self, groups: Groups) -> None:
        graph = groups.graph
        nodes = list(graph.nodes())
        self._users = graph.users()
        self._home = {node: group for group in groups.groups for node in group.nodes}
        self._ends = {node for _, node in (*graph.outputs, *graph.checks)}
        self._behind: set[Node] = set()
        for node in nodes:
            if _is_product(node) or any(x in self._behind for x in node.inputs):
                self._behind.add(node)
        self._before: set[Node] = set()
        for node in reversed(nodes):
            if any(_is_product(user) or user in self._before for user in self._users[node]):
                self._before.add(node)
        self._wavering = self._not_continuous(nodes)
        self.exact = _exact_types(nodes)
        self.readers: dict[Node, _Readers] = {}
        for node in reversed(nodes):
            found = _OUTSIDE if node in self._ends else _Readers()
            for user in self._users[node]:
                found = found & self._reader(user, node)
            self.readers[node] = found

    def may_show(self, group: Group) -> bool:
        """Whether the result of ``group`` can be held in 16 bits, if these have all of it."""
        node = group.result
        moves = group.kind is GroupKind.MOVE and isinstance(node.op, _MOVERS)
        if node.type.dtype is not DType.F32 or not node.shape or group.others:
            return False
        if isinstance(node.op, VIEW_OPS):
            return False  # a name of what lies elsewhere
        return (moves or group.kind in _KINDS) and self.readers[node].known

    def may_round(self, group: Group) -> bool:
        """Whether the result of ``group`` is rounded to 16 bits."""
        node, readers = group.result, self.readers[group.result]
        if group.kind is GroupKind.REDUCE or not self.may_show(group):
            return False
        if group.kind is GroupKind.ROWS and node.shape != group.anchor.inputs[0].shape:
            return False  # one value for each row
        if getattr(node.op, "fn", "") in _WIDE and not readers.rounding:
            return False
        begun = node in self._behind or group.kind is GroupKind.ROWS
        between = begun and node in self._before
        return readers.tolerant and (readers.rounding or between)

    def _reader(self, user: Node, node: Node) -> _Readers:
        """``user`` as a reader of ``node``."""
        group = self._home.get(user)
        if group is None:
            looks_through = isinstance(user.op, VIEW_OPS) and not isinstance(user.op, ops.Relabel)
            return self.readers[user] if looks_through else _OUTSIDE
        if isinstance(user.op, _MOVERS):
            # the moved elements are as exact as these, whatever they are stored in
            return replace(self.readers[user], known=user.inputs[0] is node or not _gathers(user))
        if group.kind not in _KINDS or isinstance(user.op, ops.Bitcast):
            return _OUTSIDE  # bits are those of float32, of NaN too
        if _is_product(user):
            return _Readers(rounding=group.kind is GroupKind.CONTRACT)
        return _Readers(tolerant=user not in self._wavering and _bears(user, node), rounding=False)

    def _not_continuous(self, nodes: Sequence[Node]) -> set[Node]:
        """The nodes from which, within their group, a step follows."""
        found: set[Node] = set()
        for node in reversed(nodes):
            group = self._home.get(node)
            later = (user for user in self._users[node] if self._home.get(user) is group)
            if group is not None and (_is_step(node) or any(user in found for user in later)):
                found.add(node)
        return found


def _gathers(node: Node) -> bool:
    return isinstance(node.op, ops.Gather)


def _is_product(node: Node) -> bool:
    return isinstance(node.op, (ops.Dot, ops.Conv))


def _is_step(node: Node) -> bool:
    """Whether ``node`` jumps somewhere; which side of zero a number is on, rounding leaves as it
    is."""
    match node.op:
        case ops.Compare(fn=fn):
            with_zero = any(scalar_value(operand) == 0 for operand in node.inputs)
            return fn in ("eq", "ne") or not with_zero
        case ops.Cast(dtype=dtype):
            return node.inputs[0].type.dtype.is_float and not dtype.is_float
    return getattr(node.op, "fn", "") in _STEPS


def _bears(user: Node, node: Node) -> bool:
    """Whether a small relative error of the operand ``node`` is a small error of ``user``."""
    match user.op:
        case ops.Unary(fn=fn):
            return fn in _TAME
        case ops.Binary(fn="div"):
            return user.inputs[1] is not node
        case ops.Binary(fn="pow"):
            exponent = scalar_value(user.inputs[1])
            return exponent is not None and exponent >= 1
        case ops.Binary(fn=fn):
            return fn in _TAME_PAIRS
        case ops.Reduce(fn=fn):
            return fn in ("sum", "max", "min")
        case ops.Cast(dtype=dtype):
            return dtype.is_float
    return isinstance(user.op, (ops.Compare, ops.Select, ops.ReduceWindow, *VIEW_OPS))
