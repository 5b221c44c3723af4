"""A bundle in, callables out: numpy arrays through native code, files, and texts of the stages."""

from __future__ import annotations

import copy
import ctypes
import functools
import platform
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aotc.artifact.bundle import Bundle, save_bundle, save_module
from aotc.artifact.weights import weights_file_chunks
from aotc.codegen.entry import WEIGHTS_HEADER_BYTES, Entry
from aotc.codegen.signature import (
    WEIGHTS_ALIGNMENT,
    WORKSPACE_ALIGNMENT,
    Param,
    Signature,
    Status,
)
from aotc.errors import AotcError, UsageError
from aotc.frontend.ports import Port, Ports, RaggedPort, pack, unpack
from aotc.loop.program import Check, Program, all_steps
from aotc.memory.arena import MemoryPlan
from aotc.memory.constants import ConstantLayout
from aotc.permission import may_use_tiles
from aotc.pool import Pool
from aotc.target import Target

if TYPE_CHECKING:
    import llvmlite.binding as llvm  # see codegen/machine.py

class _Artifact:
    """What one model and several in one object have in common: the object and its files.

    ``texts`` gives the stages that ``as_text`` can show, made when they are asked for.
    """

    def __init__(self, code: Code, texts: Mapping[str, Callable[[], str]]) -> None:
        self.code = code
        self._texts = dict(texts)

    @property
    def bundle(self) -> Bundle:
        return self.code.bundle

    @property
    def header(self) -> str:
        """The text of the C header."""
        return self.bundle.header

    @property
    def manifest(self) -> dict[str, Any]:
        """What the JSON manifest holds."""
        return self.bundle.manifest

    def object_bytes(self) -> bytes:
        """The object file as one piece (with the weights: a copy of them)."""
        return self.bundle.image.to_bytes()

    def save(self, directory: str | Path, name: str | None = None) -> list[Path]:
        """Writes NAME.o, NAME.h, NAME.json (and NAME.weights) and returns their paths; the default
        NAME is the object's. UsageError when the folder cannot be written to."""
        return save_bundle(self.bundle, directory, name)

    def as_text(self, stage: str) -> str:
        """One stage of the compilation as text: graph, loops, llvm or asm; else UsageError."""
        if stage not in self._texts:
            raise UsageError(
                f"there is no text of stage '{stage}'",
                remedy=f"use one of: {', '.join(self._texts)}",
            )
        return self._texts[stage]()


