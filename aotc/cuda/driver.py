"""The CUDA driver called from Python: results are checked, each failure is one AotcError."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence
from ctypes import (
    POINTER,
    c_char_p,
    c_float,
    c_int,
    c_size_t,
    c_uint,
    c_uint32,
    c_uint64,
    c_ulonglong,
    c_void_p,
)
from types import MappingProxyType

from aotc.codegen.signature import Status
from aotc.errors import AotcError, UsageError
from aotc.target import SHARED_BYTES

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"

DEFAULT_STREAM = 1
"""CU_STREAM_LEGACY: the stream in which all that names no other is put."""


class KernelNode(ctypes.Structure):
    """CUDA_KERNEL_NODE_PARAMS in its first version."""

    _fields_ = [
        ("function", c_void_p),
        ("grid", c_uint * 3),
        ("block", c_uint * 3),
        ("shared_bytes", c_uint),
        ("params", c_void_p),
        ("extra", c_void_p),
    ]


class EncodedMap(ctypes.Structure):
    """CUtensorMap; it has to lie at a multiple of 64 bytes."""

    _fields_ = [("words", c_uint64 * 16)]


MAJOR, MINOR, MOST_THREADS, MOST_SHARED_BYTES = 75, 76, 1, 97
"""Attributes of devices (CUdevice_attribute)."""

_OUT = POINTER(c_void_p)
_NUMBER = POINTER(c_int)

#: The calls that are used, by the names of the symbols, with the types of their parameters.
CALLS: Mapping[str, Sequence[type]] = MappingProxyType(
    {
        "cuInit": (c_uint,),
        "cuDriverGetVersion": (_NUMBER,),
        "cuDeviceGetCount": (_NUMBER,),
        "cuDeviceGet": (_NUMBER, c_int),
        "cuDeviceGetName": (c_char_p, c_int, c_int),
        "cuDeviceGetAttribute": (_NUMBER, c_int, c_int),
        "cuDevicePrimaryCtxRetain": (_OUT, c_int),
        "cuDevicePrimaryCtxRelease_v2": (c_int,),
        "cuCtxPushCurrent_v2": (c_void_p,),
        "cuCtxPopCurrent_v2": (_OUT,),
        "cuCtxSynchronize": (),
        "cuModuleLoadData": (_OUT, c_char_p),
        "cuModuleUnload": (c_void_p,),
        "cuModuleGetFunction": (_OUT, c_void_p, c_char_p),
        "cuFuncSetAttribute": (c_void_p, c_int, c_int),
        "cuMemAlloc_v2": (POINTER(c_uint64), c_size_t),
        "cuMemFree_v2": (c_uint64,),
        "cuMemcpyHtoD_v2": (c_uint64, c_void_p, c_size_t),
        "cuMemcpyDtoH_v2": (c_void_p, c_uint64, c_size_t),
        "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
        "cuMemcpyDtoDAsync_v2": (c_uint64, c_uint64, c_size_t, c_void_p),
        "cuMemsetD32Async": (c_uint64, c_uint, c_size_t, c_void_p),
        "cuStreamSynchronize": (c_void_p,),
        "cuEventCreate": (_OUT, c_uint),
        "cuEventRecord": (c_void_p, c_void_p),
        "cuEventSynchronize": (c_void_p,),
        "cuEventElapsedTime": (POINTER(c_float), c_void_p, c_void_p),
        "cuEventDestroy_v2": (c_void_p,),
        "cuGraphCreate": (_OUT, c_uint),
        "cuGraphDestroy": (c_void_p,),
        "cuGraphAddKernelNode": (_OUT, c_void_p, _OUT, c_size_t, POINTER(KernelNode)),
        "cuGraphInstantiateWithFlags": (_OUT, c_void_p, c_ulonglong),
        "cuGraphExecKernelNodeSetParams": (c_void_p, c_void_p, POINTER(KernelNode)),
        "cuGraphLaunch": (c_void_p, c_void_p),
        "cuGraphExecDestroy": (c_void_p,),
    }
)

#: What only models with tensor maps need, and drivers before CUDA 12.0 lack.
LATER_CALLS: Mapping[str, Sequence[type]] = MappingProxyType(
    {
        "cuTensorMapEncodeTiled": (
            *(POINTER(EncodedMap), c_int, c_uint32, c_uint64),
            *(POINTER(c_uint64), POINTER(c_uint64), POINTER(c_uint32), POINTER(c_uint32)),
            *(c_int, c_int, c_int, c_int),
        ),
    }
)

_LOST = (4, 46, 214, 220, 700, 702, 709, *range(714, 720))

#: What the driver's results mean, as status_of of runtime/aotc_cuda.c has it.
_STATUSES: Mapping[int, Status] = MappingProxyType(
    {
        2: Status.OUT_OF_DEVICE_MEMORY,
        34: Status.NO_DRIVER,
        100: Status.NO_DEVICE,
        101: Status.NO_DEVICE,
        701: Status.SMALL_DEVICE,
        200: Status.REJECTED_KERNELS,
        218: Status.REJECTED_KERNELS,
        221: Status.REJECTED_KERNELS,
        223: Status.REJECTED_KERNELS,
        209: Status.UNSUPPORTED_DEVICE,
        222: Status.OLD_DRIVER,
        803: Status.OLD_DRIVER,
        804: Status.OLD_DRIVER,
        **dict.fromkeys(_LOST, Status.LOST_DEVICE),
    }
)

_REMEDIES: Mapping[Status, str] = MappingProxyType(
    {
        Status.NO_DRIVER: "install NVIDIA's driver, or compile for a CPU target",
        Status.OLD_DRIVER: "install a newer driver",
        Status.NO_DEVICE: "look with nvidia-smi and at CUDA_VISIBLE_DEVICES",
        Status.UNSUPPORTED_DEVICE: "compile with --arch for it, or for a CPU target",
        Status.SMALL_DEVICE: "compile with --arch for it",
        Status.OUT_OF_DEVICE_MEMORY: "free memory of the device, or compile for a smaller batch",
        Status.REJECTED_KERNELS: "install a newer driver, or compile with --arch for the device",
        Status.LOST_DEVICE: "start the process again; compute-sanitizer finds what failed",
        Status.FAILED_DRIVER: "look up the number of the error in the driver's reference",
    }
)


class DeviceError(AotcError):
    """What the driver or the device refuses; ``status`` is what a function in C returns then."""

    def __init__(self, status: Status, detail: str = "") -> None:
        self.status = status
        sentence = status.sentence.rstrip(".")
        super().__init__(
            f"{sentence} ({detail})" if detail else sentence, remedy=_REMEDIES.get(status, "")
        )


def status_of(result: int) -> Status:
    """The status for a result of the driver."""
    return _STATUSES.get(result, Status.FAILED_DRIVER) if result else Status.OK


class Driver:
    """The driver's library, opened and initialised. DeviceError when it lacks a call that is
    needed, or has no device."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._calls = {}
        for symbol, parameters in (*CALLS.items(), *LATER_CALLS.items()):
            try:
                function = library[symbol]
            except AttributeError:
                if symbol in LATER_CALLS:
                    continue
                raise DeviceError(Status.OLD_DRIVER, f"it has no {symbol}") from None
            function.argtypes = list(parameters)
            function.restype = c_int
            self._calls[symbol] = function
        self.call("cuInit", 0)

    @property
    def has_maps(self) -> bool:
        """Whether it makes tensor maps."""
        return "cuTensorMapEncodeTiled" in self._calls

    def call(self, symbol: str, *arguments: object) -> None:
        """Calls ``symbol``; DeviceError when its result is not success."""
        result = self._calls[symbol](*arguments)
        if result:
            raise DeviceError(status_of(result), f"{symbol} gives {result}")

    def number(self, symbol: str, *arguments: int) -> int:
        """What a call stores into its first parameter, an int."""
        found = c_int()
        self.call(symbol, ctypes.byref(found), *arguments)
        return found.value

    def handle(self, symbol: str, *arguments: object) -> int:
        """What a call stores into its first parameter, a handle."""
        found = c_void_p()
        self.call(symbol, ctypes.byref(found), *arguments)
        return found.value or 0

    def allocate(self, size_bytes: int) -> int:
        """The address of device memory in the current context; 0 for no bytes."""
        found = c_uint64(0)
        if size_bytes:
            self.call("cuMemAlloc_v2", ctypes.byref(found), size_bytes)
        return found.value


