"""Specialisation: declared inputs and the user's flags go in, ports of static types come out.

Shapes are bound before anything is imported, so no later stage meets a symbolic dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import onnx

from aotc.config import DimSize
from aotc.errors import AotcError, ModelError, UnsupportedError, UsageError
from aotc.frontend.ports import (
    OptionalPort,
    Port,
    RaggedPort,
    SequencePort,
    TensorPort,
    TextPort,
)
from aotc.frontend.tensors import dtype_of
from aotc.frontend.text import DEFAULT_WIDTH, STRING
from aotc.graph.rules import MAX_ELEMS
from aotc.graph.types import DType, TensorType

Declared = tuple[int | str | None, ...]
"""A declared shape: a size, a symbol's name, or None where the model says nothing."""


MAX_ITEMS = 1024
"""A sequence has at most as many elements: each is a tensor of its own in the program."""


EVERYTHING = "*"
"""The name by which --max bounds every value that has no bound of its own."""


@dataclass(frozen=True)
class Flags:
    """What the user says of sizes: symbols in ``dims``, whole inputs in ``input_shapes``, the most
    that a run-time size can be in ``bounds``, all by name."""

    dims: Mapping[str, DimSize]
    input_shapes: Mapping[str, Sequence[Any] | None]
    bounds: Mapping[str, int]

    @property
    def ranges(self) -> dict[str, tuple[int, int]]:
        """The symbols whose size each run chooses, with the least and the largest."""
        return {name: size for name, size in self.dims.items() if isinstance(size, tuple)}


def fixed_sizes(dims: Mapping[str, DimSize]) -> dict[str, int]:
    """The symbols that are bound to one size."""
    return {name: size for name, size in dims.items() if isinstance(size, int)}


def declared_shape(info: onnx.ValueInfoProto) -> Declared | None:
    """The shape that the model declares for a tensor; None when not even the rank is known."""
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    dims: list[int | str | None] = []
    for dim in tensor.shape.dim:
        if dim.HasField("dim_value"):
            dims.append(int(dim.dim_value) if dim.dim_value >= 0 else None)
        else:
            name = dim.dim_param
            anonymous = name in ("", "?") or name.lstrip("-").isdigit()
            dims.append(None if anonymous else name)
    return tuple(dims)


def declared_symbols(type_: onnx.TypeProto) -> list[str]:
    """The symbols in the shape of a tensor, of a sequence's elements or of an optional value."""
    match type_.WhichOneof("value"):
        case "optional_type":
            return declared_symbols(type_.optional_type.elem_type)
        case "sequence_type":
            return declared_symbols(type_.sequence_type.elem_type)
    shape = declared_shape(onnx.ValueInfoProto(type=type_)) or ()
    return [dim for dim in shape if isinstance(dim, str)]


def declared_shapes(
    graph: onnx.GraphProto, dims: Mapping[str, int] | None = None
) -> dict[str, Declared]:
    """What ``graph`` declares of its values and outputs, by name; ``dims`` binds symbols."""
    found = {}
    for info in (*graph.value_info, *graph.output):
        if info.type.WhichOneof("value") != "tensor_type":
            continue
        declared = declared_shape(info)
        if declared is not None:
            bound = dims or {}
            found[info.name] = tuple(
                bound.get(dim, dim) if isinstance(dim, str) else dim for dim in declared
            )
    return found


def bind_inputs(
    infos: Sequence[onnx.ValueInfoProto],
    flags: Flags,
    known_dims: Sequence[str],
    known_inputs: Sequence[str],
    report: Callable[[AotcError, str], None],
) -> dict[str, Port]:
    """The port of every input in ``infos``; what stands in the way goes to ``report`` with the
    input's name.

    ``known_dims`` and ``known_inputs`` are the names that flags may use. A shape given for one
    input binds the symbols in it for all inputs.
    """
    bound = _check_flags(flags.dims, flags.input_shapes, known_dims, known_inputs, report)
    for info in infos:
        given = flags.input_shapes.get(info.name)
        declared = declared_shape(info)
        if given is not None and declared is not None:
            _bind_symbols(info.name, declared, tuple(given), bound, report)
    ports = {}
    for info in infos:
        try:
            ports[info.name] = _input_port(info, bound, flags)
        except AotcError as error:
            report(error, info.name)
    return ports


def _input_port(
    info: onnx.ValueInfoProto, bound: Mapping[str, int], flags: Flags
) -> Port:
    name = info.name
    given = flags.input_shapes.get(name)
    kind = info.type.WhichOneof("value")
    if kind == "optional_type":
        if name in flags.input_shapes and given is None:
            return OptionalPort(name, None)
        inner = onnx.ValueInfoProto(name=name, type=info.type.optional_type.elem_type)
        port = _held_port(inner, bound, flags)
        return OptionalPort(name, port, None if given is not None else f"{name}_present")
    return _held_port(info, bound, flags)


