"""The model's own inputs and outputs against those of the C function: a value in the caller's terms
in, arrays by parameter name out, and back.

A tensor is one parameter. A tensor of run-time size has a second one with its shape, a sequence has
one or more for each element, text is bytes padded to a width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aotc.errors import UsageError
from aotc.frontend.folding import FoldingBuilder
from aotc.frontend.values import OptionalValue, Ragged, SequenceValue, Text, Value
from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Node
from aotc.graph.types import DType, TensorType


@dataclass(frozen=True)
class TensorPort:
    """One parameter called ``name``."""

    name: str
    type: TensorType


@dataclass(frozen=True)
class RaggedPort:
    """A box called ``name`` and the actual shape, int64[rank], called ``extents``. For an input,
    ``ranges`` has the symbol of each axis whose size a run chooses, with the least and the largest
    one."""

    name: str
    type: TensorType
    extents: str
    ranges: tuple[tuple[str, int, int] | None, ...] = ()


@dataclass(frozen=True)
class TextPort:
    """Strings as uint8[..., width], called ``name``; the parameter ``extents``, int64[rank], has
    their actual shape when it is known at run time only."""

    name: str
    type: TensorType
    extents: str | None = None


@dataclass(frozen=True)
class SequencePort:
    """The elements, and the parameter (int64[]) with their number when that is not fixed."""

    name: str
    items: tuple[Port, ...]
    length: str | None = None


@dataclass(frozen=True)
class OptionalPort:
    """The value, None when it is known to be absent; ``present`` is the parameter (bool[]) that
    tells, None when it is known."""

    name: str
    value: Port | None
    present: str | None = None


Port = TensorPort | RaggedPort | TextPort | SequencePort | OptionalPort


@dataclass(frozen=True)
class Ports:
    """The inputs and outputs of a model, in its order."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


def input_value(builder: FoldingBuilder, port: Port, sizes: dict[str, Node]) -> Value:
    """The value of an input, whose parameters are made here; a length is checked at run time."""
    match port:
        case TextPort(name=name, type=type_):
            return Text(builder.parameter(name, type_))
        case SequencePort(items=items, length=length):
            values = tuple(input_value(builder, item, sizes) for item in items)
            if length is None:
                return SequenceValue(values)
            count = builder.parameter(length, TensorType(DType.I64, ()))
            least = builder.compare("ge", count, builder.constant(0, DType.I64))
            most = builder.compare("le", count, builder.constant(len(items), DType.I64))
            builder.check(
                builder.binary("and", least, most),
                f"input '{length}' is more than {len(items)}, or negative",
            )
            builder.limits[count] = (0, len(items))
            return SequenceValue(values, count)
        case OptionalPort(value=inner, present=present):
            if inner is None:
                return OptionalValue(None, present=False)
            held = input_value(builder, inner, sizes)
            if present is None:
                return OptionalValue(held, present=True)
            return OptionalValue(held, builder.parameter(present, TensorType(DType.BOOL, ())))
        case TensorPort(name=name, type=type_):
            return builder.parameter(name, type_)
        case RaggedPort():
            return _ragged_input(builder, port, sizes)
    raise AssertionError(port)


def _ragged_input(builder: FoldingBuilder, port: RaggedPort, sizes: dict[str, Node]) -> Ragged:
    """A box and the shape that the run gives, of which every size is checked."""
    box = builder.parameter(port.name, port.type)
    shape = builder.parameter(port.extents, TensorType(DType.I64, (port.type.rank,)))
    extents: list[int | Node] = []
    for axis, range_ in enumerate(port.ranges):
        picked = builder.apply(ops.Slice((axis,), (1,), (1,)), shape)
        size = builder.reshape(picked, ())
        if range_ is None:
            most = port.type.dims[axis]
            same = builder.compare("eq", size, builder.constant(most, DType.I64))
            builder.check(same, f"input '{port.extents}' must have {most} as element {axis}")
            extents.append(most)
            continue
        symbol, low, high = range_
        if symbol not in sizes:
            least = builder.compare("ge", size, builder.constant(low, DType.I64))
            most_ = builder.compare("le", size, builder.constant(high, DType.I64))
            builder.check(
                builder.binary("and", least, most_), f"'{symbol}' must be from {low} to {high}"
            )
            builder.limits[size] = (low, high)
            sizes[symbol] = size
        elif sizes[symbol] is not size:
            same = builder.compare("eq", size, sizes[symbol])
            builder.check(same, f"'{symbol}' must be the same in all inputs")
        extents.append(sizes[symbol])
    return Ragged(box, tuple(extents))


