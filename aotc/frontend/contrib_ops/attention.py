"""Attention of com.microsoft: a `Call` goes in; products, softmax and masks come out.

Semantics as on ONNX Runtime's page of contributed operators (docs/ContribOperators.md). Heads are
carried as [batch, heads, length, size].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.contrib_ops.rotary import rotated
from aotc.frontend.onnx_ops.activation import softmax_over
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.onnx_ops.linalg import matrix_product
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType

NEVER = -3.4028234663852886e38
"""What a position in the future is worth before softmax: the least float32."""


@dataclass(frozen=True)
class Heads:
    """Queries [B, N, S, H], keys [B, N, T, H] and values [B, N, T, V]."""

    query: Node
    key: Node
    value: Node


def split_heads(call: Call, x: Node, heads: int) -> Node:
    """[B, S, N H] as [B, N, S, H]."""
    if x.type.rank != 3 or heads < 1 or x.shape[2] % heads:
        raise ModelError(f"{x.type} does not split into {heads} heads")
    batch, length, width = x.shape
    return call.transpose(call.reshape(x, (batch, length, heads, width // heads)), (0, 2, 1, 3))


def join_heads(call: Call, x: Node) -> Node:
    """[B, N, S, H] as [B, S, N H]."""
    batch, heads, length, size = x.shape
    return call.reshape(call.transpose(x, (0, 2, 1, 3)), (batch, length, heads * size))


def scores(call: Call, query: Node, key: Node) -> Node:
    """``scale Q K^T`` with the attribute's scale or one over the root of the size of a head."""
    scale = call.attrs.real("scale", 0.0) or query.shape[3] ** -0.5
    y = matrix_product(call, query, call.transpose(key, (0, 1, 3, 2)))
    return call.binary("mul", y, scale)


def weighted(call: Call, y: Node, value: Node) -> Node:
    """The values weighted by the softmax of ``y``, heads joined."""
    return join_heads(call, matrix_product(call, softmax_over(call, y, 3), value))


def _ramp(call: Call, shape: tuple[int, ...], axis: int) -> Node:
    return call.apply(ops.Iota(shape, axis, DType.I32))


def _causal(call: Call, y: Node) -> Node:
    """``y`` [B, N, S, T] without what comes after each of the S last of T positions."""
    length, total = y.shape[2:]
    now = call.binary("add", _ramp(call, (length, 1), 0), total - length)
    allowed = call.compare("le", _ramp(call, (1, total), 1), now)
    return call.select(allowed, y, call.scalar(NEVER, y))


def _mask_bias(call: Call, mask: Node, y: Node, filtered: float) -> Node:
    """What a mask over keys adds to ``y`` [B, N, S, T], stretchable to it: 0 where it allows."""
    batch, _, length, total = y.shape
    places = _ramp(call, (1, 1, 1, total), 3)
    if mask.type.rank == 1 and mask.shape[0] in (batch, 2 * batch):
        ends = call.reshape(call.slice_axis(mask, 0, 0, batch), (batch, 1, 1, 1))
        allowed = call.compare("lt", places, call.cast(ends, DType.I32))
        if mask.shape[0] == 2 * batch:
            starts = call.reshape(call.slice_axis(mask, 0, batch, batch), (batch, 1, 1, 1))
            late = call.compare("ge", places, call.cast(starts, DType.I32))
            allowed = call.binary("and", allowed, late)
    else:
        shapes = {2: (batch, 1, 1, total), 3: (batch, 1, length, total)}
        shape = shapes.get(mask.type.rank, ())
        if mask.shape not in ((batch, total), (batch, length, total)):
            raise call.unsupported(f"a mask {mask.type} is not supported")
        allowed = call.compare("gt", call.reshape(call.cast(mask, DType.I32), shape), 0)
    return call.select(allowed, call.scalar(0.0, y), call.scalar(filtered, y))


def attend(call: Call, heads: Heads, mask: Node | None, bias: Node | None) -> Node:
    """Attention with what Attention and MultiHeadAttention have in common, heads joined."""
    y = scores(call, heads.query, heads.key)
    if mask is not None:
        filtered = call.attrs.real("mask_filter_value", -10000.0)
        y = call.binary("add", y, _mask_bias(call, mask, y, filtered))
    y = _causal(call, y) if call.attrs.flag("unidirectional") else y
    if bias is not None:
        y = call.binary("add", y, bias)
    return weighted(call, y, heads.value)


