"""The traced value: numpy's operators, functions and methods in, nodes of the graph out.

Operators and methods are numpy's functions on the value itself, so each meaning has one home:
`ufuncs.py` for elementwise functions, `functions.py` for the rest, `indexing.py` for ``x[...]``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from aotc.graph.ir import Node
from aotc.graph.types import TensorType
from aotc.tracing.places import misuse, unsupported
from aotc.tracing.scope import Scope
from aotc.tracing.spec import Spec, read_annotation

tnp: Any = np
"""numpy, for its functions on Tensors, of which its type annotations know nothing."""

_LONGEST = 4096
"""A Python loop over more rows than this is a mistake: each iteration makes nodes of its own."""


def _in_place(ufunc: np.ufunc) -> Callable[[Tensor, Any], Tensor]:
    def method(self: Tensor, other: Any) -> Tensor:
        result: Tensor = ufunc(self, other)
        if result.shape != self.shape or not np.can_cast(result.dtype, self.dtype, "same_kind"):
            raise misuse(f"{result.type} does not go into {self.type} in place")
        return result.astype(self.dtype)

    return method


def _method(function: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Tensor, *inputs: Any, **named: Any) -> Any:
        return function(self, *inputs, **named)

    method.__doc__ = f"np.{function.__name__} of the value."
    return method


class Tensor(NDArrayOperatorsMixin):
    """A value of the function that is being traced: its type is known, its numbers are not.

    As an annotation, ``Tensor[2, 3, "uint8"]`` is the type of an argument or result; without a name
    of a type it is float32. ``x += y`` binds ``x`` to a new value; other names keep the old one.
    """

    __slots__ = ("node", "scope")
    __array_priority__ = 1000
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, scope: Scope, node: Node) -> None:
        self.scope = scope
        self.node = node

    def __class_getitem__(cls, items: Any) -> Spec:
        return read_annotation(items)

    # What is known of it.

    @property
    def type(self) -> TensorType:
        """Element type and shape."""
        return self.node.type

    @property
    def shape(self) -> tuple[int, ...]:
        return self.node.shape

    @property
    def dtype(self) -> np.dtype:
        return self.node.type.dtype.numpy

    @property
    def ndim(self) -> int:
        return self.node.type.rank

    @property
    def size(self) -> int:
        return self.node.type.elems

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.size * self.itemsize

    def __repr__(self) -> str:
        return f"Tensor({self.type})"

    def __len__(self) -> int:
        if not self.shape:
            raise misuse("a traced number has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if len(self) > _LONGEST:
            raise misuse(
                f"a Python loop over {self.type} would trace {len(self)} iterations one by one",
                "use aotc.scan or aotc.map",
            )
        return (self[place] for place in range(len(self)))

    # What it has to do with Python's control flow.

    def __bool__(self) -> NoReturn:
        raise misuse(
            f"the truth of a traced {self.type} is not known while the function is traced",
            "use aotc.cond or np.where instead of if, aotc.while_loop instead of while, and & | ~"
            " instead of and, or, not",
        )

    def _number(self) -> NoReturn:
        raise misuse(
            f"a traced {self.type} has no number yet: it is known only when the compiled code runs",
            "keep it a tensor; sizes, counts and axes must be Python numbers",
        )

    __int__ = __float__ = __index__ = __complex__ = _number

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NoReturn:
        raise unsupported(
            f"numpy wants the numbers of a traced {self.type} here",
            "put values together with np.stack or np.concatenate instead of np.array, pick elements"
            " of an array with np.take, and use numpy's functions on them",
        )

    def __format__(self, form: str) -> str:
        return self._number() if form else repr(self)

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_") or not hasattr(np.ndarray, name):
            raise AttributeError(f"a traced value has no attribute '{name}'")
        raise unsupported(f"the method {name} of numpy's arrays does not trace ({self.type})")

    def item(self, *place: Any) -> NoReturn:
        """A traced value has no number yet: UsageError."""
        self._number()

    tolist = item

    # Protocols: of the array API standard, then numpy's.

    def __array_namespace__(self, /, *, api_version: str | None = None) -> Any:
        """`aotc.numpy`; UsageError for a version of the standard that it does not follow."""
        return importlib.import_module("aotc.numpy").of_version(api_version)

    @property
    def device(self) -> str:
        return "cpu"

    def to_device(self, device: Any, /, *, stream: Any = None) -> Tensor:
        """The value itself: "cpu" is the only device."""
        importlib.import_module("aotc.numpy.types").expect_device(device)
        return self

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **named: Any) -> Any:
        from aotc.tracing.ufuncs import call_ufunc

        return call_ufunc(ufunc, method, inputs, named)

    def __array_function__(self, function: Any, types: Any, inputs: Any, named: Any) -> Any:
        from aotc.tracing.functions import call_function

        return call_function(function, inputs, named)

    def __getitem__(self, key: Any) -> Tensor:
        from aotc.tracing.indexing import pick

        return pick(self, key)

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        raise misuse(
            f"a traced {self.type} cannot be changed in place",
            "x = aotc.updated(x, key, value) gives a new one",
        )

    __iadd__ = _in_place(np.add)
    __isub__ = _in_place(np.subtract)
    __imul__ = _in_place(np.multiply)
    __itruediv__ = _in_place(np.true_divide)
    __ifloordiv__ = _in_place(np.floor_divide)
    __imod__ = _in_place(np.remainder)
    __ipow__ = _in_place(np.power)
    __iand__ = _in_place(np.bitwise_and)
    __ior__ = _in_place(np.bitwise_or)
    __ixor__ = _in_place(np.bitwise_xor)
    __ilshift__ = _in_place(np.left_shift)
    __irshift__ = _in_place(np.right_shift)
    __imatmul__ = _in_place(np.matmul)

    # Methods of numpy's arrays.

    @property
    def T(self) -> Any:
        return self.transpose()

    @property
    def mT(self) -> Any:
        """The last two axes exchanged."""
        return tnp.swapaxes(self, -1, -2)

    @property
    def flat(self) -> Iterator[Tensor]:
        return iter(self.flatten())

    def astype(self, dtype: Any, **ignored: Any) -> Tensor:
        """Conversion. Floats beyond the range of an integer type become its ends, NaN becomes 0
        (numpy leaves both open)."""
        from aotc.tracing.core import cast

        return cast(self, np.dtype(dtype))

    def copy(self, order: str = "K") -> Tensor:
        """The value itself: nothing can change it."""
        return self

    def reshape(self, *shape: Any, **named: Any) -> Any:
        """np.reshape; the sizes as one tuple or one by one."""
        sizes = shape[0] if len(shape) == 1 else shape
        return tnp.reshape(self, sizes, **named)

    def transpose(self, *axes: Any) -> Any:
        """np.transpose; the axes as one tuple or one by one."""
        order = axes[0] if len(axes) == 1 else axes or None
        return tnp.transpose(self, order)

    def flatten(self, order: str = "C") -> Any:
        """np.ravel."""
        return tnp.ravel(self, order)

    sum = _method(np.sum)
    prod = _method(np.prod)
    mean = _method(np.mean)
    var = _method(np.var)
    std = _method(np.std)
    max = _method(np.max)
    min = _method(np.min)
    argmax = _method(np.argmax)
    argmin = _method(np.argmin)
    any = _method(np.any)
    all = _method(np.all)
    cumsum = _method(np.cumsum)
    argsort = _method(np.argsort)
    clip = _method(np.clip)
    take = _method(np.take)
    round = _method(np.round)
    squeeze = _method(np.squeeze)
    ravel = _method(np.ravel)
    swapaxes = _method(np.swapaxes)
    repeat = _method(np.repeat)
    dot = _method(np.dot)
    diagonal = _method(np.diagonal)
    trace = _method(np.trace)
