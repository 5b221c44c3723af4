"""Weights that are stored in few bits, as one primitive: codes and scales in, float32 out."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from aotc.graph.ir import Op
from aotc.graph.rules import require, result_type
from aotc.graph.types import DType, TensorType

#: What weights may be stored as.
STORED = (DType.F16, DType.BF16, DType.I8, DType.U8, DType.I4, DType.U4)


@dataclass(frozen=True)
class Widen(Op):
    """``(codes - zero) * scale`` in float32, each step rounded; what a product reads as weights.

    Operands: codes, of the machine type of ``stored`` (f16 bf16 i8 u8 i4 u4; of the last two only
    the low four bits count); then, for integers, the scale and perhaps the zero point, f32 of one
    shape: along ``axis`` they have one element for each ``block`` codes (the last block may be cut
    short), along other axes as many as the codes, or one. Passes make it of constants; folding
    leaves it alone.
    """

    stored: DType
    axis: int = 0
    block: int = 1

    def infer(self, *operands: TensorType) -> TensorType:
        require(1 <= len(operands) <= 3, f"takes 1 to 3 operands, got {len(operands)}")
        codes = operands[0]
        require(self.stored in STORED, f"weights are not stored as {self.stored.value}")
        require(
            codes.dtype is self.stored.machine, f"{codes} does not hold {self.stored.value}"
        )
        require(self.stored.is_int == (len(operands) > 1), "a scale belongs to integers alone")
        require(self.block >= 1, f"a block of {self.block}")
        require(0 <= self.axis < codes.rank, f"{codes} has no axis {self.axis}")
        for part in operands[1:]:
            require(part.dtype is DType.F32, f"a scale or zero point is {part}")
            require(part.shape == operands[1].shape, "scale and zero point differ in shape")
            require(part.rank == codes.rank, f"{part} does not fit {codes}")
            for axis, (own, dim) in enumerate(zip(part.dims, codes.dims, strict=True)):
                whole = -(-dim // self.block) if axis == self.axis else dim
                require(own == whole or (own == 1 and axis != self.axis), f"{part} and {codes}")
        return result_type(DType.F32, codes.shape)

    def evaluate(self, *operands: np.ndarray) -> np.ndarray:
        codes, *parts = operands
        values = decoded(codes, self.stored)
        if parts:
            scale, *zero = (self._stretched(part, codes.shape) for part in parts)
            with np.errstate(all="ignore"):
                values = (values - zero[0] if zero else values) * scale
        return np.asarray(values, np.float32)

    def _stretched(self, part: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """One element for each code."""
        each = np.repeat(part, self.block, self.axis).take(range(shape[self.axis]), self.axis)
        return np.broadcast_to(each, shape)

    def stretched(self, *operands: np.ndarray) -> list[np.ndarray]:
        """Scale and zero point (as far as given), one element for each code."""
        return [self._stretched(part, operands[0].shape) for part in operands[1:]]


def decoded(codes: np.ndarray, stored: DType) -> np.ndarray:
    """What codes stand for, as float32 without scale."""
    if stored is DType.BF16:
        return np.asarray(codes.view(ml_dtypes.bfloat16), np.float32)
    if stored is DType.I4:
        codes = (codes << 4) >> 4
    elif stored is DType.U4:
        codes = codes & 15
    return np.asarray(codes, np.float32)
