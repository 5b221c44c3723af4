"""Other engines under one interface: a model file in, a function over numpy arrays out."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import onnx

from aotc.errors import UsageError
from aotc.frontend.tflite.reader import tensor_names
from aotc.frontend.tflite.schema import is_tflite
from aotc.reference.ort_values import run_session

Arrays = dict[str, np.ndarray]


class Engine(Protocol):
    """A loaded model. ``version`` is the engine's own."""

    version: str

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """The outputs by name."""

    def bind(self, inputs: Mapping[str, np.ndarray]) -> Callable[[], object]:
        """A function that computes the outputs of these inputs each time: what a benchmark times.
        """


def load_engine(
    name: str,
    model: Path,
    outputs: Sequence[str],
    shapes: Mapping[str, tuple[int, ...]],
    threads: int = 1,
) -> Engine:
    """The engine called ``name`` with ``model`` loaded for ``threads`` threads.

    ``outputs`` are the outputs to compute, in order; ``shapes`` the shape of every input.
    UsageError when the engine is unknown, not installed, or refuses the model.
    """
    if name not in _ENGINES:
        raise UsageError(f"unknown engine '{name}'", remedy=f"use one of: {', '.join(_ENGINES)}")
    module_name, package = _MODULES.get(name, (name, name))
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UsageError(
            f"{package} is not installed ({error})", remedy=f"pip install {package}"
        ) from None
    try:
        return _ENGINES[name](module, model, outputs, shapes, threads)
    except Exception as error:  # every engine has exceptions of its own
        raise UsageError(
            f"{name} cannot load the model: {_first_line(error)}",
            where=str(model),
            remedy="leave this engine out, or use a model that it supports",
        ) from None


def steps_apart(model: Path) -> int:
    """How far integers may be from the reference's: quantised numbers of TFLite models by one, as
    their operators promise."""
    return int(is_tflite(model))


class _OnnxRuntime:
    """ONNX Runtime on the CPU with all its optimisations."""

    def __init__(
        self,
        module: Any,
        model: Path,
        outputs: Sequence[str],
        shapes: Mapping[str, tuple[int, ...]],
        threads: int,
    ) -> None:
        self.version: str = module.__version__
        self._module = module
        self._outputs = list(outputs)
        self._folder = model.parent
        plain = self._open(str(model), threads, {})
        sizes = _bound_sizes(plain, shapes)
        own = [described.name for described in plain.get_outputs()]
        inner = [name for name in self._outputs if name not in own]
        if sizes or inner:
            # Tell it the sizes that aotc knows at compile time, so that both know the same.
            source = _with_outputs(model, inner) if inner else str(model)
            self._session = self._open(source, threads, sizes)
        else:
            self._session = plain
        self._unused = _unused_inputs(self._session, shapes)

    def _open(self, source: str | bytes, threads: int, sizes: Mapping[str, int]) -> Any:
        options = self._module.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = self._module.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = self._module.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 4
        # Its threads may spin during a run, and must not during another engine's.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        for name, size in sizes.items():
            options.add_free_dimension_override_by_name(name, size)
        if isinstance(source, bytes):
            options.add_session_config_entry(
                "session.model_external_initializers_file_folder_path", str(self._folder)
            )
        return self._module.InferenceSession(source, options, providers=["CPUExecutionProvider"])

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        results = run_session(
            self._module, self._session, self._outputs, {**inputs, **self._unused}
        )
        return dict(zip(self._outputs, results, strict=True))

    def bind(self, inputs: Mapping[str, np.ndarray]) -> Callable[[], object]:
        binding = self._session.io_binding()
        # The binding keeps no reference to the arrays that it points into.
        values = {
            name: self._module.OrtValue.ortvalue_from_numpy(array)
            for name, array in {**inputs, **self._unused}.items()
        }
        for name, value in values.items():
            binding.bind_ortvalue_input(name, value)
        for name in self._outputs:
            binding.bind_output(name)
        session = self._session

        def run(_alive: object = values) -> None:
            session.run_with_iobinding(binding)

        return run