def attention(call: Call) -> Sequence[Node | None]:
    """Self-attention with the projection: inputs x, weights, bias, mask, past, bias of scores."""
    x, weights = call[0], call[1]
    if call.attrs.flag("do_rotary") or call.attrs.flag("past_present_share_buffer"):
        raise call.unsupported("rotation and shared buffers inside Attention are not supported")
    count = call.attrs.integer("num_heads")
    third = weights.shape[-1] // 3
    widths = call.attrs.integers("qkv_hidden_sizes", (third,) * 3) or (third,) * 3
    if x.type.rank != 3 or len(widths) != 3 or sum(widths) != weights.shape[-1]:
        raise ModelError(f"{x.type} and {weights.type} do not fit sizes {widths}")
    y = matrix_product(call, x, weights)
    projection = call.optional(2)
    y = y if projection is None else call.binary("add", y, projection)
    starts = (0, widths[0], widths[0] + widths[1])
    query, key, value = (
        split_heads(call, call.slice_axis(y, 2, start, width), count)
        for start, width in zip(starts, widths, strict=True)
    )
    past = call.optional(4)
    if past is not None:
        old = [call.reshape(call.slice_axis(past, 0, i, 1), past.shape[1:]) for i in range(2)]
        key, value = call.concat([old[0], key], 2), call.concat([old[1], value], 2)
    result = attend(call, Heads(query, key, value), call.optional(3), call.optional(5))
    if not any(call.output_used[1:]):
        return [result]
    if key.shape != value.shape:
        raise ModelError(f"keys {key.type} and values {value.type} do not stack")
    stacked = [call.reshape(node, (1, *node.shape)) for node in (key, value)]
    return [result, call.concat(stacked, 0)]


def multi_head_attention(call: Call) -> Sequence[Node]:
    """Attention without the projection: inputs query, key, value, bias, mask over keys, bias of
    scores, past keys and values."""
    count = call.attrs.integer("num_heads")
    query, key, value = call[0], call.optional(1), call.optional(2)
    if key is None or value is None or query.type.rank != 3:
        raise call.unsupported("queries, keys and values packed in one tensor are not supported")
    if any(call.value(index) is not None for index in (8, 9)):
        raise call.unsupported("beams and shared buffers are not supported")
    inputs, bias, start = [query, key, value], call.optional(3), 0
    heads = []
    for x in inputs:
        width = x.shape[1] * x.shape[3] if x.type.rank == 4 else x.shape[-1]
        if bias is not None and bias.shape == (sum(n.shape[-1] for n in inputs),):
            x = call.binary("add", x, call.slice_axis(bias, 0, start, width))
        elif bias is not None:
            raise call.unsupported(f"a bias {bias.type} is not supported here")
        start += width
        heads.append(x if x.type.rank == 4 else split_heads(call, x, count))
    query, key, value = heads
    past_key, past_value = call.optional(6), call.optional(7)
    if past_key is not None and past_value is not None:
        key, value = call.concat([past_key, key], 2), call.concat([past_value, value], 2)
    result = attend(call, Heads(query, key, value), call.optional(4), call.optional(5))
    return [result, key, value]


