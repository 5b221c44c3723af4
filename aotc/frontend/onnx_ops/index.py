"""ONNX gathers and scatters by index: a `Call` goes in, mostly one primitive comes out."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from aotc.errors import ModelError
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType


def gather(call: Call) -> Node:
    """numpy's ``take`` along ``axis``."""
    axis = call.axis(call.attrs.integer("axis", 0), call[0].type.rank)
    return call.apply(ops.Gather(axis), call[0], call[1])


def gather_elements(call: Call) -> Node:
    """numpy's ``take_along_axis``."""
    axis = call.axis(call.attrs.integer("axis", 0), call[0].type.rank)
    return call.apply(ops.GatherElements(axis), call[0], call[1])


def gather_nd(call: Call) -> Node:
    """The last axis of the indices addresses the leading axes of the data."""
    return call.apply(ops.GatherND(call.attrs.integer("batch_dims", 0)), call[0], call[1])


def _scatter_function(call: Call) -> str:
    name = call.attrs.string("reduction", "none")
    if name not in ("none", "add", "mul", "min", "max"):
        raise ModelError(f"attribute 'reduction' cannot be '{name}'")
    return "set" if name == "none" else name


def scatter_elements(call: Call) -> Node:
    """A copy of the data with single elements replaced or combined."""
    axis = call.axis(call.attrs.integer("axis", 0), call[0].type.rank)
    fn = _scatter_function(call)
    return call.apply(ops.ScatterElements(axis, fn), call[0], call[1], call[2])


def scatter_nd(call: Call) -> Node:
    """A copy of the data with slices replaced or combined."""
    return call.apply(ops.ScatterND(_scatter_function(call)), call[0], call[1], call[2])


def tensor_scatter(call: Call) -> Node:
    """A cache with the update written along ``axis``, in each batch from its own place on."""
    past, update = call[0], call[1]
    axis = call.axis(call.attrs.integer("axis", -2), past.type.rank)
    mode = call.attrs.string("mode", "linear")
    if axis == 0 or mode not in ("linear", "circular"):
        raise ModelError(f"axis {axis} or mode '{mode}' is not valid")
    place = call.apply(ops.Iota(update.shape, axis, DType.I64))
    start = call.optional(2)
    if start is not None:
        apart = (start.shape[0], *(1,) * (update.type.rank - 1))
        place = call.binary("add", place, call.reshape(call.cast(start, DType.I64), apart))
    if mode == "circular":
        place = call.binary("mod", place, past.shape[axis])
    return call.apply(ops.ScatterElements(axis, "set"), past, place, update)


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "Gather": gather,
        "GatherElements": gather_elements,
        "GatherND": gather_nd,
        "Scatter": scatter_elements,
        "ScatterElements": scatter_elements,
        "ScatterND": scatter_nd,
        "TensorScatter": tensor_scatter,
    }
)
