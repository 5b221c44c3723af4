"""The tensor maps of a GPU kernel in, what the host tells cuTensorMapEncodeTiled of each out.

Source: CUDA driver API, "Tensor Map Object Management"; loop/verify_warpgroup.py has its rules.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from aotc.errors import VerifyError
from aotc.graph.types import DType
from aotc.loop.ir import SWIZZLED_BYTES, Kernel, TensorMap
from aotc.loop.verify_warpgroup import map_problem

MOST_AXES = 5
STEP_BYTES = 16
"""What addresses and strides of mapped tensors are multiples of."""


class MapType(enum.IntEnum):
    """CUtensorMapDataType, as far as it is used."""

    FLOAT16 = 6
    FLOAT32 = 7
    BFLOAT16 = 9
    TFLOAT32 = 11


class Promotion(enum.IntEnum):
    """CUtensorMapL2promotion: what the second cache fetches at least."""

    BYTES_128 = 2
    BYTES_256 = 3


@dataclass(frozen=True)
class DeviceMap:
    """Boxes of the tensor ``offset`` bytes behind the kernel's pointer number ``arg``. Axes are
    from the inside out; ``strides``, in bytes, are those of all axes but the innermost."""

    arg: int
    type: MapType
    promotion: Promotion
    offset: int
    dims: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]


_TYPES = {DType.F16: MapType.FLOAT16, DType.U16: MapType.BFLOAT16, DType.F32: MapType.FLOAT32}


def describe_map(kernel: Kernel, tensor: TensorMap) -> DeviceMap:
    """How the host makes the map ``tensor`` of ``kernel``; VerifyError for one that the driver
    would not take."""
    problem = map_problem(tensor, kernel)
    if problem is not None:
        raise VerifyError(
            f"kernel '{kernel.name}': the driver takes no tensor map '{tensor.name}': {problem}"
        )
    size = tensor.buffer.dtype.size_bytes
    strides = tuple(stride * size for stride in reversed(tensor.strides[:-1]))
    return DeviceMap(
        arg=kernel.params.index(tensor.buffer),
        type=MapType.TFLOAT32 if tensor.tf32 else _TYPES[tensor.buffer.dtype],
        # rows are read on beyond the box, by this block or by its neighbour
        promotion=Promotion.BYTES_256
        if tensor.dims[-1] * size > SWIZZLED_BYTES
        else Promotion.BYTES_128,
        offset=tensor.offset * size,
        dims=tensor.dims[::-1],
        strides=strides,
        box=tensor.box[::-1],
    )