def _held_port(info: onnx.ValueInfoProto, bound: Mapping[str, int], flags: Flags) -> Port:
    """The port of a tensor or a sequence."""
    given = flags.input_shapes.get(info.name)
    if info.type.WhichOneof("value") == "sequence_type":
        return _sequence_port(info, given, bound, flags.bounds)
    port = _tensor_port(info, given, bound, flags.bounds)
    symbols = [dim for dim in declared_shape(info) or () if isinstance(dim, str)]
    open_dims = [symbol for symbol in symbols if symbol in flags.ranges]
    if given is not None or not open_dims:
        return port
    if not isinstance(port, TensorPort):
        raise UnsupportedError(
            f"input '{info.name}' holds strings and has a range of sizes",
            remedy=f"give one size: --dim {open_dims[0]}=N",
        )
    axes = [
        (dim, *flags.ranges[dim]) if isinstance(dim, str) and dim in flags.ranges else None
        for dim in declared_shape(info) or ()
    ]
    return RaggedPort(port.name, port.type, f"{port.name}_shape", tuple(axes))


def _tensor_port(
    info: onnx.ValueInfoProto,
    given: Sequence[int] | None,
    bound: Mapping[str, int],
    bounds: Mapping[str, int],
) -> TensorPort | TextPort:
    """The port of a tensor; of strings that have as many bytes as ``bounds`` says."""
    type_ = _input_type(info, bound, given)
    if info.type.tensor_type.elem_type != STRING:
        return TensorPort(info.name, type_)
    width = bounds.get(info.name, DEFAULT_WIDTH)
    return TextPort(info.name, TensorType(type_.dtype, (*type_.dims, max(width, 1))))


def _sequence_port(
    info: onnx.ValueInfoProto,
    given: Sequence[Any] | None,
    bound: Mapping[str, int],
    bounds: Mapping[str, int],
) -> SequencePort:
    """The port of a sequence: one element for each shape in ``given``, or as many as ``bounds``
    says of the declared shape."""
    name = info.name
    most = bounds.get(name)
    kind = info.type.sequence_type.elem_type
    if given is None and most is None:
        raise UsageError(
            f"input '{name}' is a sequence, and how many elements it has is not known",
            remedy=f"give the shape of each, as in --input-shape '{name}=3,4;3,4', or the most "
            f"elements: --max {name}=N",
        )
    shapes: list[Sequence[int] | None] = [None] * (most or 0)
    if given is not None:
        # one shape stands for a sequence of one
        shapes = [tuple(given)] if given and isinstance(given[0], int) else list(given)
    if len(shapes) > MAX_ITEMS:
        raise UsageError(
            f"input '{name}' has {len(shapes)} elements, more than {MAX_ITEMS}",
            remedy="keep the elements in one tensor with one more axis",
        )
    items = []
    for place, shape in enumerate(shapes):
        item = onnx.ValueInfoProto(name=name, type=kind)
        if shape is not None and not item.type.tensor_type.shape.dim:
            # models declare elements of any shape as scalars
            item.type.tensor_type.ClearField("shape")
        items.append(replace(_tensor_port(item, shape, bound, bounds), name=f"{name}_{place}"))
    return SequencePort(name, tuple(items), f"{name}_length" if given is None else None)


def _check_flags(
    dims: Mapping[str, DimSize],
    input_shapes: Mapping[str, Sequence[Any] | None],
    known_dims: Sequence[str],
    known_inputs: Sequence[str],
    report: Callable[[AotcError, str], None],
) -> dict[str, int]:
    """The size of each symbol, the largest one for a range."""
    bound: dict[str, int] = {}
    for name, size in dims.items():
        low, high = size if isinstance(size, tuple) else (size, size)
        if name not in known_dims:
            report(_unknown("dimension", name, known_dims), name)
        elif low < 1:
            error = UsageError(f"dimension '{name}' cannot be {low}", remedy="give 1 or more")
            report(error, name)
        else:
            bound[name] = high
    for name, shape in input_shapes.items():
        if name not in known_inputs:
            report(_unknown("input", name, known_inputs), name)
        elif not _is_shape(shape or ()):
            text = ",".join(map(str, shape or ()))
            remedy = "give sizes of 0 or more"
            report(UsageError(f"input '{name}' cannot have the shape {text}", remedy=remedy), name)
    return bound


