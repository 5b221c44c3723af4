"""Rotary positions: heads, tables of cosines and sines and positions go in, rotated heads come
out."""

from __future__ import annotations

from aotc.errors import ModelError
from aotc.frontend.onnx_ops.call import Call
from aotc.graph import ops
from aotc.graph.ir import Node


def rotated(
    call: Call, x: Node, cosines: Node, sines: Node, positions: Node, paired: bool
) -> Node:
    """``x`` [B, N, S, H] with each pair of its first numbers turned by the angle of its position.

    ``cosines`` and ``sines`` are [positions, R / 2], ``positions`` i64 [B, S]. A pair is two
    neighbours when ``paired``, else one from each half of the first R numbers; the others stay.
    """
    batch, heads, length, size = x.shape
    if cosines.type.rank != 2 or cosines.shape != sines.shape or 2 * cosines.shape[1] > size:
        raise ModelError(f"cosines {cosines.type} and sines {sines.type} do not fit {x.type}")
    half = cosines.shape[1]
    cos, sin = (
        call.reshape(
            call.apply(ops.Gather(0), table, positions), (positions.shape[0], 1, length, half)
        )
        for table in (cosines, sines)
    )
    turned = call.slice_axis(x, 3, 0, 2 * half)
    if paired:
        apart = call.reshape(turned, (batch, heads, length, half, 2))
        first, second = (
            call.reshape(call.slice_axis(apart, 4, i, 1), (batch, heads, length, half))
            for i in range(2)
        )
    else:
        first, second = (call.slice_axis(turned, 3, i * half, half) for i in range(2))
    left = call.binary("sub", call.binary("mul", first, cos), call.binary("mul", second, sin))
    right = call.binary("add", call.binary("mul", second, cos), call.binary("mul", first, sin))
    if paired:
        both = [call.reshape(part, (*part.shape, 1)) for part in (left, right)]
        y = call.reshape(call.concat(both, 4), (batch, heads, length, 2 * half))
    else:
        y = call.concat([left, right], 3)
    rest = size - 2 * half
    return y if not rest else call.concat([y, call.slice_axis(x, 3, 2 * half, rest)], 3)
