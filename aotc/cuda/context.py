"""A model with its code and constants on one device: addresses of tensors in, a replay of its CUDA
graphs out. What runtime/aotc_cuda.c does for C programs, for Python."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Callable, Iterator, Sequence
from ctypes import c_int64, c_uint8, c_void_p

from aotc.codegen.signature import Status
from aotc.cuda.driver import (
    DEFAULT_STREAM,
    MAJOR,
    MINOR,
    MOST_SHARED_BYTES,
    MOST_THREADS,
    DeviceError,
    Driver,
)
from aotc.cuda.images import DeviceVariant, arch_number, is_exact
from aotc.cuda.model import DeviceArg, DeviceLaunch, DeviceModel, DeviceStep, Op, Place
from aotc.cuda.node import Node
from aotc.memory.constants import ConstantLayout

#: What the driver says to one image when it may take another one.
_REFUSALS = (Status.UNSUPPORTED_DEVICE, Status.REJECTED_KERNELS, Status.OLD_DRIVER)
_DYNAMIC_SHARED = 8  # CUfunction_attribute
_USUAL_SHARED_BYTES = 48 << 10


class DeviceContext:
    """The model on device number ``device``, as the one of ``variants`` that suits it best: its
    module, weights, arena and graphs. ``model`` is the DeviceModel of that.

    One run at a time: a call from another thread meanwhile raises DeviceError, BUSY_CONTEXT.
    DeviceError as well for whatever the driver refuses.
    """

    def __init__(
        self,
        driver: Driver,
        variants: Sequence[DeviceVariant],
        constants: ConstantLayout,
        device: int = 0,
    ) -> None:
        self.driver = driver
        self.device = device
        self._turn = threading.Lock()
        self._undo: list[tuple[str, int]] = []  # calls that free what there is, in order of making
        self._nodes: list[int] = []
        self._execs: list[int] = []
        if not 0 <= device < driver.number("cuDeviceGetCount"):
            raise DeviceError(Status.NO_DEVICE, f"number {device}")
        self._handle = driver.number("cuDeviceGet", device)
        self._primary = driver.handle("cuDevicePrimaryCtxRetain", self._handle)
        try:
            with self.current():
                self._fill(variants, constants)
        except BaseException:
            with contextlib.suppress(DeviceError):
                self.close()
            raise

    @contextlib.contextmanager
    def current(self) -> Iterator[Driver]:
        """The driver, with the device's context current in this thread."""
        self.driver.call("cuCtxPushCurrent_v2", self._primary)
        try:
            yield self.driver
        finally:
            self.driver.handle("cuCtxPopCurrent_v2")

    def run(self, tensors: Sequence[int], stream: int, entry: int = 0) -> None:
        """Puts a run of the model in size number ``entry``, on tensors at these device addresses,
        inputs first, into ``stream``: one stream for all sizes, which share the arena."""
        if not self._turn.acquire(blocking=False):
            raise DeviceError(Status.BUSY_CONTEXT)
        try:
            with self.current():
                self._aim(entry, list(tensors))
                self._run_steps(entry, stream)
        finally:
            self._turn.release()

    def time(
        self, action: Callable[[Driver], None], rounds: int, repeats: int = 1
    ) -> list[float]:
        """The seconds that what ``action`` puts into the default stream takes on the device, each
        of ``rounds`` times, between two events: the mean of ``repeats`` actions in a row."""
        with self.current() as driver, contextlib.ExitStack() as ends:
            events = []
            for _ in range(2):
                event = driver.handle("cuEventCreate", 0)
                ends.callback(driver.call, "cuEventDestroy_v2", event)
                events.append(event)
            found = []
            for _ in range(rounds):
                driver.call("cuEventRecord", events[0], DEFAULT_STREAM)
                for _ in range(repeats):
                    action(driver)
                driver.call("cuEventRecord", events[1], DEFAULT_STREAM)
                driver.call("cuEventSynchronize", events[1])
                milliseconds = ctypes.c_float()
                driver.call("cuEventElapsedTime", ctypes.byref(milliseconds), *events)
                found.append(milliseconds.value * 1e-3 / repeats)
            return found

    def free(self, address: int) -> None:
        """Frees memory that was allocated in this context, when all that uses it is complete."""
        if self._primary:
            with self.current() as driver:
                driver.call("cuStreamSynchronize", DEFAULT_STREAM)
                driver.call("cuMemFree_v2", address)

    def close(self) -> None:
        """Waits for the device and frees everything; DeviceError for the first call that fails,
        when everything that can be is freed."""
        if not self._primary:
            return
        failures: list[DeviceError] = []
        try:
            with self.current():
                self._try(failures, "cuCtxSynchronize")
                while self._undo:
                    self._try(failures, *self._undo.pop())
        except DeviceError as error:
            failures.append(error)
        self._primary = 0
        self._try(failures, "cuDevicePrimaryCtxRelease_v2", self._handle)
        if failures:
            raise failures[0]

    def _try(self, failures: list[DeviceError], symbol: str, *arguments: int) -> None:
        try:
            self.driver.call(symbol, *arguments)
        except DeviceError as error:
            failures.append(error)

    def __del__(self) -> None:
        if getattr(self, "_primary", 0):
            with contextlib.suppress(DeviceError):
                self.close()

    def _fill(self, variants: Sequence[DeviceVariant], constants: ConstantLayout) -> None:
        driver = self.driver
        model, module = self._load(variants)
        self.model = model
        self._registers = [0] * model.registers
        self._tensors = [0] * model.tensors  # of the run that is prepared
        self._aimed = [[0] * model.tensors for _ in model.entries]  # that the graphs have
        self._functions = self._find_functions(module)
        self._constants = self._allocate(model.constants.size_bytes)
        position = self._constants
        for chunk in model.constants.chunks(constants):
            content = (ctypes.c_char * len(chunk)).from_buffer_copy(chunk)
            driver.call("cuMemcpyHtoD_v2", position, content, len(chunk))
            position += len(chunk)
        driver.call("cuCtxSynchronize")  # copies may be under way when the calls return
        self._arena = self._allocate(model.arena_bytes)
        for first, end in model.graphs:
            graph = self._make("cuGraphDestroy", driver.handle("cuGraphCreate", 0))
            for launch in model.launches[first:end]:
                after = (c_void_p * len(launch.after))(*[self._nodes[i] for i in launch.after])
                node = self._node(launch)
                self._nodes.append(
                    driver.handle("cuGraphAddKernelNode", graph, after, len(after), node.reference)
                )
            made = driver.handle("cuGraphInstantiateWithFlags", graph, 0)
            self._execs.append(self._make("cuGraphExecDestroy", made))

    def _node(self, launch: DeviceLaunch) -> Node:
        """What the node of a launch has to hold now. While nobody has said where a tensor is, its
        tensor maps are zeros: the first run writes them."""
        kernel = self.model.kernels[launch.kernel]
        addresses = [self._address(arg) for arg in launch.args]
        unknown = {
            number
            for number, arg in enumerate(launch.args)
            if arg.place is Place.TENSOR and not self._tensors[arg.tensor]
        }
        function = self._functions[launch.kernel]
        return Node(self.driver, function, kernel, addresses, unknown)

    def _make(self, undo: str, handle: int) -> int:
        """``handle``, which ``undo`` will free."""
        self._undo.append((undo, handle))
        return handle

    def _allocate(self, size_bytes: int) -> int:
        address = self.driver.allocate(size_bytes)
        return self._make("cuMemFree_v2", address) if address else 0

    def _load(self, variants: Sequence[DeviceVariant]) -> tuple[DeviceModel, int]:
        """The variant with the best image that device and driver take, and its module."""
        driver = self.driver
        major, minor = (
            driver.number("cuDeviceGetAttribute", attribute, self._handle)
            for attribute in (MAJOR, MINOR)
        )
        version = driver.number("cuDriverGetVersion")
        failure = DeviceError(
            Status.UNSUPPORTED_DEVICE, f"its compute capability is {major}.{minor}"
        )
        for variant, data in _fitting(variants, major, minor):
            needed = variant.code.driver
            lacks_maps = any(k.maps for k in variant.model.kernels) and not driver.has_maps
            if version < needed or lacks_maps:
                failure = DeviceError(Status.OLD_DRIVER, f"the object needs version {needed}")
                continue
            try:
                module = driver.handle("cuModuleLoadData", data)
                return variant.model, self._make("cuModuleUnload", module)
            except DeviceError as error:
                if error.status not in _REFUSALS:
                    raise
                failure = error.with_traceback(None)  # whose frames would keep memory alive
        raise failure

    def _find_functions(self, module: int) -> list[int]:
        driver = self.driver
        most_shared, most_threads = (
            driver.number("cuDeviceGetAttribute", attribute, self._handle)
            for attribute in (MOST_SHARED_BYTES, MOST_THREADS)
        )
        found = []
        for kernel in self.model.kernels:
            x, y, z = kernel.launch.block
            shared = kernel.launch.shared_bytes
            if shared > most_shared or x * y * z > most_threads:
                raise DeviceError(Status.SMALL_DEVICE, f"kernel {kernel.name}")
            found.append(driver.handle("cuModuleGetFunction", module, kernel.name.encode()))
            if shared > _USUAL_SHARED_BYTES:
                driver.call("cuFuncSetAttribute", found[-1], _DYNAMIC_SHARED, shared)
        return found

    def _address(self, arg: DeviceArg) -> int:
        """The device pointer that an argument is now."""
        bases = {Place.CONSTANTS: self._constants, Place.ARENA: self._arena}
        base = self._tensors[arg.tensor] if arg.place is Place.TENSOR else bases[arg.place]
        moved = sum(self._registers[register] * size for register, size in arg.moves)
        return base + arg.offset + moved

    def _aim(self, entry: int, tensors: list[int]) -> None:
        """Makes the graphs of an entry be about ``tensors``. Runs under way keep the pointers they
        have."""
        self._tensors = tensors
        before = self._aimed[entry]
        if tensors == before:
            return
        pairs = enumerate(zip(tensors, before, strict=True))
        moved = {number for number, (a, b) in pairs if a != b}
        self._aimed[entry] = [0] * len(tensors)  # if only some nodes move, the next run moves all
        for number in range(*self.model.entries[entry].graphs):
            self._update(number, lambda arg: arg.place is Place.TENSOR and arg.tensor in moved)
        self._aimed[entry] = tensors

    def _update(self, graph: int, is_moved: Callable[[DeviceArg], bool]) -> None:
        """Writes the arguments of the launches of a graph that have moved into its nodes."""
        for number in range(*self.model.graphs[graph]):
            launch = self.model.launches[number]
            if any(map(is_moved, launch.args)):
                node, params = self._nodes[number], self._node(launch)
                self.driver.call(
                    "cuGraphExecKernelNodeSetParams", self._execs[graph], node, params.reference
                )

    def _run_steps(self, entry: int, stream: int) -> None:
        """What the host does; with more than one step, until all of it is complete."""
        following, end = self.model.entries[entry].steps
        waits = end - following > 1
        try:
            while following < end:
                following = self._take(self.model.steps[following], stream, following + 1)
        finally:
            if waits:
                self.driver.call("cuStreamSynchronize", stream)

    def _take(self, step: DeviceStep, stream: int, following: int) -> int:
        """Does one step; the number of the next, ``following`` unless it jumps."""
        registers = self._registers
        match step.op:
            case Op.RUN:
                if registers:
                    self._update(step.number, lambda arg: bool(arg.moves))
                self.driver.call("cuGraphLaunch", self._execs[step.number], stream)
            case Op.JUMP:
                return step.target
            case Op.UNLESS if not self._read(step, c_uint8, stream):
                return step.target
            case Op.CHECK if not self._read(step, c_uint8, stream):
                raise DeviceError(Status.OUT_OF_BOUNDS)
            case Op.SET:
                asked = step.value if step.arg is None else self._read(step, c_int64, stream)
                registers[step.number] = min(asked, step.value)
            case Op.NEXT:
                registers[step.number] += 1
            case Op.PAST if registers[step.number] >= registers[step.value]:
                return step.target
            case Op.STORE:
                assert step.arg is not None
                place, value = self._address(step.arg), registers[step.number]
                for word in range(2):
                    part = value >> 32 * word & 0xFFFFFFFF
                    self.driver.call("cuMemsetD32Async", place + 4 * word, part, 1, stream)
        return following

    def _read(self, step: DeviceStep, kind: type[c_int64] | type[c_uint8], stream: int) -> int:
        """The number at the argument of a step, when all before it is complete."""
        assert step.arg is not None
        found, place = kind(), self._address(step.arg)
        size = ctypes.sizeof(kind)
        self.driver.call("cuMemcpyDtoHAsync_v2", ctypes.byref(found), place, size, stream)
        self.driver.call("cuStreamSynchronize", stream)
        return found.value


def _fitting(
    variants: Sequence[DeviceVariant], major: int, minor: int
) -> Iterator[tuple[DeviceVariant, bytes]]:
    """The images for a device of compute capability ``major.minor``, with what they belong to:
    cubins before PTX, and those for newer devices before others."""
    found = []
    for variant in variants:
        found += [
            ((is_cubin, arch_number(arch), arch), variant, data)
            for is_cubin, arch, data in variant.code.images()
            if _fits(is_cubin, arch, major, minor)
        ]
    for _, variant, data in sorted(found, key=lambda image: image[0], reverse=True):
        yield variant, data


def _fits(is_cubin: bool, arch: str, major: int, minor: int) -> bool:
    """Whether code for ``arch`` runs on a device of compute capability ``major.minor``."""
    own, number = 10 * major + minor, arch_number(arch)
    if is_exact(arch):
        return number == own
    if is_cubin:
        return number // 10 == major and number <= own
    return number <= own
