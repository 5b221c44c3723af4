"""Matrix products of tensor cores: fragments of the 32 threads of a warp in, fragments of the
result out, and which thread holds which element.

Layouts: PTX ISA, "Matrix fragments for mma.m16n8k8" and "for mma.m16n8k16". The hardware's order
of additions is not specified; here a product is added up in float64 and rounded once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from aotc.graph.types import DType

ROWS, COLUMNS = 16, 8
"""The shape of the result of one product."""


@dataclass(frozen=True)
class MmaKind:
    """One instruction: its name in PTX, the depth of a product, and the type in which the elements
    of both factors are held (bfloat16 as its bits)."""

    instruction: str
    depth: int
    dtype: DType

    @property
    def left_elems(self) -> int:
        """Elements of the left factor that one thread holds."""
        return ROWS * self.depth // 32

    @property
    def right_elems(self) -> int:
        """Elements of the right factor that one thread holds."""
        return COLUMNS * self.depth // 32

    def words(self, elems: int) -> int:
        """Registers of 32 bits that hold ``elems`` elements."""
        return elems * self.dtype.size_bytes // 4


#: Elements of the result that one thread holds.
RESULT_ELEMS = ROWS * COLUMNS // 32

KINDS: Mapping[str, MmaKind] = MappingProxyType(
    {
        "tf32": MmaKind("m16n8k8.row.col.f32.tf32.tf32.f32", 8, DType.F32),
        "f16": MmaKind("m16n8k16.row.col.f32.f16.f16.f32", 16, DType.F16),
        "bf16": MmaKind("m16n8k16.row.col.f32.bf16.bf16.f32", 16, DType.U16),
    }
)


def left_layout(kind: MmaKind, lane: int, elem: int) -> tuple[int, int]:
    """Row and depth of element ``elem`` of the left factor that ``lane`` holds."""
    pair = 4 // kind.dtype.size_bytes  # neighbours in one register
    word, place = divmod(elem, pair)
    row = lane // 4 + 8 * (word % 2)
    return row, lane % 4 * pair + place + 4 * pair * (word // 2)


def right_layout(kind: MmaKind, lane: int, elem: int) -> tuple[int, int]:
    """Depth and column of element ``elem`` of the right factor."""
    pair = 4 // kind.dtype.size_bytes
    word, place = divmod(elem, pair)
    return lane % 4 * pair + place + 4 * pair * word, lane // 4


def result_layout(lane: int, elem: int) -> tuple[int, int]:
    """Row and column of element ``elem`` of the result."""
    return lane // 4 + 8 * (elem // 2), lane % 4 * 2 + elem % 2


def multiply(kind: MmaKind, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """``c + a b`` of fragments [warps, 32, elements]; the result is float32."""
    warps = a.shape[0]
    left = np.zeros((warps, ROWS, kind.depth))
    right = np.zeros((warps, kind.depth, COLUMNS))
    for lane in range(32):
        for elem in range(kind.left_elems):
            left[(slice(None), *left_layout(kind, lane, elem))] = exact(kind, a[:, lane, elem])
        for elem in range(kind.right_elems):
            right[(slice(None), *right_layout(kind, lane, elem))] = exact(kind, b[:, lane, elem])
    product = left @ right
    result = np.empty_like(c)
    for lane in range(32):
        for elem in range(RESULT_ELEMS):
            place = (slice(None), *result_layout(lane, elem))
            result[:, lane, elem] = c[:, lane, elem] + product[place]
    return result


def exact(kind: MmaKind, x: np.ndarray) -> np.ndarray:
    """Elements as the multipliers see them: the last 13 bits of a tf32 do not count."""
    if kind.dtype is DType.F32:
        x = (x.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)
    elif kind.dtype is DType.U16:
        x = (x.astype(np.uint32) << 16).view(np.float32)
    return x.astype(np.float64)
