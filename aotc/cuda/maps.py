"""The tensor maps of a GPU kernel in, what the host tells cuTensorMapEncodeTiled of each out.

Source: CUDA driver API, "Tensor Map Object Management", whose rules `describe_map` checks.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from aotc.errors import VerifyError
from aotc.graph.types import DType
from aotc.loop.ir import SWIZZLED_BYTES, Kernel, TensorMap

MAP_BYTES, MAP_ALIGNMENT = 128, 64
"""Of a CUtensorMap: AOTC_CUDA_MAP_BYTES and ..._ALIGNMENT of runtime/aotc_cuda.h."""
MOST_AXES = 5
STEP_BYTES = 16
"""What addresses and strides of mapped tensors are multiples of."""

_MOST_STRIDE, _MOST_DIM, _MOST_BOX = (1 << 40) - 1, 1 << 32, 256


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
    dtype = tensor.buffer.dtype
    size = dtype.size_bytes
    strides = tuple(stride * size for stride in reversed(tensor.strides[:-1]))
    found = DeviceMap(
        arg=kernel.params.index(tensor.buffer) if tensor.buffer in kernel.params else -1,
        type=MapType.TFLOAT32 if tensor.tf32 else _TYPES.get(dtype, MapType.FLOAT32),
        # rows are read on beyond the box, by this block or by its neighbour
        promotion=Promotion.BYTES_256
        if tensor.dims[-1] * size > SWIZZLED_BYTES
        else Promotion.BYTES_128,
        offset=tensor.offset * size,
        dims=tensor.dims[::-1],
        strides=strides,
        box=tensor.box[::-1],
    )
    held = (
        found.arg >= 0
        and dtype in _TYPES
        and (dtype is DType.F32 or not tensor.tf32)
        and 1 <= len(found.dims) <= MOST_AXES
        and len(found.dims) == len(found.box) == len(tensor.strides)
        and tensor.strides[-1] == 1
        and found.offset % STEP_BYTES == 0
        and all(stride % STEP_BYTES == 0 and 0 < stride <= _MOST_STRIDE for stride in strides)
        and all(1 <= dim <= _MOST_DIM for dim in found.dims)
        and all(1 <= extent <= _MOST_BOX for extent in found.box)
        and found.box[0] * size == SWIZZLED_BYTES
    )
    if not held:
        raise VerifyError(
            f"kernel '{kernel.name}': the driver takes no tensor map '{tensor.name}' of {dtype} "
            f"{tensor.dims} with strides {tensor.strides}, offset {tensor.offset} and boxes "
            f"{tensor.box}"
        )
    return found
