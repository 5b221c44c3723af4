"""The standard ONNX backend: a ModelProto in, a prepared model out that runs as native code.

For `onnx.backend.test.BackendTest` and whatever else speaks `onnx.backend.base`. A prepared model
is compiled by the pipeline of `aotc compile`, once for each combination of input shapes it meets;
only shapes, lengths of sequences and the presence of optional inputs are looked at, never values.
"""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.backend.base import Backend, BackendRep

from aotc.compiled import CompiledModel
from aotc.driver import compile
from aotc.errors import UsageError
from aotc.frontend.ports import pack, unpack
from aotc.frontend.specialize import EVERYTHING

MOST = 64
"""A size known at run time only, the trips of a loop included, is at most this where nothing says
how large it can be; `prepare(model, bounds={"name": N})` says it. One more is an error, not a wrong
result."""


class PreparedModel(BackendRep):  # type: ignore[misc]
    """A model that compiles when it meets new shapes; ``options`` are those of `aotc.compile`."""

    def __init__(self, model: onnx.ModelProto, options: Mapping[str, Any]) -> None:
        self._model = model
        bounds = {EVERYTHING: MOST, **options.get("bounds", {})}
        self._options = {**options, "bounds": bounds}
        initialised = {tensor.name for tensor in model.graph.initializer}
        initialised |= {tensor.values.name for tensor in model.graph.sparse_initializer}
        self._infos = [info for info in model.graph.input if info.name not in initialised]
        self._compiled: dict[tuple[Any, ...], CompiledModel] = {}

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs in the model's order. ``inputs`` is a sequence in the order of the model's
        inputs, or a mapping by name; a sequence input is a list, an absent optional one None."""
        compiled, arrays = self.compile_for(inputs)
        results = compiled.run_dict(arrays)
        assert compiled.ports is not None
        return tuple(unpack(port, results) for port in compiled.ports.outputs)

    def compile_for(self, inputs: Any) -> tuple[CompiledModel, dict[str, np.ndarray]]:
        """The code for inputs of these shapes, and ``inputs`` as the arrays that it takes."""
        values = self._arrange(inputs)
        shapes = {info.name: _shape_of(info.type, values[info.name]) for info in self._infos}
        key = tuple(shapes.values())
        compiled = self._compiled.get(key)
        if compiled is None:
            compiled = self._compiled[key] = self._compile(shapes)
        assert compiled.ports is not None
        arrays: dict[str, np.ndarray] = {}
        for port in compiled.ports.inputs:
            arrays.update(pack(port, values[port.name]))
        return compiled, arrays

    def _arrange(self, inputs: Any) -> dict[str, Any]:
        names = [info.name for info in self._infos]
        if isinstance(inputs, Mapping):
            return {name: inputs.get(name) for name in names}
        if not isinstance(inputs, Sequence) or len(inputs) > len(names):
            raise UsageError(
                f"{len(inputs)} inputs for {len(names)}", remedy=f"give: {', '.join(names)}"
            )
        return {**dict.fromkeys(names), **dict(zip(names, inputs, strict=False))}

    def _compile(self, shapes: Mapping[str, Any]) -> CompiledModel:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            onnx.save(self._model, path)
            return compile(path, input_shapes=shapes, **self._options)


class AotcBackend(Backend):  # type: ignore[misc]
    """`onnx.backend.base.Backend` by compilation to native code for the host's processor."""

    @classmethod
    def prepare(
        cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any
    ) -> PreparedModel:
        """A runnable model; keyword arguments are those of `aotc.compile`."""
        if not cls.supports_device(device):
            raise UsageError(f"there is no device '{device}'", remedy="use CPU")
        return PreparedModel(model, {"target": _host(), **kwargs})

    @classmethod
    def run_model(
        cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any
    ) -> tuple[Any, ...]:
        """`prepare`, then one run."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Only the CPU."""
        return device == "CPU"


def _host() -> str:
    machine = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)


def _shape_of(type_: onnx.TypeProto, value: Any) -> Any:
    """What of ``value`` decides the code: the shape of a tensor, those of a sequence's elements,
    None for an absent value."""
    kind = type_.WhichOneof("value")
    if value is None:
        return None
    if kind == "optional_type":
        return _shape_of(type_.optional_type.elem_type, value)
    if kind == "sequence_type":
        return tuple(_shape_of(type_.sequence_type.elem_type, item) for item in value)
    return tuple(np.shape(value))


prepare = AotcBackend.prepare
run_model = AotcBackend.run_model
supports_device = AotcBackend.supports_device
