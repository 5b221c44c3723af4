"""When to convolve by Winograd's algorithm: the shape of a 3x3 convolution goes in, the tile size
comes out, and how many rows of tiles are worked on together."""

from __future__ import annotations

import math

from aotc.target import Target

#: Results along each side of a tile.
LARGE, SMALL = 4, 2
#: What one element of a tile costs to transform, and one filter element to fetch, in multiply-adds.
TRANSFORM, FETCH = 12, 20
#: The share of the direct algorithm's cost that is still worth filters of 1.8 or 4 times the size.
WORTHWHILE = 0.75
#: Channels below which vectors run empty.
MIN_CHANNELS = 16


def winograd_tile(rows: int, columns: int, inputs: int, outputs: int) -> int:
    """The tile size, LARGE or SMALL, for a 3x3 convolution of ``inputs`` to ``outputs`` channels
    with a result of [rows, columns], or 0 to convolve directly.

    The choice changes rounding, so it depends on the shape alone and never on the target. Measured
    with AVX-512 on one core, direct / 2x2 / 4x4, in milliseconds: 56x56x64 1.19 / 0.65 / 0.38;
    28x28x128 1.17 / 0.63 / 0.49; 14x14x256 1.25 / 0.72 / 0.93; 7x7x512 1.77 / 1.60 / -;
    32x32x16 0.028 / 0.023 / 0.018; 8x8x64 0.027 / 0.018 / 0.025; 160x160x96 to 24 7.2 / 4.5 / 2.8.
    The constants of the cost model are fitted to these.
    """
    if min(inputs, outputs) < MIN_CHANNELS:
        return 0
    products = inputs * outputs
    direct = 9 * products * (rows * columns + FETCH)
    costs = {}
    for tile in (LARGE, SMALL):
        tiles = math.prod(-(-extent // tile) for extent in (rows, columns))
        each = tiles * (products + TRANSFORM * (inputs + outputs)) + FETCH * products
        costs[positions(tile) * each] = tile
    best = min(costs)
    return costs[best] if best < WORTHWHILE * direct else 0


def positions(tile: int) -> int:
    """Elements of a transformed tile: the multiplications for ``tile`` * ``tile`` results."""
    return (tile + 2) ** 2


def strip_rows(tile_rows: int, row_bytes: int, filter_bytes: int, target: Target) -> int:
    """Into how many rows of tiles at a time to cut ``tile_rows``: a divisor of them.

    Each strip fetches the filters again unless they stay in the second-level cache, and of its
    scratch, ``row_bytes`` a row, it writes and reads once beyond that cache what does not fit. The
    least traffic wins, and of equals the highest strip. 28x28x128: whole 0.49 ms, in rows 0.72;
    160x160x96 to 24: whole 5.5 ms, in rows 2.8.
    """
    room = target.l2_bytes // 2

    def traffic(height: int) -> tuple[int, int]:
        strips = tile_rows // height
        fetched = filter_bytes if filter_bytes > room else 0
        spilled = 2 * max(0, height * row_bytes - room)
        return strips * (fetched + spilled), -height

    return min((n for n in range(1, tile_rows + 1) if tile_rows % n == 0), key=traffic)
