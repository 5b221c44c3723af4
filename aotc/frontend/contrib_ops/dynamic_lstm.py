"""DynamicQuantizeLSTM of com.microsoft: a `Call` goes in, an LSTM over weights of 8 bits whose
other factors are rounded to 8 bits at run time comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from aotc.errors import ModelError
from aotc.frontend.contrib_ops.quantized import dynamic_codes
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.onnx_ops.recurrent import LSTM, recurrent
from aotc.graph.ir import Node
from aotc.graph.types import DType


def _rounded(call: Call, x: Node) -> Node:
    """``x`` as its quantised form means it."""
    codes, zero, scale = dynamic_codes(call, x)
    whole = call.binary("sub", call.cast(codes, DType.F32), call.cast(zero, DType.F32))
    return call.binary("mul", whole, scale)


def _weights(call: Call, at: int, scale_at: int) -> Node:
    """The weights that input ``at`` [directions, I, 4 H] stands for, as LSTM has them: [directions,
    4 H, I]. The scale and the zero point are one for each direction, or one for each column."""
    x = call[at]
    wide = call.cast(x, DType.F32)
    zero = call.cast(call[scale_at + 1], DType.F32)
    if x.type.rank != 3:
        raise ModelError(f"weights {x.type} have no direction")
    shaped = [
        call.reshape(node, (x.shape[0], 1, node.type.elems // x.shape[0]))
        for node in (call[scale_at], zero)
    ]
    real = call.binary("mul", call.binary("sub", wide, shaped[1]), shaped[0])
    return call.transpose(real, (0, 2, 1))


def dynamic_quantize_lstm(call: Call) -> Sequence[Node]:
    """Inputs as of LSTM, then scale and zero point of the input's and of the state's weights."""
    inputs = (call[0], _weights(call, 1, 8), _weights(call, 2, 10), *call.inputs[3:8])
    return recurrent(LSTM, _rounded)(replace(call, inputs=inputs))


RULES: Mapping[str, Rule] = MappingProxyType({"DynamicQuantizeLSTM": dynamic_quantize_lstm})
