"""ONNX RNN, GRU and LSTM against ONNX Runtime, in line and as a loop."""

import numpy as np
import pytest
from onnx_cases import Const, build, case, check, expected, f32, run_file, save

import aotc
from aotc.errors import ModelError
from aotc.frontend.onnx_ops import recurrent
from aotc.frontend.onnx_reader import load_onnx
from aotc.graph import ops

STEPS, BATCH, FEATURES, HIDDEN = 4, 2, 3, 5
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


def net(op, *, sides=1, lengths=None, states=True, peepholes=False, opset=14, **attrs):
    """A case of ``op``; everything but the weights is a run-time input."""
    width = GATES[op] * HIDDEN
    initial = f32(sides, BATCH, HIDDEN, seed=4, low=-1, high=1) if states else None
    operands = [
        f32(STEPS, BATCH, FEATURES),
        Const(f32(sides, width, FEATURES, seed=1, low=-1, high=1)),
        Const(f32(sides, width, HIDDEN, seed=2, low=-1, high=1)),
        Const(f32(sides, 2 * width, seed=3, low=-1, high=1)),
        None if lengths is None else np.array(lengths, np.int32),
        initial,
    ]
    if op == "LSTM":
        operands.append(None if initial is None else initial[::-1, ::-1].copy())
    if peepholes:
        operands.append(Const(f32(sides, 3 * HIDDEN, seed=5, low=-1, high=1)))
    outputs = 3 if op == "LSTM" else 2
    if attrs.get("direction") is None and sides == 2:
        attrs["direction"] = "bidirectional"
    return case(op, opset, *operands, outputs=outputs, hidden_size=HIDDEN, **attrs)


CASES = [
    *(net(op, direction=way) for op in GATES for way in ("forward", "reverse")),
    *(net(op, sides=2, opset=opset) for op in GATES for opset in (7, 22)),
    *(net(op, states=False) for op in GATES),
    *(net(op, lengths=(3, 2), direction=way) for op in GATES for way in ("forward", "reverse")),
    *(net(op, sides=2, lengths=(1, 4)) for op in GATES),
    *(net(op, clip=0.3) for op in GATES),
    net("GRU", linear_before_reset=1),
    net("GRU", linear_before_reset=1, sides=2, lengths=(2, 4)),
    net("LSTM", peepholes=True),
    net("LSTM", peepholes=True, sides=2, lengths=(4, 2)),
    net("LSTM", peepholes=True, clip=0.5, lengths=(3, 4)),
    net("LSTM", input_forget=1),
    *(
        net("RNN", activations=[name], **extra)
        for name, extra in (
            ("Affine", {"activation_alpha": [0.5], "activation_beta": [0.25]}),
            ("Elu", {"activation_alpha": [0.7]}),
            ("HardSigmoid", {"activation_alpha": [0.3], "activation_beta": [0.4]}),
            ("HardSigmoid", {}),
            ("LeakyRelu", {"activation_alpha": [0.2]}),
            ("Relu", {}),
            ("ScaledTanh", {"activation_alpha": [1.5], "activation_beta": [0.5]}),
            ("Sigmoid", {}),
            ("Softplus", {}),
            ("Softsign", {}),
            ("ThresholdedRelu", {"activation_alpha": [0.4]}),
        )
    ),
    net(
        "LSTM",
        sides=2,
        activations=["HardSigmoid", "Relu", "Tanh", "Sigmoid", "LeakyRelu", "Affine"],
        activation_alpha=[0.3, 0.1, 0.9],
        activation_beta=[0.4, 0.05],
    ),
]


@pytest.mark.parametrize("steps", [STEPS, 1], ids=["in-line", "loop"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_onnx_runtime(case, steps, tmp_path, monkeypatch):
    monkeypatch.setattr(recurrent, "UNROLL_STEPS", steps)
    check(case, tmp_path)


@pytest.mark.parametrize("op", GATES)
def test_batch_first_is_the_same_with_two_axes_exchanged(op, tmp_path):
    outer = net(op, sides=2, lengths=(3, 4))
    swapped = [
        np.ascontiguousarray(np.swapaxes(operand, 0, 1))
        if place in (0, 5, 6) and operand is not None
        else operand
        for place, operand in enumerate(outer.operands)
    ]
    inner = case(
        op, 14, *swapped, outputs=outer.outputs, hidden_size=HIDDEN, layout=1,
        direction="bidirectional",
    )  # fmt: skip
    results = []
    for version in (outer, inner):
        model, feeds = build(version)
        results.append(run_file(save(model, tmp_path), feeds))
    (y, *states), (other, *others) = results
    np.testing.assert_array_equal(np.transpose(y, (2, 0, 1, 3)), other)
    for state, transposed in zip(states, others, strict=True):
        np.testing.assert_array_equal(np.swapaxes(state, 0, 1), transposed)


@pytest.mark.slow
@pytest.mark.parametrize(
    "op, options",
    [("LSTM", {"sides": 2, "lengths": (2, 4)}), ("GRU", {"linear_before_reset": 1})],
    ids=["LSTM", "GRU"],
)
def test_both_forms_give_the_same_bytes(op, options, tmp_path, monkeypatch):
    model, feeds = build(net(op, **options))
    results = []
    for steps in (STEPS, 1):
        monkeypatch.setattr(recurrent, "UNROLL_STEPS", steps)
        results.append(aotc.compile(save(model, tmp_path)).run_dict(feeds))
    for name, values in results[0].items():
        assert values.tobytes() == results[1][name].tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_machine_code_agrees_with_onnx_runtime(case, tmp_path):
    model, feeds = build(case)
    found = aotc.compile(save(model, tmp_path)).run_dict(feeds)
    for values, right in zip(found.values(), expected(case, model, feeds), strict=True):
        np.testing.assert_allclose(values, right, rtol=1e-5, atol=1e-5)


def test_a_long_sequence_is_one_loop(tmp_path, monkeypatch):
    monkeypatch.setattr(recurrent, "UNROLL_STEPS", 2)
    model, _ = build(net("LSTM", sides=2))
    graph = load_onnx(save(model, tmp_path))
    loops = [node.op for node in graph.nodes() if isinstance(node.op, ops.Repeat)]
    assert [loop.limit for loop in loops] == [STEPS, STEPS]
    products = [node for node in graph.nodes() if isinstance(node.op, ops.Dot)]
    assert len(products) == 2, "the products of the inputs, one for each direction"


def test_lengths_of_whole_sequences_cost_nothing(tmp_path):
    free = net("GRU")
    operands = list(free.operands)
    operands[4] = Const(np.full(BATCH, STEPS, np.int32))
    constant = case("GRU", 14, *operands, outputs=2, hidden_size=HIDDEN)
    sizes = []
    for version in (free, constant):
        model, _ = build(version)
        sizes.append(sum(1 for _ in load_onnx(save(model, tmp_path)).nodes()))
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize(
    "attrs, reason",
    [
        ({"activations": ["Cosine"]}, "not an activation"),
        ({"activations": ["Tanh", "Tanh"]}, "needs 1 for each direction"),
        ({"direction": "sideways"}, "cannot be 'sideways'"),
    ],
)
def test_nonsense_is_refused(attrs, reason, tmp_path):
    model, _ = build(net("RNN", **attrs))
    with pytest.raises(ModelError, match=reason):
        load_onnx(save(model, tmp_path))
