"""The tables of all import rules: an operator name goes in, its rule comes out."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from aotc.frontend.contrib_ops.table import CONTRIB_RULES
from aotc.frontend.ml_ops.table import ML_RULES
from aotc.frontend.onnx_ops import (
    activation,
    choosing,
    control,
    conv,
    convert,
    einsum,
    elementwise,
    fourier,
    index,
    linalg,
    loop,
    movement,
    ngrams,
    norm,
    optional,
    patches,
    pool,
    quantize,
    random_numbers,
    recurrent,
    reduce,
    regions,
    resize,
    sampling,
    sequence,
    shape,
    string_moves,
    strings,
    training,
    windows,
)
from aotc.frontend.onnx_ops.call import Rule
from aotc.frontend.onnx_ops.ragged import with_ragged_operands

RULES: Mapping[str, Rule] = MappingProxyType(
    string_moves.with_strings(with_ragged_operands({
        **activation.RULES,
        **choosing.RULES,
        **control.RULES,
        **conv.RULES,
        **convert.RULES,
        **einsum.RULES,
        **elementwise.RULES,
        **fourier.RULES,
        **index.RULES,
        **linalg.RULES,
        **loop.RULES,
        **movement.RULES,
        **ngrams.RULES,
        **norm.RULES,
        **patches.RULES,
        **optional.RULES,
        **pool.RULES,
        **quantize.RULES,
        **random_numbers.RULES,
        **recurrent.RULES,
        **reduce.RULES,
        **regions.RULES,
        **resize.RULES,
        **sampling.RULES,
        **sequence.RULES,
        **shape.RULES,
        **strings.RULES,
        **training.RULES,
        **windows.RULES,
        # ONNX Runtime's optimiser writes this one into ONNX's own domain
        "SimplifiedLayerNormalization": CONTRIB_RULES["SimplifiedLayerNormalization"],
    }))
)

DOMAINS: Mapping[str, Mapping[str, Rule]] = MappingProxyType(
    {
        "": RULES,
        "ai.onnx.ml": string_moves.with_fixed_strings(ML_RULES),
        "com.microsoft": CONTRIB_RULES,
        "ai.onnx.preview.training": training.PREVIEW_RULES,
    }
)
"""The rules of each operator domain; ONNX's own is the empty string."""
