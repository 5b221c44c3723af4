"""ONNX's operators on categories: a `Call` goes in, a search among known keys comes out.

Numbers and text are looked up alike: a key is a number, or a row of bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.ml_ops.scores import gather_text, optional_reals, text_table
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.values import Text, Value
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType

Keys = np.ndarray | tuple[str, ...]
"""Numbers of one type, or texts."""

SPREAD = 4
"""Integer keys are looked up in a table when that has at most so many times their number, plus a
few."""

_FEW = 1024


def one_hot_encoder(call: Call) -> Node:
    """A new last axis with 1 at the place of the category (f32)."""
    x = call.value(0)
    if isinstance(x, Text):
        hot = _equal_text(call, x, call.attrs.strings("cats_strings") or ())
    else:
        numbers = call.attrs.integers("cats_int64s", ()) or ()
        if not numbers:
            raise ModelError("has no categories for numbers")
        asked = call.cast(call[0], DType.I64)
        asked = call.reshape(asked, (*asked.shape, 1))
        hot = call.compare("eq", asked, call.constant(np.array(numbers, np.int64)))
    if not call.attrs.flag("zeros", True):
        known = call.reduce("or", hot, (-1,), keep=False)
        every = call.reduce("and", known, range(known.type.rank), keep=False)
        call.builder.check(every, f"an input of node '{call.origin}' is of no known category")
    return call.cast(hot, DType.F32)


def _equal_text(call: Call, x: Text, texts: tuple[str, ...]) -> Node:
    """Whether each element of ``x`` is each of ``texts``: bool[..., len(texts)]."""
    if not texts:
        raise ModelError("has no categories for text")
    table = text_table(texts)
    width = max(table.shape[1], x.width)
    rank = x.node.type.rank
    table = np.pad(table, ((0, 0), (0, width - table.shape[1])))
    padded = call.pad(x.node, (0,) * rank, (*(0,) * (rank - 1), width - x.width))
    rows = call.reshape(padded, (*x.shape, 1, width))
    return call.reduce("and", call.compare("eq", rows, call.constant(table)), (-1,), keep=False)


def _places(call: Call, x: Value, keys: Keys) -> Node:
    """Where each element of ``x`` is among ``keys``, the first of equal ones; their number when it
    is not (i64). A key NaN is found from LabelEncoder 4 on."""
    count = len(keys)
    if isinstance(x, Text):
        if not isinstance(keys, tuple):
            raise ModelError("text is looked up among numbers")
        return _first(call, _equal_text(call, x, keys))
    if isinstance(keys, tuple) or not isinstance(x, Node):
        raise ModelError("the type of its keys is not that of its input")
    x = call.cast(x, DType.of(keys))
    if keys.dtype.kind == "i":
        low, high = int(keys.min()), int(keys.max())
        if high - low < SPREAD * count + _FEW:
            return _in_table(call, x, keys, low, high)
    wide = call.reshape(x, (*x.shape, 1))
    equal = call.compare("eq", wide, call.constant(keys))
    if call.version >= 4 and keys.dtype.kind == "f" and np.isnan(keys).any():
        nan = call.constant(np.isnan(keys))
        equal = call.binary("or", equal, call.binary("and", call.unary("isnan", wide), nan))
    return _first(call, equal)


def _in_table(call: Call, x: Node, keys: np.ndarray, low: int, high: int) -> Node:
    """`_places` of integers close to each other: a table of all from ``low`` to ``high``."""
    table = np.full(high - low + 2, len(keys), np.int64)
    table[(keys - low)[::-1]] = np.arange(len(keys))[::-1]
    inside = call.binary(
        "and", call.compare("ge", x, low), call.compare("le", x, high)
    )
    beyond = call.constant(np.asarray(high - low + 1))
    offset = call.cast(call.binary("sub", x, low), DType.I64)
    return call.apply(ops.Gather(0), call.constant(table), call.select(inside, offset, beyond))


def _first(call: Call, equal: Node) -> Node:
    """The first place on the last axis where ``equal`` holds; the length of the axis when none."""
    count = equal.shape[-1]
    kind = DType.I32 if count < 1 << 31 else DType.I64
    numbers = call.constant(np.arange(count, dtype=kind.numpy))
    marked = call.select(equal, numbers, call.constant(np.asarray(count, kind.numpy)))
    return call.cast(call.reduce("min", marked, (-1,), keep=False), DType.I64)


@dataclass(frozen=True)
class _Values:
    """What keys stand for; the last is for all others."""

    entries: np.ndarray | tuple[str, ...]

    def at(self, call: Call, places: Node) -> Value:
        """The values at ``places``."""
        if isinstance(self.entries, tuple):
            return gather_text(call, self.entries, places)
        return call.apply(ops.Gather(0), call.constant(self.entries), places)


def label_encoder(call: Call) -> Value:
    """Keys become values, whatever else a default."""
    x = call.value(0)
    if call.version < 2:
        texts = call.attrs.strings("classes_strings") or ()
        return _category(call, texts, np.arange(len(texts)))
    keys, values = _listed(call, "keys"), _listed(call, "values")
    if len(keys) != len(values) or not len(keys):
        raise ModelError(f"has {len(keys)} keys and {len(values)} values")
    assert x is not None
    return _Values(_with_default(call, values)).at(call, _places(call, x, keys))


def _listed(call: Call, what: str) -> Keys:
    """The attribute that gives the keys or the values, whatever its type."""
    texts = call.attrs.strings(f"{what}_strings")
    if texts:
        return texts
    numbers = call.attrs.integers(f"{what}_int64s", ()) or ()
    if numbers:
        return np.array(numbers, np.int64)
    floats = optional_reals(call, f"{what}_floats")
    if floats:
        return np.array(floats, np.float32)
    if call.attrs.holds_text(f"{what}_tensor"):
        return _texts(call, f"{what}_tensor")
    if f"{what}_tensor" in call.attrs:
        return call.attrs.tensor(f"{what}_tensor").reshape(-1)
    raise ModelError(f"has no {what}")


def _texts(call: Call, name: str) -> tuple[str, ...]:
    """The strings in the tensor that is attribute ``name``."""
    stored = call.attrs.text_tensor(name).reshape(-1)
    return tuple(text.decode(errors="replace") for text in stored)


def _with_default(call: Call, values: Keys) -> Keys:
    """``values`` and the default behind them."""
    if isinstance(values, tuple):
        if call.attrs.holds_text("default_tensor"):
            return (*values, *_texts(call, "default_tensor")[:1])
        return (*values, call.attrs.string("default_string", "_Unused"))
    default: float = -1
    if "default_tensor" in call.attrs and "values_tensor" in call.attrs:
        given = call.attrs.tensor("default_tensor").reshape(-1)
        default = given[0].item() if given.size else default
    elif values.dtype.kind == "f":
        default = call.attrs.real("default_float", -0.0)
    else:
        default = call.attrs.integer("default_int64", -1)
    return np.append(values, np.asarray(default).astype(values.dtype))


def category_mapper(call: Call) -> Value:
    """Text becomes numbers, or numbers text."""
    texts = call.attrs.strings("cats_strings") or ()
    numbers = call.attrs.integers("cats_int64s", ()) or ()
    if len(texts) != len(numbers) or not texts:
        raise ModelError(f"has {len(texts)} texts and {len(numbers)} numbers")
    return _category(call, texts, np.array(numbers, np.int64))


def _category(call: Call, texts: Sequence[str], numbers: np.ndarray) -> Value:
    """Text as the number beside it, numbers as the text."""
    x = call.value(0)
    assert x is not None
    if isinstance(x, Text):
        default = call.attrs.integer("default_int64", -1)
        return _Values(np.append(numbers, default)).at(call, _places(call, x, tuple(texts)))
    other = call.attrs.string("default_string", "_Unused")
    return _Values((*texts, other)).at(call, _places(call, x, numbers))


def zip_map(call: Call) -> Node:
    """The tensor of scores as it is: there are no maps from labels to scores."""
    return call[0]


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "CategoryMapper": category_mapper,
        "LabelEncoder": label_encoder,
        "OneHotEncoder": one_hot_encoder,
        "ZipMap": zip_map,
    }
)
