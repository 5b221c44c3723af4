"""A kernel, its pointers and the driver in, the parameters of a node of a CUDA graph out."""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Sequence
from ctypes import c_uint32, c_uint64, c_void_p

from aotc.cuda.driver import Driver, EncodedMap, KernelNode
from aotc.cuda.maps import DeviceMap
from aotc.cuda.model import DeviceKernel
from aotc.loop.launch import MAP_ALIGNMENT, MAP_BYTES

_NO_INTERLEAVE, _SWIZZLE_128_BYTES, _FILL_WITH_ZEROS = 0, 3, 0
"""CUtensorMapInterleave, CUtensorMapSwizzle and CUtensorMapFloatOOBfill."""


class Node:
    """The parameters of a kernel node with the memory that they point to: the pointers
    ``addresses``, then the tensor maps of what lies there. Those of the pointers number ``unknown``
    are zeros. DeviceError when the driver refuses a map."""

    def __init__(
        self,
        driver: Driver,
        function: int,
        kernel: DeviceKernel,
        addresses: Sequence[int],
        unknown: Collection[int] = (),
    ) -> None:
        shape = kernel.launch
        self._values = (c_uint64 * len(addresses))(*addresses)
        self._maps = ctypes.create_string_buffer(MAP_BYTES * len(kernel.maps) + MAP_ALIGNMENT)
        start = ctypes.addressof(self._maps)
        start += -start % MAP_ALIGNMENT
        places = [start + MAP_BYTES * number for number in range(len(kernel.maps))]
        for tensor, place in zip(kernel.maps, places, strict=True):
            if tensor.arg not in unknown:
                _encode(driver, tensor, addresses[tensor.arg], place)
        first = ctypes.addressof(self._values)
        pointers = [first + 8 * number for number in range(len(addresses))]
        self._params = (c_void_p * (len(pointers) + len(places)))(*pointers, *places)
        self._node = KernelNode(
            function, shape.grid, shape.block, shape.shared_bytes, ctypes.addressof(self._params), 0
        )

    @property
    def reference(self) -> object:
        """A pointer to it, for a call."""
        return ctypes.byref(self._node)


def _encode(driver: Driver, tensor: DeviceMap, start: int, place: int) -> None:
    """Writes the map of a tensor that begins at ``start`` to ``place``."""
    rank = len(tensor.dims)
    driver.call(
        "cuTensorMapEncodeTiled",
        EncodedMap.from_address(place),
        tensor.type,
        rank,
        start + tensor.offset,
        (c_uint64 * rank)(*tensor.dims),
        (c_uint64 * rank)(*tensor.strides),
        (c_uint32 * rank)(*tensor.box),
        (c_uint32 * rank)(*[1] * rank),
        _NO_INTERLEAVE,
        _SWIZZLE_128_BYTES,
        tensor.promotion,
        _FILL_WITH_ZEROS,
    )
