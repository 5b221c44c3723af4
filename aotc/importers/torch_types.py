"""torch's tensors, types and source lines in; arrays, TensorTypes and Places out."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from aotc.errors import UnsupportedError
from aotc.graph.types import DType, TensorType
from aotc.tracing.places import Place


def element_type(dtype: Any) -> DType:
    """aotc's name of a torch.dtype; UnsupportedError when it has none."""
    name = str(dtype).removeprefix("torch.")
    try:
        return DType(name)
    except ValueError:
        raise UnsupportedError(
            f"aotc has no element type {name}", remedy="use real numbers, integers or bools"
        ) from None


def tensor_type(value: Any) -> TensorType | None:
    """The type of a (fake) tensor; None of anything else. UnsupportedError when a size is not a
    number."""
    if not hasattr(value, "dtype") or not hasattr(value, "shape"):
        return None
    dims = []
    for size in value.shape:
        if not isinstance(size, int):
            raise UnsupportedError(f"the size {size} is known only at run time")
        dims.append(size)
    return TensorType(element_type(value.dtype), tuple(dims))


def array_of(torch: ModuleType, tensor: Any) -> np.ndarray:
    """The numbers of a tensor on any device."""
    if tensor.device.type == "meta":
        raise UnsupportedError(
            "a parameter has no values (it is on the meta device)", remedy="load the weights first"
        )
    if tensor.layout is not torch.strided:
        raise UnsupportedError(f"a tensor of layout {tensor.layout}", remedy="make it dense")
    dtype = element_type(tensor.dtype)
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    if dtype.is_narrow:
        stored = {1: torch.uint8, 2: torch.int16}[dtype.size_bytes]
        bits: np.ndarray = plain.view(stored).numpy()
        return bits.view(dtype.numpy)
    values: np.ndarray = plain.numpy()
    return values


_FRAME = re.compile(r'File "([^"]+)", line (\d+)')


def place_of(torch: ModuleType, trace: str | None) -> Place | None:
    """The innermost line of a stack trace that is not torch's own."""
    frames = [Place(file, int(line)) for file, line in _FRAME.findall(trace or "")]
    home = str(Path(str(torch.__file__)).parent)
    own = [frame for frame in frames if not frame.file.startswith(home)] or frames
    return own[-1] if own else None