def parameters(port: Port) -> list[str]:
    """The names of the parameters that ``port`` takes."""
    match port:
        case RaggedPort(name=name, extents=extents):
            return [name, extents]
        case SequencePort(items=items, length=length):
            names = [name for item in items for name in parameters(item)]
            return names if length is None else [*names, length]
        case OptionalPort(value=inner, present=present):
            names = [] if inner is None else parameters(inner)
            return names if present is None else [*names, present]
    return [port.name]


def output_port(
    builder: Builder, name: str, value: Value
) -> tuple[Port, list[tuple[str, Node]]]:
    """The port for ``value`` under ``name`` and the graph outputs that it takes."""
    match value:
        case Ragged(node=node, extents=extents):
            sizes = [_vector(builder, size) for size in extents]
            shape = sizes[0] if len(sizes) == 1 else builder.concat(sizes, 0)
            port: Port = RaggedPort(name, node.type, f"{name}_shape")
            return port, [(name, node), (f"{name}_shape", shape)]
        case Text(node=node, extents=tuple(extents)):
            sizes = [_vector(builder, size) for size in extents]
            port = TextPort(name, node.type, f"{name}_shape")
            return port, [(name, node), (f"{name}_shape", builder.concat(sizes, 0))]
        case Text(node=node):
            return TextPort(name, node.type), [(name, node)]
        case SequenceValue(items=items, length=length):
            parts = [output_port(builder, f"{name}_{i}", item) for i, item in enumerate(items)]
            outputs = [output for _, more in parts for output in more]
            counter = None if length is None else f"{name}_length"
            if length is not None:
                outputs.append((f"{name}_length", length))
            return SequencePort(name, tuple(port for port, _ in parts), counter), outputs
        case OptionalValue(value=inner, present=present):
            if inner is None:
                return OptionalPort(name, None), []
            held, outputs = output_port(builder, name, inner)
            if isinstance(present, Node):
                return OptionalPort(name, held, f"{name}_present"), [
                    *outputs,
                    (f"{name}_present", present),
                ]
            return OptionalPort(name, held), outputs
    return TensorPort(name, value.type), [(name, value)]


def _vector(builder: Builder, size: int | Node) -> Node:
    if isinstance(size, Node):
        return builder.reshape(size, (1,))
    return builder.constant([size], DType.I64)


def notes(ports: Ports) -> dict[str, tuple[str, str]]:
    """What a C programmer must know of the parameters that are more than a plain tensor: by the
    parameter's name a sentence, in which {} stands for the parameter named beside it."""
    found: dict[str, tuple[str, str]] = {}
    for port in ports.inputs:
        found.update(_notes(port, "is not looked at"))
    for port in ports.outputs:
        found.update(_notes(port, "is unspecified"))
    return found


def _notes(port: Port, rest: str) -> dict[str, tuple[str, str]]:
    match port:
        case RaggedPort(name=name, extents=extents, ranges=ranges):
            given = [range_ for range_ in ranges if range_ is not None]
            limits = [f"{symbol} is from {low} to {high}" for symbol, low, high in given]
            shape = "; ".join(["the shape of what {} holds", *limits])
            filled = f"holds the first {{}}[i] elements of each axis i; the rest {rest}"
            return {name: (filled, extents), extents: (shape, name)}
        case TextPort(name=name, type=type_):
            return {name: (f"strings in UTF-8, padded with zeros to {type_.dims[-1]} bytes", name)}
        case SequencePort(name=name, items=items, length=length):
            found = {key: note for item in items for key, note in _notes(item, rest).items()}
            if length is not None:
                found[length] = (f"how many of {name}_0 to {name}_{len(items) - 1} there are", name)
            return found
        case OptionalPort(name=name, value=inner, present=present):
            found = {} if inner is None else _notes(inner, rest)
            if present is not None:
                found[present] = (f"whether {name} is there", name)
            return found
    return {}


