"""Recurrent operators of TFLite: a `Use` goes in, what ONNX's LSTM gives comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.tflite.use import Activation, Rule, Use
from aotc.graph.ir import Node

ORDER = (0, 3, 1, 2)
"""The places of ONNX's gates (input, output, forget, cell) among those here (input, forget, cell,
output)."""

INPUT, RECURRENT, PEEPHOLES, BIASES = 1, 5, 9, 12
PROJECTION, OUTPUT_STATE, CELL_STATE, NORMS = 16, 18, 19, 20


def unidirectional_sequence_lstm(use: Use) -> Node:
    """An LSTM over a sequence from states of zero; what a variable holds after a run is not kept
    for the next."""
    options = use.options("UnidirectionalSequenceLSTMOptions")
    _expect_plain(use, options.CellClip(), options.FusedActivationFunction())
    x = use.real(0)
    if x.type.rank != 3:
        raise ModelError(f"needs a sequence of 3 axes, got {x.type}")
    if not options.TimeMajor():
        x = use.call.transpose(x, (1, 0, 2))
    weights = _gates(use, INPUT)
    y, *_ = use.onnx_results(
        "LSTM",
        x,
        weights,
        _gates(use, RECURRENT),
        _biases(use),
        None,
        _state(use, OUTPUT_STATE),
        _state(use, CELL_STATE),
        _peepholes(use),
        hidden_size=weights.shape[1] // 4,
    )
    assert isinstance(y, Node)
    y = use.call.reshape(y, (y.shape[0], y.shape[2], y.shape[3]))
    return use.result(y if options.TimeMajor() else use.call.transpose(y, (1, 0, 2)))


def _expect_plain(use: Use, clip: float, activation: int) -> None:
    """UnsupportedError for variants."""
    extra = [use.has(index) for index in range(NORMS, NORMS + 4)]
    if use.scale_of(use.tensor(0)) is not None:
        raise use.call.unsupported(
            "an LSTM of integers is not supported",
            remedy="convert the model with float or dynamic-range quantised recurrent layers",
        )
    if not use.has(INPUT) or use.has(PROJECTION) or any(extra):
        raise use.call.unsupported(
            "an LSTM with coupled gates, a projection or layer norm is not supported"
        )
    if clip or activation != Activation.TANH:
        raise use.call.unsupported("only an LSTM with tanh and without clipping is supported")


def _gates(use: Use, first: int) -> Node:
    """The weights of the four gates from operand ``first`` on as ONNX wants them,
    [1, 4 * units, inputs]."""
    joined = use.call.concat([use.weights(first + gate, (0, 1)) for gate in ORDER], 0)
    return use.call.reshape(joined, (1, *joined.shape))


def _biases(use: Use) -> Node | None:
    """Those of the four gates, then zeros for the recurrent ones."""
    found: Sequence[Node] = [use.call[BIASES + gate] for gate in ORDER if use.has(BIASES + gate)]
    if len(found) < len(ORDER):
        raise ModelError(f"has {len(found)} of 4 biases")
    joined = use.call.concat(found, 0)
    zeros = use.call.constant(np.zeros(joined.shape, joined.type.dtype.numpy))
    return use.call.reshape(use.call.concat([joined, zeros], 0), (1, 2 * joined.shape[0]))


def _peepholes(use: Use) -> Node | None:
    """The weights from the cell to the gates input, output and forget, [1, 3 * units]."""
    found = [use.weights(PEEPHOLES + at, (0,)) for at in (0, 2, 1) if use.has(PEEPHOLES + at)]
    if not found:
        return None
    if len(found) < 3:
        raise ModelError(f"has {len(found)} of 3 peepholes")
    joined = use.call.concat(found, 0)
    return use.call.reshape(joined, (1, *joined.shape))


def _state(use: Use, index: int) -> Node | None:
    """The state before the first step, [1, batch, units]; None for zeros."""
    if not use.has(index):
        return None
    state = use.call[index]
    return use.call.reshape(state, (1, *state.shape))


RULES: Mapping[str, Rule] = MappingProxyType(
    {"UNIDIRECTIONAL_SEQUENCE_LSTM": unidirectional_sequence_lstm}
)
