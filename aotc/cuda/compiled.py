"""A compiled model for GPUs in Python: arrays of numpy or of a device in, the same kind out, by way
of the driver alone."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from aotc.codegen.entry import Entry
from aotc.codegen.signature import Param, Status
from aotc.compiled import Code, CompiledModel, arrange, fit_input
from aotc.cuda.build import DeviceObject
from aotc.cuda.context import DeviceContext
from aotc.cuda.dlpack import CUDA, Borrowed, borrow, is_on_device, lend
from aotc.cuda.driver import DEFAULT_STREAM, DeviceError, open_driver
from aotc.cuda.header import DEVICE_ALIGNMENT
from aotc.cuda.model import DeviceModel
from aotc.errors import UsageError
from aotc.frontend.ports import Ports
from aotc.graph.types import DType
from aotc.memory.constants import ConstantLayout

_PIECE_ALIGNMENT = 256  # of tensors that share one piece of memory, as of what the driver gives


class DeviceMemory:
    """``size_bytes`` of device memory, freed with the object; ``alive`` is what has to live as
    long."""

    def __init__(self, context: DeviceContext, size_bytes: int) -> None:
        self.context = context
        self.alive: object = None
        self.address = 0
        with context.current() as driver:
            self.address = driver.allocate(max(size_bytes, 1))

    def __del__(self) -> None:
        if self.address:
            with contextlib.suppress(DeviceError):  # a device that is lost has freed it
                self.context.free(self.address)


class DeviceArray:
    """An output on the device, dense, ``dtype`` [``shape``]. ``from_dlpack`` of CuPy, PyTorch or
    JAX takes it without a copy; ``numpy()`` copies it to the host."""

    def __init__(
        self, memory: DeviceMemory, address: int, dtype: DType, shape: tuple[int, ...]
    ) -> None:
        self.dtype = dtype
        self.shape = shape
        self.address = address
        self._memory = memory

    def __dlpack_device__(self) -> tuple[int, int]:
        return CUDA, self._memory.context.device

    def __dlpack__(self, *, stream: int | None = None, **_: Any) -> object:
        """A capsule. The values are complete, so that the taker's ``stream`` need not wait; what
        later versions of the protocol ask for besides is left to the taker."""
        if stream != -1:
            with self._memory.context.current() as driver:
                driver.call("cuStreamSynchronize", DEFAULT_STREAM)
        device = self._memory.context.device
        return lend(self._memory, self.address, device, self.dtype, self.shape)

    def numpy(self) -> np.ndarray:
        """A copy on the host."""
        array = np.empty(self.shape, self.dtype.numpy)
        if array.nbytes:
            with self._memory.context.current() as driver:
                # after all that is in the default stream
                driver.call("cuMemcpyDtoH_v2", array.ctypes.data, self.address, array.nbytes)
        return array


class Devices:
    """The object of a model on the devices that it is run on."""

    def __init__(self, made: DeviceObject, constants: ConstantLayout) -> None:
        self.made = made
        self._constants = constants
        self._contexts: dict[int, DeviceContext] = {}

    def context(self, device: int) -> DeviceContext:
        """The one on ``device``, opened when it is first asked for. DeviceError when there is no
        driver or device, or when it does not do."""
        if device not in self._contexts:
            self._contexts[device] = DeviceContext(
                open_driver(), self.made.variants, self._constants, device
            )
        return self._contexts[device]

    def release(self) -> None:
        """Forgets them all."""
        self._contexts.clear()


class CudaModel(CompiledModel):
    """A model for GPUs, in size ``number`` of those in its object. It runs on a machine with
    NVIDIA's driver; on any other, calls raise one AotcError, and everything else works: its files,
    header and texts.

    Called with numpy arrays it copies them to the device and the outputs back. Called with arrays
    on a device (anything with ``__dlpack__``) it reads them where they are, in the default stream,
    and gives `DeviceArray`s. Weights go to a device once for all sizes, when the first call needs
    it.
    """

    def __init__(
        self,
        code: Code,
        entry: Entry,
        texts: Mapping[str, Callable[[], str]],
        ports: Ports | None,
        devices: Devices,
        number: int = 0,
    ) -> None:
        super().__init__(code, entry, texts, ports)
        self._devices = devices
        self._number = number

    @property
    def device_object(self) -> DeviceObject:
        """The object, in its parts."""
        return self._devices.made

    @property
    def device_model(self) -> DeviceModel:
        """The launches of the model, on the oldest devices that it runs on."""
        return self.device_object.model

    def context(self, device: int = 0) -> DeviceContext:
        """The model on a device, opened when it is first asked for. DeviceError when there is no
        driver or device, or when it does not do."""
        return self._devices.context(device)

    def release(self) -> None:
        """Lets go of the devices, in all sizes: weights and workspace are freed, once no output and
        no function that `bind` gave needs them. The next call opens the device again."""
        self._devices.release()

    def bind(self, *arrays: Any, **named: Any) -> Callable[[], tuple[Any, ...]]:
        """A function that runs the model on these inputs, into the same output arrays each time.
        UsageError when they do not fit, DeviceError for what driver and device refuse."""
        given = arrange(self.signature.inputs, arrays, named)
        names = [param.name for param in self.signature.inputs]
        fitting = self._fitting(dict(zip(names, given, strict=True)))
        if fitting is not self:
            return fitting.bind(*given)
        on_device = [value for value in given if is_on_device(value)]
        if not on_device:
            return self._bind_host(given)
        if len(on_device) < len(given):
            raise UsageError(
                "some inputs are on a device and some are not", remedy="move all of them to one"
            )
        return self._bind_device(given)

    def time_on_device(
        self, arrays: Mapping[str, Any], rounds: int, repeats: int = 1
    ) -> list[float]:
        """The seconds of a run on these inputs (host arrays, by name) as events on the device
        measure them, without the copies, behind a run that is not measured: ``rounds`` times the
        mean of ``repeats`` runs in a row. Errors as for `bind`."""
        signature, context = self.signature, self.context()
        memory, places = _allocate(context, (*signature.inputs, *signature.outputs))
        given = arrange(signature.inputs, (), arrays)
        with context.current() as driver:
            for param, value, place in zip(signature.inputs, given, places, strict=False):
                array = fit_input(param, value)
                if array.nbytes:
                    driver.call("cuMemcpyHtoD_v2", place, array.ctypes.data, array.nbytes)
        self._run(context, places)
        seconds = context.time(lambda _: self._run(context, places), rounds, repeats)
        del memory
        return seconds

    def copy_bandwidth(self, size_bytes: int, rounds: int, repeats: int = 1) -> float:
        """The bytes of a second that the device reads and writes when it copies: the median, of
        copies between events as in `time_on_device`."""
        context = self.context()
        source, target = (DeviceMemory(context, size_bytes) for _ in range(2))
        seconds = context.time(
            lambda driver: driver.call(
                "cuMemcpyDtoDAsync_v2", target.address, source.address, size_bytes, DEFAULT_STREAM
            ),
            rounds,
            repeats,
        )
        return 2 * size_bytes / statistics.median(seconds)

    def _bind_host(self, given: Sequence[Any]) -> Callable[[], tuple[np.ndarray, ...]]:
        signature = self.signature
        inputs = [
            fit_input(param, value)
            for param, value in zip(signature.inputs, given, strict=True)
        ]
        outputs = tuple(np.empty(p.type.dims, p.type.dtype.numpy) for p in signature.outputs)
        context = self.context()
        memory, places = _allocate(context, (*signature.inputs, *signature.outputs))

        def run(_alive: object = memory) -> tuple[np.ndarray, ...]:
            with context.current() as driver:
                for array, place in zip(inputs, places, strict=False):
                    if array.nbytes:
                        driver.call("cuMemcpyHtoD_v2", place, array.ctypes.data, array.nbytes)
                self._run(context, places)
                for array, place in zip(outputs, places[len(inputs) :], strict=True):
                    if array.nbytes:
                        driver.call("cuMemcpyDtoH_v2", array.ctypes.data, place, array.nbytes)
            return outputs

        return run

    def _bind_device(self, given: Sequence[Any]) -> Callable[[], tuple[DeviceArray, ...]]:
        borrowed = [borrow(value, DEFAULT_STREAM) for value in given]
        for param, tensor in zip(self.signature.inputs, borrowed, strict=True):
            _expect_fit(param, tensor, borrowed[0].device)
        context = self.context(borrowed[0].device)
        params = self.signature.outputs
        memory, places = _allocate(context, params)
        outputs = tuple(
            DeviceArray(memory, place, param.type.dtype, param.type.dims)
            for param, place in zip(params, places, strict=True)
        )
        tensors = [tensor.address for tensor in borrowed] + places
        memory.alive = borrowed  # inputs, for as long as a run may read them

        def run() -> tuple[DeviceArray, ...]:
            self._run(context, tensors)
            return outputs

        return run

    def _run(self, context: DeviceContext, tensors: Sequence[int]) -> None:
        try:
            context.run(tensors, DEFAULT_STREAM, self._number)
        except DeviceError as error:
            if error.status is Status.OUT_OF_BOUNDS:
                raise self._failure(error.status) from None
            raise


def device_models(
    code: Code,
    entries: Sequence[Entry],
    texts: Mapping[str, Callable[[], str]],
    ports: Sequence[Ports | None],
    devices: Devices,
) -> tuple[CudaModel, ...]:
    """The model of an object in each of its sizes, those of its first variant, with their ports."""
    found = tuple(
        CudaModel(code, entry, texts, own, devices, number)
        for number, (entry, own) in enumerate(zip(entries, ports, strict=True))
    )
    for model in found:
        model.variants = found
    return found


def _allocate(context: DeviceContext, params: Sequence[Param]) -> tuple[DeviceMemory, list[int]]:
    """One piece of device memory for tensors of these types, and where each lies in it."""
    sizes = [math.prod(p.type.dims) * p.type.dtype.size_bytes for p in params]
    rounded = [-(-size // _PIECE_ALIGNMENT) * _PIECE_ALIGNMENT for size in sizes]
    memory = DeviceMemory(context, sum(rounded))
    return memory, [memory.address + sum(rounded[:i]) for i in range(len(sizes))]


def _expect_fit(param: Param, tensor: Borrowed, device: int) -> None:
    """UsageError unless a tensor on a device is what the model takes."""
    found = f"{tensor.dtype.value if tensor.dtype else 'unknown'}{list(tensor.shape)}"
    if tensor.dtype is not param.type.dtype or tensor.shape != param.type.dims:
        raise UsageError(
            f"input '{param.name}' is {found}, the model takes {param.type}",
            remedy="give an array of that type and shape",
        )
    if not tensor.dense:
        raise UsageError(
            f"input '{param.name}' has gaps or another order of its axes",
            remedy="give a dense array, in row-major order",
        )
    if tensor.device != device:
        raise UsageError(
            f"input '{param.name}' is on device {tensor.device}, another one on {device}",
            remedy="move all of them to one",
        )
    if tensor.address % DEVICE_ALIGNMENT:
        raise UsageError(
            f"input '{param.name}' is not aligned to {DEVICE_ALIGNMENT} bytes",
            remedy="give an array that begins where its memory does",
        )
