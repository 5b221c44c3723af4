"""A DeviceModel with its code and constants on one device: addresses of tensors in, a replay of the
model's CUDA graphs out. What runtime/aotc_cuda.c does for C programs, for Python."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Callable, Iterator, Sequence
from ctypes import c_int64, c_uint8, c_uint64, c_void_p

from aotc.codegen.signature import Status
from aotc.cuda.driver import (
    DEFAULT_STREAM,
    MAJOR,
    MINOR,
    MOST_SHARED_BYTES,
    MOST_THREADS,
    DeviceError,
    Driver,
    KernelNode,
)
from aotc.cuda.images import DeviceCode, arch_number, is_exact
from aotc.cuda.model import DeviceArg, DeviceLaunch, DeviceModel, DeviceStep, Op, Place
from aotc.memory.constants import ConstantLayout

#: What the driver says to one image when it may take another one.
_REFUSALS = (Status.UNSUPPORTED_DEVICE, Status.REJECTED_KERNELS, Status.OLD_DRIVER)
_DYNAMIC_SHARED = 8  # CUfunction_attribute
_USUAL_SHARED_BYTES = 48 << 10


class DeviceContext:
    """The model on device number ``device``: its module, weights, arena and graph.

    One run at a time: a call from another thread meanwhile raises DeviceError, BUSY_CONTEXT.
    DeviceError as well for whatever the driver refuses.
    """

    def __init__(
        self,
        driver: Driver,
        model: DeviceModel,
        code: DeviceCode,
        constants: ConstantLayout,
        device: int = 0,
    ) -> None:
        self.driver = driver
        self.device = device
        self._model = model
        self._turn = threading.Lock()
        self._undo: list[tuple[str, int]] = []  # calls that free what there is, in order of making
        self._nodes: list[int] = []
        self._execs: list[int] = []
        self._registers = [0] * model.registers
        self._tensors = [0] * len(model.tensor_bytes)
        if driver.number("cuDriverGetVersion") < code.driver:
            raise DeviceError(Status.OLD_DRIVER, f"the object needs version {code.driver}")
        if not 0 <= device < driver.number("cuDeviceGetCount"):
            raise DeviceError(Status.NO_DEVICE, f"number {device}")
        self._handle = driver.number("cuDeviceGet", device)
        self._primary = driver.handle("cuDevicePrimaryCtxRetain", self._handle)
        try:
            with self.current():
                self._fill(code, constants)
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

    def run(self, tensors: Sequence[int], stream: int) -> None:
        """Puts a run on tensors at these device addresses, inputs first, into ``stream``."""
        if not self._turn.acquire(blocking=False):
            raise DeviceError(Status.BUSY_CONTEXT)
        try:
            with self.current():
                self._aim(list(tensors))
                self._run_steps(stream)
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

    def _fill(self, code: DeviceCode, constants: ConstantLayout) -> None:
        driver, model = self.driver, self._model
        self._functions = self._find_functions(self._load(code))
        self._constants = self._allocate(constants.size_bytes)
        position = self._constants
        for chunk in constants.chunks():
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

    def _node(self, launch: DeviceLaunch) -> _Node:
        """What the node of a launch has to hold now."""
        addresses = [self._address(arg) for arg in launch.args]
        return _Node(self._functions[launch.kernel], self._model, launch, addresses)

    def _make(self, undo: str, handle: int) -> int:
        """``handle``, which ``undo`` will free."""
        self._undo.append((undo, handle))
        return handle

    def _allocate(self, size_bytes: int) -> int:
        address = self.driver.allocate(size_bytes)
        return self._make("cuMemFree_v2", address) if address else 0

    def _load(self, code: DeviceCode) -> int:
        """The module of the best image that device and driver take."""
        driver = self.driver
        major, minor = (
            driver.number("cuDeviceGetAttribute", attribute, self._handle)
            for attribute in (MAJOR, MINOR)
        )
        images = [(True, cubin.arch, cubin.data) for cubin in code.cubins]
        images.append((False, code.arch, code.ptx.encode()))
        failure = DeviceError(
            Status.UNSUPPORTED_DEVICE, f"its compute capability is {major}.{minor}"
        )
        fitting = [image for image in images if _fits(image[0], image[1], major, minor)]
        fitting.sort(key=lambda image: (image[0], arch_number(image[1]), image[1]))
        for _, _, data in reversed(fitting):
            try:
                module = driver.handle("cuModuleLoadData", data)
                return self._make("cuModuleUnload", module)
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
        for kernel in self._model.kernels:
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

    def _aim(self, tensors: list[int]) -> None:
        """Makes the graphs be about ``tensors``. Runs under way keep the pointers they have."""
        if tensors == self._tensors:
            return
        pairs = enumerate(zip(tensors, self._tensors, strict=True))
        moved = {number for number, (a, b) in pairs if a != b}
        self._tensors = tensors
        try:
            for number in range(len(self._execs)):
                self._update(
                    number, lambda arg: arg.place is Place.TENSOR and arg.tensor in moved
                )
        except BaseException:
            self._tensors = [0] * len(tensors)  # some nodes moved: the next run moves all
            raise

    def _update(self, graph: int, is_moved: Callable[[DeviceArg], bool]) -> None:
        """Writes the arguments of the launches of a graph that have moved into its nodes."""
        for number in range(*self._model.graphs[graph]):
            launch = self._model.launches[number]
            if any(map(is_moved, launch.args)):
                node, params = self._nodes[number], self._node(launch)
                self.driver.call(
                    "cuGraphExecKernelNodeSetParams", self._execs[graph], node, params.reference
                )

    def _run_steps(self, stream: int) -> None:
        """What the host does; with more than one step, until all of it is complete."""
        steps, following = self._model.steps, 0
        try:
            while following < len(steps):
                step = steps[following]
                following = self._take(step, stream, following + 1)
        finally:
            if len(steps) > 1:
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


class _Node:
    """The parameters of a kernel node with the memory that they point to."""

    def __init__(
        self, function: int, model: DeviceModel, launch: DeviceLaunch, addresses: Sequence[int]
    ) -> None:
        shape = model.kernels[launch.kernel].launch
        self._values = (c_uint64 * len(addresses))(*addresses)
        start = ctypes.addressof(self._values)
        self._params = (c_void_p * len(addresses))(*[start + 8 * i for i in range(len(addresses))])
        self._node = KernelNode(
            function, shape.grid, shape.block, shape.shared_bytes, ctypes.addressof(self._params), 0
        )

    @property
    def reference(self) -> object:
        """A pointer to it, for a call."""
        return ctypes.byref(self._node)


def _fits(is_cubin: bool, arch: str, major: int, minor: int) -> bool:
    """Whether code for ``arch`` runs on a device of compute capability ``major.minor``."""
    own, number = 10 * major + minor, arch_number(arch)
    if is_exact(arch):
        return number == own
    if is_cubin:
        return number // 10 == major and number <= own
    return number <= own
