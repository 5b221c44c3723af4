"""ONNX's operators that prepare features: a `Call` goes in, the formula in primitives comes out.

Where the specification leaves a choice, the one that ONNX Runtime takes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.ml_ops.scores import optional_reals
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.values import Text, Value
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType


def array_feature_extractor(call: Call) -> Value:
    """The columns that input 1 numbers, on the last axis. A vector counts as
    one row."""
    given = call.value(0)
    x = given.node if isinstance(given, Text) else call[0]
    shape = x.shape[:-1] if isinstance(given, Text) else x.shape
    if not shape:
        raise ModelError(f"takes columns of {x.type}")
    places = call.reshape(call[1], (call[1].type.elems,))
    taken = call.apply(ops.Gather(len(shape) - 1), x, places)
    if len(shape) == 1:
        taken = call.reshape(taken, (1, *taken.shape))
    return Text(taken) if isinstance(given, Text) else taken


def binarizer(call: Call) -> Node:
    """1 where x is greater than the threshold, else 0."""
    x = call[0]
    threshold = call.attrs.real("threshold", 0.0)
    if x.type.dtype.is_int:
        # the greatest integer that is not greater decides alike
        limits = np.iinfo(x.type.dtype.numpy)
        if not threshold >= limits.min:
            return call.broadcast(call.scalar(1, x), x.shape)
        threshold = int(limits.max) if threshold >= limits.max else math.floor(threshold)
    return call.cast(call.compare("gt", x, threshold), x.type.dtype)


def feature_vectorizer(call: Call) -> Node:
    """The inputs side by side (f32), each cut or filled with zeros to its
    width."""
    inputs = call.operands
    widths = call.attrs.integers("inputdimensions", ()) or ()
    if len(widths) != len(inputs) or min(widths, default=0) < 0:
        raise ModelError(f"has {len(widths)} inputdimensions for {len(inputs)} inputs")
    parts = []
    for x, width in zip(inputs, widths, strict=True):
        rows = x.shape[0] if x.type.rank > 1 else 1
        x = call.reshape(x, (rows, x.type.elems // max(rows, 1)))
        part = call.slice_axis(call.cast(x, DType.F32), 1, 0, min(width, x.shape[1]))
        part = call.pad(part, (0, 0), (0, width - part.shape[1]))
        if width:
            parts.append(part)
    if len({part.shape[0] for part in parts}) != 1:
        raise ModelError("its inputs have different numbers of rows")
    return call.concat(parts, 1)


def imputer(call: Call) -> Node:
    """One value replaced by another, or by one for each column."""
    x = call[0]
    if x.type.rank == 0:
        raise ModelError("takes rows of features, got a scalar")
    floats = optional_reals(call, "imputed_value_floats")
    integers = call.attrs.integers("imputed_value_int64s", ()) or ()
    if bool(floats) == bool(integers):
        raise ModelError("needs either imputed_value_floats or imputed_value_int64s")
    if bool(floats) is not x.type.dtype.is_float:
        raise ModelError(f"its imputed values are not of the type of {x.type}")
    values = np.array(floats or integers).astype(x.type.dtype.numpy)
    columns = x.shape[-1] if x.type.rank == 1 else x.shape[1]
    values = values if values.size == columns and x.type.rank <= 2 else values[:1]
    replaced = (
        call.attrs.real("replaced_value_float", 0.0)
        if floats
        else call.attrs.integer("replaced_value_int64", 0)
    )
    lost = call.unary("isnan", x) if np.isnan(replaced) else call.compare("eq", x, replaced)
    return call.select(lost, call.constant(values), x)


def normalizer(call: Call) -> Node:
    """Each row divided by its largest value, its L1 or its L2 norm, unless that is
    0."""
    x = call.cast(call[0], DType.F32)
    if x.type.rank not in (1, 2):
        raise ModelError(f"takes rows of features, got {x.type}")
    kind = call.attrs.string("norm", "MAX")
    if kind == "MAX":
        size = call.reduce("max", x, (-1,))
    elif kind == "L1":
        size = call.reduce("sum", call.unary("abs", x), (-1,))
    elif kind == "L2":
        size = call.unary("sqrt", call.reduce("sum", call.binary("mul", x, x), (-1,)))
    else:
        raise ModelError(f"norm is '{kind}', not MAX, L1 or L2")
    zero = call.compare("eq", size, 0.0)
    return call.binary("div", x, call.select(zero, call.scalar(1.0, x), size))


def scaler(call: Call) -> Node:
    """``(x - offset) * scale``, one of each or one for each column (f32)."""
    x = call[0]
    if x.type.rank == 0:
        raise ModelError("takes rows of features, got a scalar")
    columns = x.shape[-1] if x.type.rank == 1 else x.shape[1]
    shape = (columns, *(1,) * (x.type.rank - 2))
    parts = []
    for name in ("offset", "scale"):
        values = np.array(call.attrs.reals(name), np.float32)
        if values.size not in (1, columns):
            raise ModelError(f"'{name}' has {values.size} entries for {columns} columns")
        parts.append(call.constant(values.reshape(shape if values.size == columns else (1,))))
    shifted = call.binary("sub", call.cast(x, DType.F32), parts[0])
    return call.binary("mul", shifted, parts[1])


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "ArrayFeatureExtractor": array_feature_extractor,
        "Binarizer": binarizer,
        "FeatureVectorizer": feature_vectorizer,
        "Imputer": imputer,
        "Normalizer": normalizer,
        "Scaler": scaler,
    }
)
