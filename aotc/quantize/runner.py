"""A model and the names of some of its tensors in; their values for any sample out, computed by the
model compiled for this machine."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from aotc.compiled import CompiledModel
from aotc.config import Options
from aotc.driver import run_stages
from aotc.errors import UsageError
from aotc.quantize.samples import Inputs

Arrays = dict[str, np.ndarray]

GROUP_TENSORS = 200
"""Of this many tensors each run gives the values; a model with more is compiled several times."""

GROUP_BYTES = 1 << 29
"""The values of one run may have so many bytes."""


class Runner:
    """Calls a model file, compiled once for each set of input shapes that it meets.

    ``outputs`` are tensors of the model, its own outputs if None.
    """

    def __init__(self, path: Path, outputs: Sequence[str] | None = None) -> None:
        self._path = path
        self._outputs = None if outputs is None else tuple(outputs)
        self._models: dict[tuple[tuple[str, tuple[int, ...]], ...], CompiledModel] = {}

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """The values by name; only tensors of numbers are among them."""
        shapes = {name: array.shape for name, array in inputs.items()}
        key = tuple(shapes.items())
        if key not in self._models:
            self._models[key] = run_stages(self._path, self._options(shapes))
        model = self._models[key]
        assert model.ports is not None
        needed = {port.name: inputs[port.name] for port in model.ports.inputs}
        results = model.run_values(needed)
        return {name: array for name, array in results.items() if isinstance(array, np.ndarray)}

    def _options(self, shapes: Mapping[str, tuple[int, ...]]) -> Options:
        machine = platform.machine().lower()
        name = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
        return Options(
            target=name,
            cpu="native",
            # quick to compile: each of these models runs a few hundred times at most
            opt="size",
            input_shapes=shapes,
            outputs=self._outputs,
            name="model",
        )


class Scratch:
    """A folder for models on their way to the compiler, gone at the end of the block."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="aotc-quantize-")
        self._count = 0

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def save(self, model: onnx.ModelProto) -> Path:
        """Where ``model`` now is."""
        self._count += 1
        path = Path(self._folder.name) / f"{self._count}.onnx"
        try:
            path.write_bytes(model.SerializeToString())
        except OSError as error:
            raise UsageError(
                f"cannot write the model to compile: {error.strerror}",
                where=str(path),
                remedy="make room there, or set TMPDIR to a folder that has some",
            ) from None
        return path


class Probe:
    """The inner tensors of a model, computed for any samples, one group of tensors after the other;
    compiled once, however often it runs."""

    def __init__(self, path: Path, groups: Sequence[Sequence[str]]) -> None:
        self._runners = [Runner(path, group) for group in groups]

    def run(self, samples: Iterable[Inputs]) -> Iterator[Arrays]:
        """The values of each group on each sample, all samples of a group in a row."""
        for runner in self._runners:
            for inputs in samples:
                yield runner(inputs)


def group_tensors(names: Sequence[str], sizes: Mapping[str, int]) -> list[list[str]]:
    """``names`` in groups of which all values of one sample fit into memory, ``sizes`` being theirs
    as far as it is known."""
    groups: list[list[str]] = []
    total = 0
    for name in names:
        size = sizes.get(name, 0)
        if not groups or len(groups[-1]) >= GROUP_TENSORS or total + size > GROUP_BYTES:
            groups.append([])
            total = 0
        groups[-1].append(name)
        total += size
    return groups