def open_driver(name: str = LIBRARY) -> Driver:
    """The driver of this machine; DeviceError with the remedy when there is none."""
    try:
        library = ctypes.CDLL(name)
    except OSError as error:
        raise DeviceError(Status.NO_DRIVER, str(error)) from None
    return Driver(library)


def native_arch(driver: Driver, device: int = 0) -> str:
    """The newest architecture that there is code for and that a device runs: with a letter behind
    only if the device is of just that one. DeviceError when it is older than all."""
    handle = driver.number("cuDeviceGet", device)
    major, minor = (
        driver.number("cuDeviceGetAttribute", attribute, handle) for attribute in (MAJOR, MINOR)
    )
    own = 10 * major + minor
    numbers = {name: int(name.removeprefix("sm_").rstrip("a")) for name in SHARED_BYTES}
    fitting = [
        name
        for name, number in numbers.items()
        if number == own or (number < own and not name.endswith("a"))
    ]
    if not fitting:
        raise DeviceError(Status.UNSUPPORTED_DEVICE, f"its compute capability is {major}.{minor}")
    return max(fitting, key=lambda name: (numbers[name], name))


def device_name(driver: Driver, number: int) -> str:
    """What the maker calls a device; UsageError when there is none of this number."""
    count = driver.number("cuDeviceGetCount")
    if not 0 <= number < count:
        raise UsageError(
            f"there is no CUDA device {number}", remedy=f"this machine has {count}, from 0 on"
        )
    text = ctypes.create_string_buffer(256)
    driver.call("cuDeviceGetName", text, 256, driver.number("cuDeviceGet", number))
    return text.value.decode(errors="replace")