class CompiledModel(_Artifact):
    """A model as native code, callable on numpy arrays without a C compiler.

    The code that runs is the object that ``save`` writes, byte for byte, loaded on the first call
    by LLVM's linker. Several threads may call at once: each has its own workspace.
    ``texts`` gives the stages that ``as_text`` can show, made when they are asked for; ``ports``
    what the inputs and outputs of an ONNX model are among those of the C function. ``variants`` are
    the same model for the other sizes that it was compiled for, itself among them: a call runs the
    one that its inputs fit.
    """

    def __init__(
        self,
        code: Code,
        entry: Entry,
        texts: Mapping[str, Callable[[], str]],
        ports: Ports | None = None,
    ) -> None:
        super().__init__(code, texts)
        self.entry = entry
        self.ports = ports
        self.variants: tuple[CompiledModel, ...] = (self,)
        self._pool: Pool | None = None

    @property
    def target(self) -> Target:
        return self.code.target

    @property
    def program(self) -> Program:
        return self.entry.program

    @property
    def plan(self) -> MemoryPlan:
        return self.entry.plan

    @property
    def signature(self) -> Signature:
        return self.entry.signature

    def save_module(self, directory: str | Path) -> list[Path]:
        """Writes NAME.wasm, NAME.mjs and NAME.d.ts, for browsers and Node; UsageError unless the
        target is wasm32."""
        return save_module(self.bundle, directory)

    def __call__(self, *arrays: Any, **named: Any) -> np.ndarray | tuple[np.ndarray, ...]:
        """Runs the model on inputs given in order or by name; one array, or a tuple if it has
        several outputs. UsageError when a name, type or shape does not fit."""
        outputs = self.bind(*arrays, **named)()
        return outputs[0] if len(outputs) == 1 else outputs

    def run_dict(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Runs the model on inputs by name; outputs by name. UsageError as for a call."""
        outputs = self.bind(**inputs)()
        return {
            param.name: array
            for param, array in zip(self.signature.outputs, outputs, strict=True)
        }

    def run_values(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Runs the model on values in its own terms, by the names of its inputs: arrays of their
        actual size, lists for sequences, None for what is absent, arrays of strings. Its outputs
        likewise. UsageError as for a call, and when a value does not fit its bounds."""
        results = self.run_dict(self.pack(inputs))
        if self.ports is None:
            return dict(results)
        return {port.name: unpack(port, results) for port in self.ports.outputs}

    def pack(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The arrays for `run_dict` and `bind` that mean ``inputs``, which are as for
        `run_values`."""
        if self.ports is None:
            return dict(inputs)
        known = [port.name for port in self.ports.inputs]
        missing = [name for name in known if name not in inputs]
        if missing or len(inputs) > len(known):
            reason = f"input '{missing[0]}' is missing" if missing else "there are too many inputs"
            raise UsageError(reason, remedy=f"the inputs are: {', '.join(known) or 'none'}")
        ports = self.ports.inputs
        for variant in self.variants:
            own = ports if variant.ports is None else variant.ports.inputs
            if all(_suits(port, inputs[port.name]) for port in own):
                ports = own
                break
        arrays: dict[str, Any] = {}
        for port in ports:
            arrays.update(pack(port, inputs[port.name]))
        return arrays

    def with_threads(self, threads: int) -> CompiledModel:
        """The same model, run by a pool of ``threads`` threads of its own; the bytes of the results
        are the same. UsageError unless it was compiled with ``threads=True``, and without a C
        compiler, which builds the pool."""
        if not self.signature.threads:
            raise UsageError(
                "the model has no entry for threads", remedy="compile it with threads=True"
            )
        self.code.load()
        pool = Pool(threads)
        others = tuple(copy.copy(variant) for variant in self.variants)
        for other in others:
            other.variants, other._pool = others, pool
        return others[self.variants.index(self)]

    def bind(self, *arrays: Any, **named: Any) -> Callable[[], tuple[np.ndarray, ...]]:
        """A function that runs the model on these inputs, into the same output arrays each time it
        is called in this thread: what a benchmark should time. UsageError as for a call."""
        signature, code = self.signature, self.code
        given = arrange(signature.inputs, arrays, named)
        names = [param.name for param in signature.inputs]
        fitting = self._fitting(dict(zip(names, given, strict=True)))
        if fitting is not self:
            return fitting.bind(*given)
        inputs = [
            fit_input(param, value)
            for param, value in zip(signature.inputs, given, strict=True)
        ]
        outputs = tuple(np.empty(p.type.dims, p.type.dtype.numpy) for p in signature.outputs)
        weights = code.weights()
        workspace = code.workspace(self.plan.arena_bytes)
        pointers = [array.ctypes.data for array in (*inputs, *outputs, *weights)]
        pointers += [workspace.ctypes.data + part.start for part in self.plan.parts]
        name = signature.run
        if self._pool is not None:
            name = signature.run_threads
            pointers.append(self._pool.address)
        entry = code.function(name, len(pointers))

        def run(_alive: object = (inputs, workspace, code, self._pool)) -> tuple[np.ndarray, ...]:
            status = Status(entry(*pointers))
            if status is not Status.OK:
                raise self._failure(status)
            return outputs

        return run

    def _fitting(self, values: Mapping[str, Any]) -> CompiledModel:
        """The variant for the shapes of ``values`` (by the name of the input)."""
        if len(self.variants) == 1:
            return self
        shapes = {name: np.shape(value) for name, value in values.items()}
        for model in (self, *self.variants):
            if all(shapes[param.name] == param.type.dims for param in model.signature.inputs):
                return model
        given = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        sizes = [", ".join(f"{d}={n}" for d, n in m.signature.sizes) for m in self.variants]
        raise UsageError(
            f"the model was not compiled for inputs of these shapes: {given}",
            remedy=f"give inputs for one of the sizes {'; '.join(sizes)}",
        )

    def _failure(self, status: Status) -> AotcError:
        message = f"the model returned {status.name}: {status.sentence}"
        steps = all_steps(self.program.steps)
        checks = list(dict.fromkeys(s.sentence for s in steps if isinstance(s, Check)))
        if status is not Status.OUT_OF_BOUNDS:
            return AotcError(message)
        more = f" (and {len(checks) - 3} more)" if len(checks) > 3 else ""
        return UsageError(
            message,
            remedy="give other inputs, or compile with larger bounds; what it checks: "
            + "; ".join(checks[:3]) + more,
        )


class CompiledModels(_Artifact, Mapping[str, CompiledModel]):
    """Several models in one object, by name: ``models["kws"](x)`` calls one of them."""

    def __init__(
        self,
        code: Code,
        models: Mapping[str, CompiledModel],
        texts: Mapping[str, Callable[[], str]],
    ) -> None:
        super().__init__(code, texts)
        self._models = dict(models)

    def __getitem__(self, name: str) -> CompiledModel:
        return self._models[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)


class Code:
    """An object, linked into this process when its first entry is asked for."""

    def __init__(self, bundle: Bundle, target: Target) -> None:
        self.bundle = bundle
        self.target = target
        self._lock = threading.Lock()
        self._engine: llvm.ExecutionEngine | None = None
        self._weights: list[np.ndarray] = []
        self._scratch = threading.local()

    def load(self) -> llvm.ExecutionEngine:
        """The linker that holds the object; UsageError when this machine cannot run it."""
        with self._lock:
            if self._engine is None:
                check_host(self.target)
                if self.bundle.weights is not None:
                    self._weights = [_file_contents(self.bundle.weights)]
                self._engine = link_object(self.bundle.image.to_bytes())
            return self._engine

    def function(self, name: str, pointers: int) -> Callable[..., int]:
        """The entry ``name``, which takes so many pointers."""
        # ctypes lets go of the interpreter's lock for the call, so threads really run at once.
        prototype = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * pointers)
        return prototype(self.load().get_function_address(name))

    def weights(self) -> list[np.ndarray]:
        """The contents of the weights file, if there is one."""
        self.load()
        return self._weights

    def workspace(self, size_bytes: int) -> np.ndarray:
        """Aligned memory of this thread, at least so large: what it holds is of no importance."""
        found: np.ndarray | None = getattr(self._scratch, "workspace", None)
        if found is None or found.nbytes < size_bytes:
            found = aligned_bytes(size_bytes, WORKSPACE_ALIGNMENT)
            self._scratch.workspace = found
        return found


def _suits(port: Port, value: Any) -> bool:
    """Whether the axes of ``value`` that have one size in ``port`` have that size."""
    if not isinstance(port, RaggedPort):
        return True
    sizes = zip(np.shape(value), port.type.dims, port.ranges, strict=False)
    return all(span is not None or size == fixed for size, fixed, span in sizes)


def _file_contents(constants: ConstantLayout) -> np.ndarray:
    """The weights file as aligned bytes."""
    contents = aligned_bytes(WEIGHTS_HEADER_BYTES + constants.size_bytes, WEIGHTS_ALIGNMENT)
    position = 0
    for chunk in weights_file_chunks(constants):
        contents[position : position + len(chunk)] = np.frombuffer(chunk, np.uint8)
        position += len(chunk)
    return contents


@functools.cache
def _initialize() -> None:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


def link_object(data: bytes) -> llvm.ExecutionEngine:
    """LLVM's run-time linker with the object in it, relocated and ready; no file is involved."""
    import llvmlite.binding as llvm

    _initialize()
    machine = llvm.Target.from_default_triple().create_target_machine()
    # One block for the whole object (lmm), so that code reaches its constants wherever memory lies.
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine, use_lmm=True)
    engine.add_object_file(llvm.ObjectFileRef.from_data(data))
    engine.finalize_object()
    return engine


def check_host(target: Target) -> None:
    """UsageError when this machine cannot run code for ``target``, before it crashes on it. Asks
    for tile registers if the code may use them."""
    import llvmlite.binding as llvm

    if target.is_gpu:
        raise UsageError(
            f"this works with code for CPUs, not with that for {target}",
            remedy="choose a CPU with --target; `make cuda-check` times models on a GPU",
        )
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(
        platform.machine().lower(), platform.machine().lower()
    )
    features = llvm.get_host_cpu_features() if machine == target.name else {}
    needed = ["avx2", "fma"] if target.name == "x86_64" else []
    needed += ["avx512f", "avx512bw", "avx512dq", "avx512vl"] * (target.vector_bits > 256)
    needed += ["amx-int8"] * target.tiles
    if machine != target.name or not all(features.get(feature) for feature in needed):
        raise UsageError(
            f"this machine cannot run code for {target}", remedy="compile with --cpu native"
        )
    if target.tiles and not may_use_tiles():
        raise UsageError(
            f"this process cannot have the tile registers that code for {target} uses",
            remedy="compile with --cpu native, which knows what it can have",
        )


def arrange(params: tuple[Param, ...], arrays: tuple[Any, ...], named: Mapping[str, Any]) -> list:
    """The arguments in the order of ``params``; names are the model's or those of the C header."""
    expected = f"the inputs are: {', '.join(f'{p.name} {p.type}' for p in params)}"
    if len(arrays) > len(params):
        raise UsageError(f"{len(arrays)} arrays for {len(params)} inputs", remedy=expected)
    given = dict(named)
    found = list(arrays)
    for param in params[len(arrays) :]:
        key = param.name if param.name in given else param.c_name
        if key not in given:
            raise UsageError(f"input '{param.name}' is missing", remedy=expected)
        found.append(given.pop(key))
    if given:
        raise UsageError(f"there is no open input '{next(iter(given))}'", remedy=expected)
    return found


def fit_input(param: Param, value: Any) -> np.ndarray:
    """``value`` as a dense, aligned array; UsageError unless it has the model's type and shape."""
    array, dtype = np.asarray(value), param.type.dtype
    if dtype.is_narrow and array.dtype == np.dtype(f"V{dtype.size_bytes}"):
        array = array.view(dtype.numpy)  # as numpy.load gives it, which knows only its own types
    if array.dtype != dtype.numpy:
        name = f"ml_dtypes.{dtype.value}" if dtype.is_narrow else f"'{dtype.value}'"
        raise UsageError(
            f"input '{param.name}' has element type {array.dtype}, the model takes {param.type}",
            remedy=f"convert it with .astype({name})",
        )
    if array.shape != param.type.dims:
        raise UsageError(
            f"input '{param.name}' has shape {list(array.shape)}, the model takes {param.type}",
            remedy="give an array of that shape, or compile for another one with --input-shape",
        )
    return np.require(array, requirements=["C", "A"]).reshape(param.type.dims)


def aligned_bytes(size_bytes: int, alignment: int) -> np.ndarray:
    """Fresh memory, uint8 [size_bytes], at a multiple of ``alignment``."""
    raw = np.empty(size_bytes + alignment, np.uint8)
    start = -raw.ctypes.data % alignment
    return raw[start : start + size_bytes]