def pack(port: Port, value: Any) -> dict[str, np.ndarray]:
    """The arrays for the parameters of ``port`` that mean ``value``; UsageError when it does not
    fit. Tensors are arrays, sequences lists, an absent optional is None, strings are str or bytes.
    """
    match port:
        case TensorPort(name=name):
            return {name: np.asarray(value)}
        case RaggedPort(name=name, type=type_, extents=extents):
            array = np.asarray(value)
            if array.ndim != type_.rank or any(
                size > most for size, most in zip(array.shape, type_.dims, strict=True)
            ):
                raise UsageError(
                    f"input '{name}' has shape {list(array.shape)}, the bound is {type_}",
                    remedy="compile with a larger bound",
                )
            box = np.zeros(type_.dims, type_.dtype.numpy)
            box[tuple(slice(size) for size in array.shape)] = array
            return {name: box, extents: np.asarray(array.shape, np.int64)}
        case TextPort(name=name, type=type_):
            return {name: _pack_text(name, value, type_)}
        case SequencePort(name=name, items=items, length=length):
            values = list(value)
            most = len(items)
            if len(values) > most or (length is None and len(values) != most):
                raise UsageError(
                    f"input '{name}' has {len(values)} elements, the model takes {most}",
                    remedy="compile for that length",
                )
            found: dict[str, np.ndarray] = {}
            for item, element in zip(items, values, strict=False):
                found.update(pack(item, element))
            for item in items[len(values) :]:
                found.update(_zeros(item))
            if length is not None:
                found[length] = np.asarray(len(values), np.int64)
            return found
        case OptionalPort(name=name, value=inner, present=present):
            if inner is None or (value is None and present is None):
                if value is not None or inner is not None:
                    raise UsageError(
                        f"input '{name}' is {'given' if inner is None else 'missing'}, but the "
                        "model is compiled for the other case",
                        remedy="compile it for this case",
                    )
                return {}
            found = _zeros(inner) if value is None else pack(inner, value)
            if present is not None:
                found[present] = np.asarray(value is not None)
            return found
    raise AssertionError(port)


def unpack(port: Port, arrays: Mapping[str, np.ndarray]) -> Any:
    """The value that the parameters of ``port`` hold, in the terms of `pack`."""
    match port:
        case TensorPort(name=name):
            return arrays[name]
        case RaggedPort(name=name, extents=extents):
            return arrays[name][tuple(slice(int(size)) for size in arrays[extents])].copy()
        case TextPort(name=name, extents=str(extents)):
            return _unpack_text(arrays[name][tuple(slice(int(n)) for n in arrays[extents])])
        case TextPort(name=name):
            return _unpack_text(arrays[name])
        case SequencePort(items=items, length=length):
            count = len(items) if length is None else int(arrays[length])
            return [unpack(item, arrays) for item in items[:count]]
        case OptionalPort(value=inner, present=present):
            if inner is None or (present is not None and not arrays[present]):
                return None
            return unpack(inner, arrays)
    raise AssertionError(port)


def _zeros(port: Port) -> dict[str, np.ndarray]:
    match port:
        case RaggedPort(name=name, type=type_, extents=extents):
            return {
                name: np.zeros(type_.dims, type_.dtype.numpy),
                extents: np.zeros(type_.rank, np.int64),
            }
        case TensorPort(name=name, type=type_) | TextPort(name=name, type=type_):
            return {name: np.zeros(type_.dims, type_.dtype.numpy)}
        case SequencePort(items=items, length=length):
            found = {key: value for item in items for key, value in _zeros(item).items()}
            if length is not None:
                found[length] = np.zeros((), np.int64)
            return found
        case OptionalPort(value=inner, present=present):
            found = {} if inner is None else _zeros(inner)
            if present is not None:
                found[present] = np.zeros((), np.bool_)
            return found
    raise AssertionError(port)


def _pack_text(name: str, value: Any, type_: TensorType) -> np.ndarray:
    strings = np.asarray(value, dtype=object)
    *shape, width = type_.dims
    if strings.shape != tuple(shape):
        raise UsageError(
            f"input '{name}' has shape {list(strings.shape)}, the model takes {shape}",
            remedy="give an array of that shape",
        )
    encoded: Sequence[bytes] = [
        item if isinstance(item, bytes) else str(item).encode() for item in strings.reshape(-1)
    ]
    longest = max(map(len, encoded), default=0)
    if longest > width:
        raise UsageError(
            f"input '{name}' has a string of {longest} bytes, the bound is {width}",
            remedy=f"compile with --max {name}={longest}",
        )
    packed = b"".join(item.ljust(width, b"\0") for item in encoded)
    return np.frombuffer(packed, np.uint8).reshape(type_.dims).copy()


def _unpack_text(array: np.ndarray) -> np.ndarray:
    rows = array.reshape(-1, array.shape[-1])
    strings = np.empty(len(rows), dtype=object)
    for place, row in enumerate(rows):
        strings[place] = row.tobytes().rstrip(b"\0").decode(errors="replace")
    return strings.reshape(array.shape[:-1])
