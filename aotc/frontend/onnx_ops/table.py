"""The tables of all import rules: an operator name goes in, its rule comes out."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from aotc.frontend.ml_ops.table import ML_RULES
from aotc.frontend.onnx_ops import (
    activation,
    control,
    conv,
    convert,
    einsum,
    elementwise,
    fourier,
    index,
    linalg,
    movement,
    norm,
    pool,
    quantize,
    recurrent,
    reduce,
    resize,
    sampling,
    shape,
    windows,
)
from aotc.frontend.onnx_ops.call import Rule

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        **activation.RULES,
        **control.RULES,
        **conv.RULES,
        **convert.RULES,
        **einsum.RULES,
        **elementwise.RULES,
        **fourier.RULES,
        **index.RULES,
        **linalg.RULES,
        **movement.RULES,
        **norm.RULES,
        **pool.RULES,
        **quantize.RULES,
        **recurrent.RULES,
        **reduce.RULES,
        **resize.RULES,
        **sampling.RULES,
        **shape.RULES,
        **windows.RULES,
    }
)

DOMAINS: Mapping[str, Mapping[str, Rule]] = MappingProxyType({"": RULES, "ai.onnx.ml": ML_RULES})
"""The rules of each operator domain; ONNX's own is the empty string."""