def group_query_attention(call: Call) -> Sequence[Node]:
    """Causal attention of several query heads to one head of keys and values, which are kept in
    a cache: inputs query, key, value, past key, past value, last position of each batch, total
    length, cosines, sines."""
    _refuse_group_options(call)
    count, kept = call.attrs.integer("num_heads"), call.attrs.integer("kv_num_heads")
    if kept < 1 or count % kept:
        raise ModelError(f"{count} heads do not fall into {kept} groups")
    query, key, value = _grouped_inputs(call, count, kept)
    batch, _, length, _ = query.shape
    last = call.cast(call.reshape(call[5], (batch, 1)), DType.I64)
    before = call.binary("max", call.binary("sub", last, length - 1), 0)
    places = call.apply(ops.Iota((1, length), 1, DType.I64))
    positions = call.binary("add", before, places)
    if call.attrs.flag("do_rotary"):
        paired = call.attrs.flag("rotary_interleaved")
        query = rotated(call, query, call[7], call[8], positions, paired)
        key = rotated(call, key, call[7], call[8], positions, paired)
    total = _total_length(call, length)
    keys, values = (
        _cached(call, call.optional(index), new, before, total)
        for index, new in ((3, key), (4, value))
    )
    y = scores(call, query, _repeated(call, keys, count // kept))
    cap = call.attrs.real("softcap", 0.0)
    if cap:
        y = call.binary("mul", call.unary("tanh", call.binary("mul", y, 1.0 / cap)), cap)
    now = call.reshape(positions, (batch, 1, length, 1))
    at = call.apply(ops.Iota((1, 1, 1, total), 3, DType.I64))
    allowed = call.compare("le", at, now)
    window = call.attrs.integer("local_window_size", -1)
    if window > 0:
        allowed = call.binary(
            "and", allowed, call.compare("gt", at, call.binary("sub", now, window))
        )
    bias = call.optional(10)
    y = y if bias is None else call.binary("add", y, bias)
    y = call.select(allowed, y, call.scalar(NEVER, y))
    return [weighted(call, y, _repeated(call, values, count // kept)), keys, values]


def _refuse_group_options(call: Call) -> None:
    if any(call.value(index) is not None for index in range(11, len(call.inputs))):
        raise call.unsupported("sinks, quantised caches and normalised heads are not supported")
    if not call.attrs.flag("causal", True) or call.attrs.flag("sliding_window_cache"):
        raise call.unsupported("attention to the future and sliding caches are not supported")
    if call.attrs.integer("smooth_softmax", 0) > 0 or call.attrs.integer("qk_output", 0):
        raise call.unsupported("smooth softmax and scores as an output are not supported")
    if call.value(9) is not None:
        raise call.unsupported("positions as an input are not supported")


def _grouped_inputs(call: Call, count: int, kept: int) -> tuple[Node, Node, Node]:
    query, key, value = call[0], call.optional(1), call.optional(2)
    if (key is None) != (value is None):
        raise ModelError("keys come without values, or values without keys")
    if key is None or value is None:
        size = query.shape[-1] // (count + 2 * kept)
        ends = (0, count * size, (count + kept) * size)
        widths = (count * size, kept * size, kept * size)
        query, key, value = (
            call.slice_axis(query, 2, start, width)
            for start, width in zip(ends, widths, strict=True)
        )
    return (
        split_heads(call, query, count),
        split_heads(call, key, kept),
        split_heads(call, value, kept),
    )


def _total_length(call: Call, length: int) -> int:
    """How long the cache is afterwards: the past's room, or what the model's total says."""
    past = call.optional(3)
    room = 0 if past is None else past.shape[2]
    if call.is_known(6):
        return max(room, call.known_int(6, "total length"))
    if room < length:
        raise call.unsupported(
            "the total length (input 6) is computed at run time",
            remedy="give the past keys and values room for all positions",
        )
    total = call.cast(call.reshape(call[6], ()), DType.I64)
    fits = call.compare("le", total, room)
    call.builder.check(fits, f"{call.origin}: no more than {room} positions fit into the cache")
    return room


def _cached(call: Call, past: Node | None, new: Node, before: Node, total: int) -> Node:
    """The cache [B, N, total, H] with ``new`` [B, N, S, H] at the positions from ``before``
    [B, 1]."""
    batch, heads, length, size = new.shape
    room = 0 if past is None else past.shape[2]
    zero = call.broadcast(call.scalar(0.0, new), (batch, heads, total - room, size))
    parts = ([] if past is None else [past]) + ([zero] if total > room else [])
    old = call.concat(parts, 2)
    at = call.apply(ops.Iota((1, total), 1, DType.I64))
    place = call.binary("sub", at, before)
    inside = call.binary(
        "and", call.compare("ge", place, 0), call.compare("lt", place, length)
    )
    place = call.binary("min", call.binary("max", place, 0), length - 1)
    if length == 1:
        fresh = new
    else:
        rows = call.transpose(new, (0, 2, 1, 3))
        taken = call.apply(ops.GatherND(1), rows, call.reshape(place, (batch, total, 1)))
        fresh = call.transpose(taken, (0, 2, 1, 3))
    return call.select(call.reshape(inside, (batch, 1, total, 1)), fresh, old)


def _repeated(call: Call, x: Node, times: int) -> Node:
    """Each head [B, N, T, H] ``times`` times in a row."""
    if times == 1:
        return x
    batch, heads, length, size = x.shape
    apart = call.reshape(x, (batch, heads, 1, length, size))
    wide = call.broadcast(apart, (batch, heads, times, length, size))
    return call.reshape(wide, (batch, heads * times, length, size))


def rotary_embedding(call: Call) -> Node:
    """Inputs x, positions (one to start from, or one each), cosines, sines."""
    x, cosines = call[0], call[2]
    if call.attrs.flag("is_packed_batching"):
        raise call.unsupported("packed batches are not supported")
    flat = x.type.rank == 3
    count = call.attrs.integer("num_heads", 0)
    if flat:
        count = count or x.shape[2] // (2 * cosines.shape[-1])
        heads = split_heads(call, x, count)
    else:
        heads = x
    batch, _, length, _ = heads.shape
    positions = call.cast(call[1], DType.I64)
    if positions.type.elems == 1:
        ramp = call.constant(np.arange(length, dtype=np.int64).reshape(1, length))
        positions = call.binary("add", call.reshape(positions, (1, 1)), ramp)
    positions = call.broadcast(positions, (batch, length))
    y = rotated(call, heads, cosines, call[3], positions, call.attrs.flag("interleaved"))
    scale = call.attrs.real("scale", 1.0)
    y = y if scale == 1.0 else call.binary("mul", y, scale)
    return join_heads(call, y) if flat else y


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "Attention": attention,
        "GroupQueryAttention": group_query_attention,
        "MultiHeadAttention": multi_head_attention,
        "RotaryEmbedding": rotary_embedding,
    }
)
