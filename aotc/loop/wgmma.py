"""Matrix products of a warpgroup: in go tiles in shared memory and fragments, out come the places
of their elements, and the product.

Layouts: PTX ISA, "Register fragments and shared memory matrix layouts" of wgmma, for matrices with
128-byte swizzling. The hardware's order of additions is not specified; here a product is added up
in float64 and rounded once.
"""

from __future__ import annotations

import numpy as np

from aotc.loop.ir import SWIZZLED_BYTES
from aotc.loop.ir_async import WARPGROUP, Wgmma
from aotc.loop.mma import KINDS, MmaKind, exact, left_layout

ROWS, MAX_COLUMNS = 64, 256
"""The rows of a product, and the most columns."""
ROW_COLUMNS = 64
"""Columns that a row of a tile holds of which the rows are the depth."""
TILE_ALIGNMENT = 1024
"""Bytes after which the pattern of swizzling repeats."""
_PIECE_BYTES = 16


def result_elems(columns: int) -> int:
    """Elements of the result that one thread holds."""
    return ROWS * columns // WARPGROUP


def result_layout(columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of each element of the result that each thread holds: [threads, elements]."""
    thread = np.arange(WARPGROUP)[:, None]
    elem = np.arange(result_elems(columns))
    rows = thread // 32 * 16 + thread % 32 // 4 + elem % 4 // 2 * 8
    return rows, elem // 4 * 8 + thread % 4 * 2 + elem % 2


def swizzled(elems: np.ndarray, elem_bytes: int) -> np.ndarray:
    """Where the elements of a tile lie that without swizzling would be at ``elems``, counted from
    a multiple of TILE_ALIGNMENT bytes."""
    row = elems * elem_bytes // SWIZZLED_BYTES
    found: np.ndarray = elems ^ (row % 8 * (_PIECE_BYTES // elem_bytes))
    return found


def row_tile(kind: MmaKind, rows: int) -> np.ndarray:
    """The elements, before swizzling, of a K-major tile from the first on: [rows, depth]."""
    per_row = SWIZZLED_BYTES // kind.dtype.size_bytes
    return np.arange(rows)[:, None] * per_row + np.arange(kind.depth)


def right_tile(wgmma: Wgmma) -> np.ndarray:
    """The elements of the right factor, before swizzling, from ``b_at`` on: [depth, columns]."""
    kind = KINDS[wgmma.kind]
    if not wgmma.b_step:
        return row_tile(kind, wgmma.columns).T
    column = np.arange(wgmma.columns)
    beside = column // ROW_COLUMNS * wgmma.b_step + column % ROW_COLUMNS
    return np.arange(kind.depth)[:, None] * ROW_COLUMNS + beside


def left_of_fragments(kind: MmaKind, held: np.ndarray) -> np.ndarray:
    """The left factor [groups, ROWS, depth] of fragments [groups, WARPGROUP, elements]."""
    left = np.zeros((held.shape[0], ROWS, kind.depth), held.dtype)
    for thread in range(WARPGROUP):
        for elem in range(kind.left_elems):
            row, depth = left_layout(kind, thread % 32, elem)
            left[:, thread // 32 * 16 + row, depth] = held[:, thread, elem]
    return left


def multiply(
    kind: MmaKind, columns: int, left: np.ndarray, right: np.ndarray, sums: np.ndarray
) -> np.ndarray:
    """``sums + left right`` with sums of [groups, WARPGROUP, elements], left of [groups, ROWS,
    depth], right of [groups, depth, columns]; the result, as sums, is float32."""
    product = exact(kind, left) @ exact(kind, right)
    rows, across = result_layout(columns)
    total: np.ndarray = sums.astype(np.float64) + product[:, rows, across]
    return total.astype(np.float32)


def to_tf32(x: np.ndarray) -> np.ndarray:
    """float32 rounded to 10 bits behind the point, to nearest even, as tensor maps do it; NaN and
    infinity stay what they are."""
    bits = x.view(np.uint32)
    raised = bits + np.uint32(0xFFF) + (bits >> np.uint32(13) & np.uint32(1))
    return np.where(np.isfinite(x), (raised & np.uint32(0xFFFFE000)).view(np.float32), x)
