"""A folder of samples in, the inputs of a model out, one file after the other, each checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from aotc.errors import UnsupportedError, UsageError
from aotc.frontend.specialize import Declared, declared_shape
from aotc.frontend.tensors import dtype_of
from aotc.graph.types import DType
from aotc.quantize.images import IMAGE_SUFFIXES, ImageOptions, read_image

Inputs = dict[str, np.ndarray]


@dataclass(frozen=True)
class InputInfo:
    """A model's input: its element type, and its sizes where they are fixed."""

    name: str
    dtype: DType
    shape: Declared | None


@dataclass(frozen=True)
class Samples:
    """The samples of a folder, in the order of the names of their files: one file, one sample.

    Iterating reads them anew each time, so no more than one is in memory. UsageError for one that
    does not fit the model.
    """

    folder: Path
    inputs: tuple[InputInfo, ...]
    images: ImageOptions = field(default_factory=ImageOptions)
    limit: int | None = None

    def __post_init__(self) -> None:
        self.paths()

    def paths(self) -> list[Path]:
        """The files; UsageError when there are none."""
        try:
            found = sorted(path for path in self.folder.iterdir() if path.is_file())
        except OSError as error:
            raise UsageError(
                f"cannot read the folder of samples: {error.strerror}",
                where=str(self.folder),
                remedy="give a folder with .npz, .npy or image files",
            ) from None
        known = (".npz", ".npy", *IMAGE_SUFFIXES)
        wanted = [path for path in found if path.suffix.lower() in known]
        if not wanted:
            raise UsageError(
                "there are no samples in the folder" + (", only other files" if found else ""),
                where=str(self.folder),
                remedy="put .npz (arrays by the names of the inputs), .npy or image files there",
            )
        return wanted[: self.limit]

    def __len__(self) -> int:
        return len(self.paths())

    def __iter__(self) -> Iterator[Inputs]:
        for path in self.paths():
            yield self._read(path)

    def _read(self, path: Path) -> Inputs:
        arrays = self._arrays(path)
        expected = ", ".join(info.name for info in self.inputs)
        for name in arrays:
            if name not in [info.name for info in self.inputs]:
                raise UsageError(
                    f"the model has no input '{name}'",
                    where=str(path),
                    remedy=f"name the arrays after the inputs: {expected}",
                )
        for info in self.inputs:
            if info.name not in arrays:
                raise UsageError(
                    f"there is no array for input '{info.name}'",
                    where=str(path),
                    remedy=f"give an array for each of the inputs: {expected}",
                )
        return {info.name: _checked(info, arrays[info.name], path) for info in self.inputs}

    def _arrays(self, path: Path) -> Inputs:
        """What the file holds, by the name of the input."""
        suffix = path.suffix.lower()
        if suffix == ".npz":
            return _load(path)
        if len(self.inputs) != 1:
            raise UsageError(
                f"the model has {len(self.inputs)} inputs, the file holds one array",
                where=str(path),
                remedy="give .npz files with an array for each input",
            )
        (info,) = self.inputs
        if suffix == ".npy":
            return {info.name: _load(path)[""]}
        return {info.name: read_image(path, info.dtype, info.shape, self.images)}


def find_samples(
    folder: Path,
    model: onnx.ModelProto,
    images: ImageOptions | None = None,
    limit: int | None = None,
) -> Samples:
    """The samples in ``folder`` for ``model``, at most ``limit``; UsageError when there are none,
    UnsupportedError when the model has an input that is not a tensor of numbers."""
    stored = {tensor.name for tensor in model.graph.initializer}
    infos = tuple(_info(info) for info in model.graph.input if info.name not in stored)
    return Samples(folder, infos, images or ImageOptions(), limit)


def _info(info: onnx.ValueInfoProto) -> InputInfo:
    if info.type.WhichOneof("value") != "tensor_type":
        raise UnsupportedError(
            f"input '{info.name}' is not a tensor", remedy="only models on tensors are quantised"
        )
    return InputInfo(info.name, dtype_of(info.type.tensor_type.elem_type), declared_shape(info))


def _load(path: Path) -> Inputs:
    """The arrays of an archive by name, or one array under the empty name; nothing is unpickled."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except Exception as error:  # zlib, zipfile and numpy have many of their own for damaged files
        reason = getattr(error, "strerror", None) or next(iter(str(error).splitlines()), "damaged")
        raise UsageError(
            f"cannot read the sample: {reason}",
            where=str(path),
            remedy="write it with numpy.save or numpy.savez",
        ) from None


def _checked(info: InputInfo, array: np.ndarray, path: Path) -> np.ndarray:
    """``array`` if it has the type and shape of the input and only finite values."""
    where = f"{path}, input '{info.name}'"
    if array.dtype != info.dtype.numpy:
        raise UsageError(
            f"the array has element type {array.dtype}, the model takes {info.dtype.value}",
            where=where,
            remedy=f"convert it with .astype('{info.dtype.value}')",
        )
    if info.shape is not None:
        fixed = [size if isinstance(size, int) else None for size in info.shape]
        fits = array.ndim == len(fixed) and all(
            size in (None, actual) for size, actual in zip(fixed, array.shape, strict=True)
        )
        if not fits:
            shown = ",".join("?" if size is None else str(size) for size in info.shape)
            raise UsageError(
                f"the array has shape {list(array.shape)}, the model takes [{shown}]",
                where=where,
                remedy="give one sample a file, with the axis of the batch",
            )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UsageError(
            "the array has values that are NaN or infinite",
            where=where,
            remedy="leave the sample out, or repair it",
        )
    return array