class _OpenVino:
    """OpenVINO on the CPU, in float32 and for latency."""

    def __init__(
        self,
        module: Any,
        model: Path,
        outputs: Sequence[str],
        shapes: Mapping[str, tuple[int, ...]],
        threads: int,
    ) -> None:
        self.version: str = module.get_version()
        self._outputs = list(outputs)
        core = module.Core()
        loaded = core.read_model(str(model))
        loaded.reshape({name: list(shape) for name, shape in shapes.items()})
        self._compiled = core.compile_model(
            loaded,
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": 1,
                "INFERENCE_PRECISION_HINT": "f32",
            },
        )

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        results = self._compiled(dict(inputs))
        return {name: np.array(results[name]) for name in self._outputs}

    def bind(self, inputs: Mapping[str, np.ndarray]) -> Callable[[], object]:
        request = self._compiled.create_infer_request()
        request.infer(dict(inputs))  # copies the inputs into the request's own tensors

        def run() -> None:
            request.infer()

        return run


class _LiteRt:
    """LiteRT on the CPU: its reference kernels for results, its fastest ones for times."""

    def __init__(
        self,
        module: Any,
        model: Path,
        outputs: Sequence[str],
        shapes: Mapping[str, tuple[int, ...]],
        threads: int,
    ) -> None:
        self.version: str = importlib.metadata.version("ai-edge-litert")
        self._module = module
        self._model = model
        self._threads = threads
        self._shapes = shapes
        _, names = tensor_names(model)
        self._places = {name: place for place, name in enumerate(names)}
        self._outputs = list(outputs)
        kernels = module.OpResolverType
        try:
            self._reference = self._open(kernels.BUILTIN_REF)
        except ValueError:  # a few operators have no reference kernel
            self._reference = self._open(kernels.BUILTIN_WITHOUT_DEFAULT_DELEGATES)

    def _open(self, kernels: Any) -> Any:
        found = self._module.Interpreter(
            str(self._model),
            experimental_op_resolver_type=kernels,
            experimental_preserve_all_tensors=True,
            num_threads=self._threads,
        )
        for name, shape in self._shapes.items():
            found.resize_tensor_input(self._places[name], shape)
        found.allocate_tensors()
        return found

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        for name, array in inputs.items():
            self._reference.set_tensor(self._places[name], array)
        self._reference.invoke()
        return {name: self._reference.get_tensor(self._places[name]) for name in self._outputs}

    def bind(self, inputs: Mapping[str, np.ndarray]) -> Callable[[], object]:
        fast = self._open(self._module.OpResolverType.AUTO)
        for name, array in inputs.items():
            fast.set_tensor(self._places[name], array)
        run: Callable[[], object] = fast.invoke
        return run


_ENGINES: Mapping[str, Callable[..., Engine]] = MappingProxyType(
    {"onnxruntime": _OnnxRuntime, "openvino": _OpenVino, "litert": _LiteRt}
)
_MODULES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {"litert": ("ai_edge_litert.interpreter", "ai-edge-litert")}
)
"""The module and the package of an engine where they are not called as it is."""


def default_engine(model: Path) -> str:
    """The engine that is the reference for files of the kind of ``model``."""
    return "litert" if is_tflite(model) else "onnxruntime"


def _bound_sizes(session: Any, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """The size of each named dimension; names that stand for several sizes are left out."""
    found: dict[str, set[int]] = {}
    for described in session.get_inputs():
        sizes = shapes.get(described.name, ())
        for dim, size in zip(described.shape, sizes, strict=False):
            if isinstance(dim, str):
                found.setdefault(dim, set()).add(size)
    return {name: sizes.pop() for name, sizes in found.items() if len(sizes) == 1}


def _unused_inputs(session: Any, shapes: Mapping[str, tuple[int, ...]]) -> Arrays:
    """Zeros for the inputs that aotc has pruned and ONNX Runtime still asks for."""
    found = {}
    for described in session.get_inputs():
        if described.name not in shapes:
            kind = described.type.removeprefix("tensor(").removesuffix(")")
            dtype = {"float": "float32", "double": "float64"}.get(kind, kind)
            sizes = [dim if isinstance(dim, int) and dim > 0 else 1 for dim in described.shape]
            found[described.name] = np.zeros(sizes, dtype)
    return found


def _with_outputs(model: Path, names: Sequence[str]) -> bytes:
    """The model with inner tensors as further outputs."""
    proto = onnx.load(model, load_external_data=False)
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    data: bytes = proto.SerializeToString()
    return data


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
