"""Tensor data: an ONNX TensorProto goes in, a read-only numpy array comes out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx

from aotc.errors import ModelError, UnsupportedError
from aotc.graph.rules import MAX_ELEMS
from aotc.graph.types import DType

_Proto = onnx.TensorProto

DTYPES: dict[int, DType] = {
    _Proto.BOOL: DType.BOOL,
    _Proto.INT8: DType.I8,
    _Proto.INT16: DType.I16,
    _Proto.INT32: DType.I32,
    _Proto.INT64: DType.I64,
    _Proto.UINT8: DType.U8,
    _Proto.UINT16: DType.U16,
    _Proto.UINT32: DType.U32,
    _Proto.UINT64: DType.U64,
    _Proto.FLOAT16: DType.F16,
    _Proto.FLOAT: DType.F32,
    _Proto.DOUBLE: DType.F64,
    _Proto.BFLOAT16: DType.BF16,
    _Proto.FLOAT8E4M3FN: DType.F8E4M3FN,
    _Proto.FLOAT8E4M3FNUZ: DType.F8E4M3FNUZ,
    _Proto.FLOAT8E5M2: DType.F8E5M2,
    _Proto.FLOAT8E5M2FNUZ: DType.F8E5M2FNUZ,
    _Proto.FLOAT8E8M0: DType.F8E8M0,
    _Proto.FLOAT4E2M1: DType.F4E2M1,
    _Proto.INT4: DType.I4,
    _Proto.UINT4: DType.U4,
    _Proto.INT2: DType.I2,
    _Proto.UINT2: DType.U2,
}
"""ONNX element types that aotc has, by their number."""

ONNX_TYPES: dict[DType, int] = {dtype: number for number, dtype in DTYPES.items()}

_TYPED_FIELDS: dict[DType, str] = {
    **dict.fromkeys((DType.BOOL, DType.I8, DType.I16, DType.I32), "int32_data"),
    **dict.fromkeys((DType.U8, DType.U16, DType.F16), "int32_data"),
    **dict.fromkeys((dtype for dtype in DType if dtype.is_narrow), "int32_data"),
    **dict.fromkeys((DType.U32, DType.U64), "uint64_data"),
    DType.I64: "int64_data",
    DType.F32: "float_data",
    DType.F64: "double_data",
}

DENSE_BYTES = 1 << 30
"""A sparse initialiser may not grow beyond this when it is made dense."""


def dtype_of(number: int) -> DType:
    """The element type of ONNX's number; UnsupportedError names the type that aotc lacks."""
    dtype = DTYPES.get(number)
    if dtype is not None:
        return dtype
    known = number in _Proto.DataType.values()
    name = _Proto.DataType.Name(number) if known else f"number {number}"
    if not known or number == _Proto.UNDEFINED:
        raise ModelError(
            f"element type {name} is not one of ONNX's", remedy="export the model again"
        )
    if number == _Proto.STRING:
        raise UnsupportedError(
            "strings are not supported here",
            remedy="rewrite this part of the model: strings can be moved, compared, split, matched",
        )
    raise UnsupportedError(
        f"element type {name} is not supported",
        remedy=f"convert the tensor to one of {', '.join(d.value for d in DType)}",
    )


def tensor_values(tensor: onnx.TensorProto, folder: Path | None) -> np.ndarray:
    """The values of ``tensor``, shape as declared; external data is looked for in ``folder`` only.

    The bytes are taken over from the protobuf once. ModelError when data and shape do not fit
    together.
    """
    where = f"tensor '{tensor.name}'"
    dtype = dtype_of(tensor.data_type)
    shape = tuple(tensor.dims)
    if min(shape, default=0) < 0:
        raise ModelError(f"{where} has a negative dimension: {list(shape)}", remedy=_AGAIN)
    elems = math.prod(shape)
    if elems > MAX_ELEMS:
        raise ModelError(
            f"{where} asks for {elems} elements, more than 2**40",
            remedy="check the shape; export the model again",
        )
    if tensor.data_location == _Proto.EXTERNAL:
        values = _external_values(tensor, dtype, elems, folder)
    elif tensor.HasField("raw_data"):
        raw = tensor.raw_data
        needed = stored_bytes(dtype, elems)
        if len(raw) != needed:
            raise ModelError(
                f"{where} has {len(raw)} bytes of data; {dtype.value}{list(shape)} needs {needed}",
                remedy=_AGAIN,
            )
        values = _from_bytes(raw, dtype, elems)
    else:
        values = _typed_values(tensor, dtype, elems)
    values = values.reshape(shape)
    values.flags.writeable = False
    return values


_AGAIN = "the file is damaged: export or download the model again"