def _is_shape(shape: Sequence[Any]) -> bool:
    """Whether it is a list of sizes, or of such lists."""
    if all(isinstance(size, int) for size in shape):
        return all(size >= 0 for size in shape)
    nested = all(isinstance(item, Sequence) and not isinstance(item, str) for item in shape)
    return nested and all(isinstance(size, int) and size >= 0 for item in shape for size in item)


def _unknown(what: str, name: str, known: Sequence[str]) -> UsageError:
    listed = ", ".join(known)
    if known:
        return UsageError(f"the model has no {what} '{name}'", remedy=f"it has: {listed}")
    none = "it has none" if what == "input" else "every dimension of its inputs is fixed or unnamed"
    return UsageError(f"the model has no {what} '{name}'", remedy=none)


def _bind_symbols(
    name: str,
    declared: Declared,
    given: tuple[int, ...],
    bound: dict[str, int],
    report: Callable[[AotcError, str], None],
) -> None:
    if len(declared) != len(given):
        return  # `_input_type` reports it
    for symbol, size in zip(declared, given, strict=True):
        if not isinstance(symbol, str):
            continue
        if bound.setdefault(symbol, size) != size:
            message = f"dimension '{symbol}' is both {bound[symbol]} and {size} (input '{name}')"
            report(UsageError(message, remedy="give one size for it"), name)


def _input_type(
    info: onnx.ValueInfoProto, bound: Mapping[str, int], given: Sequence[int] | None
) -> TensorType:
    name = info.name
    kind = info.type.WhichOneof("value")
    if kind is None:
        raise ModelError(f"input '{name}' has no type", remedy="export the model again")
    if kind != "tensor_type":
        raise UnsupportedError(
            f"input '{name}' holds a {kind.removesuffix('_type')}, not a tensor",
            remedy="export the model with tensors, sequences or optionals of them as inputs",
        )
    if any(not isinstance(size, int) for size in given or ()):
        raise UsageError(
            f"input '{name}' is one tensor, but several shapes are given",
            remedy=f"give one: --input-shape {name}=1,...",
        )
    number = info.type.tensor_type.elem_type
    dtype = DType.U8 if number == STRING else dtype_of(number)
    declared = declared_shape(info)
    if given is not None:
        if declared is not None:
            _expect_fit(name, declared, tuple(given))
        return _sized(name, TensorType(dtype, tuple(given)))
    if declared is None:
        raise UsageError(
            f"input '{name}' has no declared shape", remedy=f"give it: --input-shape {name}=1,..."
        )
    sizes = tuple(bound.get(dim) if isinstance(dim, str) else dim for dim in declared)
    static = tuple(size for size in sizes if size is not None)
    if len(static) != len(sizes):
        raise _unbound(name, declared, sizes)
    return _sized(name, TensorType(dtype, static))


def _sized(name: str, type_: TensorType) -> TensorType:
    if type_.elems > MAX_ELEMS:
        raise ModelError(
            f"input '{name}' asks for {type_.elems} elements, more than 2**40",
            remedy="check its shape",
        )
    return type_


def _expect_fit(name: str, declared: Declared, given: tuple[int, ...]) -> None:
    model = ",".join("?" if dim is None else str(dim) for dim in declared)
    fits = len(declared) == len(given) and all(
        not isinstance(dim, int) or dim == size for dim, size in zip(declared, given, strict=True)
    )
    if not fits:
        raise UsageError(
            f"input '{name}' cannot have the shape {','.join(map(str, given))}: "
            f"the model declares {model}",
            remedy=f"give --input-shape {name}=... with the same rank and the same fixed sizes",
        )


def _unbound(name: str, declared: Declared, sizes: tuple[int | None, ...]) -> UsageError:
    model = ",".join("?" if dim is None else str(dim) for dim in declared)
    example = ",".join("1" if size is None else str(size) for size in sizes)
    missing = [dim for dim, size in zip(declared, sizes, strict=True) if size is None]
    symbols = list(dict.fromkeys(dim for dim in missing if isinstance(dim, str)))
    shape_flag = f"--input-shape {name}={example}"
    if len(symbols) < len(set(missing)):
        return UsageError(
            f"input '{name}' has the shape {model}, and a dimension without a name is not bound",
            remedy=f"give the whole shape, for example {shape_flag}",
        )
    names = ", ".join(f"'{symbol}'" for symbol in symbols)
    flags = " ".join(f"--dim {symbol}=1" for symbol in symbols)
    plural = "dimensions" if len(symbols) > 1 else "dimension"
    verb = "are" if len(symbols) > 1 else "is"
    return UsageError(
        f"{plural} {names} of input '{name}' ({model}) {verb} not bound",
        remedy=f"give a size, for example {flags} or {shape_flag}",
    )
