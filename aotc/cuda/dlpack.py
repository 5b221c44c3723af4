"""Arrays of other libraries in, their addresses out, and the other way round: the DLPack protocol
(https://dmlc.github.io/dlpack, structures of its version 0), without a copy."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from ctypes import POINTER, c_char_p, c_int32, c_int64, c_uint8, c_uint16, c_uint64, c_void_p
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from aotc.errors import UsageError
from aotc.graph.types import DType

CUDA = 2
"""kDLCUDA, the type of a device."""


class _Tensor(ctypes.Structure):
    """DLTensor, its members spelled out in order."""

    _fields_ = [
        ("data", c_void_p),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("ndim", c_int32),
        ("code", c_uint8),
        ("bits", c_uint8),
        ("lanes", c_uint16),
        ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)),
        ("byte_offset", c_uint64),
    ]


_DELETER = ctypes.CFUNCTYPE(None, c_void_p)


class _Managed(ctypes.Structure):
    """DLManagedTensor."""

    _fields_ = [("tensor", _Tensor), ("context", c_void_p), ("deleter", _DELETER)]


#: Element types as (DLDataTypeCode, bits).
_TYPES: Mapping[DType, tuple[int, int]] = MappingProxyType(
    {
        **{
            kind: (code, 8 * kind.size_bytes)
            for code, kinds in (
                (0, (DType.I8, DType.I16, DType.I32, DType.I64)),
                (1, (DType.U8, DType.U16, DType.U32, DType.U64)),
                (2, (DType.F16, DType.F32, DType.F64)),
            )
            for kind in kinds
        },
        DType.BF16: (4, 16),
        DType.BOOL: (6, 8),
    }
)

_NAME = b"dltensor"


@dataclass(frozen=True, eq=False)
class Borrowed:
    """Device memory of somebody else: it stays theirs, and in place while this object lives."""

    address: int
    device: int
    dtype: DType | None
    shape: tuple[int, ...]
    dense: bool
    _capsule: object


def is_on_device(value: Any) -> bool:
    """Whether ``value`` says that it lies on a CUDA device."""
    ask = getattr(value, "__dlpack_device__", None)
    return ask is not None and int(ask()[0]) == CUDA


def borrow(value: Any, stream: int) -> Borrowed:
    """The memory of an array on a CUDA device, complete for what comes later in ``stream``.
    UsageError when the array does not give a capsule of this protocol."""
    capsule = value.__dlpack__(stream=stream)
    if not _is_valid(ctypes.py_object(capsule), _NAME):
        raise UsageError(
            f"{type(value).__name__} gives no DLPack capsule", remedy="give another array"
        )
    managed = ctypes.cast(_pointer_in(ctypes.py_object(capsule), _NAME), POINTER(_Managed))
    tensor = managed.contents.tensor
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    strides = [tensor.strides[i] for i in range(tensor.ndim)] if tensor.strides else None
    kind = (tensor.code, tensor.bits)
    found = [dtype for dtype, known in _TYPES.items() if known == kind and tensor.lanes == 1]
    address = (tensor.data or 0) + tensor.byte_offset
    dense = strides is None or _is_dense(shape, strides)
    # the capsule is not marked as used: its own destructor gives the memory back
    return Borrowed(address, tensor.device_id, found[0] if found else None, shape, dense, capsule)


def lend(
    owner: object, address: int, device: int, dtype: DType, shape: Sequence[int]
) -> object:
    """A capsule about dense device memory, which keeps ``owner`` alive until its taker has done.
    UsageError for element types that the protocol does not know."""
    if dtype not in _TYPES:
        raise UsageError(
            f"DLPack has no element type {dtype.value}", remedy="take the output on the host"
        )
    code, bits = _TYPES[dtype]
    sizes = (c_int64 * max(len(shape), 1))(*shape)
    tensor = _Tensor(address, CUDA, device, len(shape), code, bits, 1, sizes, None, 0)
    managed = _Managed(tensor, None, _DELETER_OF_ALL)
    # one reference for whoever holds the capsule; the deleter gives it back
    kept = _Kept(owner, managed, sizes)
    managed.context = id(kept)
    _increase(ctypes.py_object(kept))
    return _new_capsule(ctypes.addressof(managed), _NAME, _DESTRUCTOR_OF_ALL)


@dataclass(frozen=True, eq=False)
class _Kept:
    """What has to live as long as a capsule or its taker."""

    owner: object
    managed: _Managed
    shape: Any


def _is_dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Row-major without gaps; strides of axes with one element mean nothing."""
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return 0 in shape
        expected *= size
    return True


def _of_python(name: str, result: Any, *parameters: Any) -> Callable[..., Any]:
    """A function of Python's C interface."""
    return ctypes.PYFUNCTYPE(result, *parameters)((name, ctypes.pythonapi))


_is_valid = _of_python("PyCapsule_IsValid", ctypes.c_int, ctypes.py_object, c_char_p)
_pointer_in = _of_python("PyCapsule_GetPointer", c_void_p, ctypes.py_object, c_char_p)
_new_capsule = _of_python("PyCapsule_New", ctypes.py_object, c_void_p, c_char_p, c_void_p)
_increase = _of_python("Py_IncRef", None, ctypes.py_object)
# a capsule that is being destroyed must not be touched as an object any more
_is_valid_at = _of_python("PyCapsule_IsValid", ctypes.c_int, c_void_p, c_char_p)
_pointer_at = _of_python("PyCapsule_GetPointer", c_void_p, c_void_p, c_char_p)
_decrease = _of_python("Py_DecRef", None, c_void_p)


def _delete(managed: int) -> None:
    _decrease(ctypes.cast(managed, POINTER(_Managed)).contents.context)


_DELETER_OF_ALL = _DELETER(_delete)


def _destroy(capsule: int) -> None:
    """Nobody took the capsule, unless its name says so."""
    if _is_valid_at(capsule, _NAME):
        _delete(_pointer_at(capsule, _NAME))


# called while Python destroys a capsule, with the interpreter's lock held
_DESTRUCTOR_FUNCTION = ctypes.PYFUNCTYPE(None, c_void_p)(_destroy)
_DESTRUCTOR_OF_ALL = ctypes.cast(_DESTRUCTOR_FUNCTION, c_void_p)