def stored_bytes(dtype: DType, elems: int) -> int:
    """The bytes that ONNX stores ``elems`` elements in: types of 2 and 4 bits share bytes."""
    return -(-elems * dtype.size_bits // 8)


def _from_bytes(raw: bytes, dtype: DType, elems: int) -> np.ndarray:
    if dtype is DType.BOOL:
        # any byte but 0 is true; kernels rely on 0 and 1
        return np.asarray(np.frombuffer(raw, dtype=np.uint8) != 0)
    if dtype.size_bits < 8:
        # the first element is in the lowest bits
        shifts = np.arange(0, 8, dtype.size_bits, dtype=np.uint8)
        spread = np.frombuffer(raw, dtype=np.uint8)[:, np.newaxis] >> shifts
        codes = spread.reshape(-1)[:elems] & np.uint8((1 << dtype.size_bits) - 1)
        return codes.view(dtype.numpy)
    plain = dtype.machine.numpy
    return np.frombuffer(raw, dtype=plain.newbyteorder("<")).astype(plain, copy=False).view(
        dtype.numpy
    )


def _typed_values(tensor: onnx.TensorProto, dtype: DType, elems: int) -> np.ndarray:
    data = getattr(tensor, _TYPED_FIELDS[dtype])
    needed = elems if dtype.size_bits >= 8 else stored_bytes(dtype, elems)
    if len(data) != needed:
        raise ModelError(
            f"tensor '{tensor.name}' has {len(data)} elements of data; its shape "
            f"{list(tensor.dims)} needs {needed}",
            remedy=_AGAIN,
        )
    if dtype is DType.F16 or dtype.is_narrow:
        # the bits of each element, or of the elements that share a byte
        bits = np.array(data, dtype=np.int32).astype(f"<u{dtype.size_bytes}")
        return _from_bytes(bits.tobytes(), dtype, elems)
    if dtype is DType.BOOL:
        return np.asarray(np.array(data, dtype=np.int32) != 0)
    wide = {"int32_data": np.int32, "uint64_data": np.uint64}.get(_TYPED_FIELDS[dtype])
    return np.array(data, dtype=wide or dtype.numpy).astype(dtype.numpy, copy=False)


def external_path(location: str, folder: Path | None) -> Path:
    """The file that ``location`` names inside ``folder``; ModelError when it lies anywhere else."""
    if folder is None:
        raise ModelError(
            "the model keeps weights in other files, but has no folder of its own",
            remedy="load the model from its file",
        )
    relative = Path(location)
    parts = location.replace("\\", "/").split("/")
    if not location or relative.is_absolute() or location[0] in "/\\" or ":" in parts[0]:
        raise ModelError(
            f"the external data path '{location}' is not relative to the model's folder",
            remedy="save the model with external data beside it",
        )
    try:
        resolved, home = (folder / relative).resolve(), folder.resolve()
        exists = resolved.is_file()
    except (OSError, RuntimeError, ValueError):
        # a name too long, a loop of links, a null byte
        raise ModelError(
            f"the external data path {location[:80]!r} is not valid", remedy=_AGAIN
        ) from None
    if ".." in parts or not resolved.is_relative_to(home):
        raise ModelError(
            f"the external data path '{location}' leaves the model's folder",
            remedy="save the model with external data beside it, without links",
        )
    if not exists:
        raise ModelError(
            f"the external data file '{location}' does not exist beside the model",
            remedy="copy it into the model's folder",
        )
    return resolved


def _external_values(
    tensor: onnx.TensorProto, dtype: DType, elems: int, folder: Path | None
) -> np.ndarray:
    where = f"tensor '{tensor.name}'"
    entries = {entry.key: entry.value for entry in tensor.external_data}
    path = external_path(entries.get("location", ""), folder)
    needed = stored_bytes(dtype, elems)
    try:
        offset = int(entries.get("offset", "0") or "0")
        length = int(entries.get("length", "0") or needed)
    except ValueError:
        raise ModelError(
            f"{where} has an external offset or length that is not a number", remedy=_AGAIN
        ) from None
    if length != needed:
        raise ModelError(f"{where} needs {needed} bytes, its entry has {length}", remedy=_AGAIN)
    size = path.stat().st_size
    if offset < 0 or offset + needed > size:
        raise ModelError(
            f"{where} needs bytes {offset} to {offset + needed} of '{path.name}', which has {size}",
            remedy="the weights file is truncated: copy or download it again",
        )
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return _from_bytes(file.read(needed), dtype, elems)
    except OSError as error:
        raise ModelError(
            f"cannot read the external data file '{path.name}': {error.strerror}",
            remedy="check its permissions",
        ) from None


def sparse_values(sparse: onnx.SparseTensorProto, folder: Path | None) -> np.ndarray:
    """A sparse tensor (linear or per-axis indices) as a dense read-only array."""
    values = tensor_values(sparse.values, folder).reshape(-1)
    indices = tensor_values(sparse.indices, folder).astype(np.int64)
    shape = tuple(sparse.dims)
    name = sparse.values.name
    if min(shape, default=0) < 0 or math.prod(shape) * values.itemsize > DENSE_BYTES:
        raise UnsupportedError(
            f"sparse tensor '{name}' of shape {list(shape)} is too large to make dense",
            remedy="store it as a dense tensor",
        )
    if indices.ndim == 2 and indices.shape[1] == len(shape):
        strides = np.cumprod((1, *shape[:0:-1]))[::-1].astype(np.int64) if shape else np.zeros(0)
        outside = (indices < 0) | (indices >= np.array(shape, dtype=np.int64))
        linear = indices @ strides.astype(np.int64)
    else:
        linear = indices.reshape(-1)
        outside = (linear < 0) | (linear >= math.prod(shape))
    if outside.any() or linear.shape != values.shape:
        raise ModelError(f"the indices of sparse tensor '{name}' do not fit it", remedy=_AGAIN)
    dense = np.zeros(math.prod(shape), dtype=values.dtype)
    dense[linear] = values
    dense = dense.reshape(shape)
    dense.flags.writeable = False
    return dense
