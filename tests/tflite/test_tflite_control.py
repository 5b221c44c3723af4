"""Branches, loops, recurrent layers and detection of TFLite against LiteRT."""

import flatbuffers.flexbuffers
import numpy as np
import pytest
from tflite_files import Graph, Net, check, draw, lite, ours

import aotc
from aotc.frontend.reader import load_tflite


def _binary(name, kind):
    """A subgraph of one operator on two tensors."""
    graph = Graph()
    places = [graph.input((2, 3)), graph.input((2, 3))]
    graph.outputs = [graph.add((2, 3))]
    graph.operator(name, places, graph.outputs, kind)
    return graph


@pytest.mark.parametrize("taken", [False, True])
@pytest.mark.parametrize("known", [False, True])
def test_a_branch(taken, known, tmp_path):
    net = Net(others=[_binary("ADD", "AddOptions"), _binary("MUL", "MulOptions")])
    condition = net.constant(np.asarray([taken])) if known else net.input((1,), "bool")
    places = [net.input((2, 3)), net.input((2, 3))]
    net.outputs = [net.add((2, 3))]
    net.operator(
        "IF", [condition, *places], net.outputs, "IfOptions", ThenSubgraphIndex=1,
        ElseSubgraphIndex=2,
    )  # fmt: skip
    inputs = [draw(net.tensors[place], place) for place in places]
    check(net, tmp_path, inputs=inputs if known else [np.asarray([taken]), *inputs])


def _loop():
    """``while count < limit: count += 1; x = x * x + x``."""
    condition, body = Graph(), Graph()
    for graph in (condition, body):
        graph.input((1,), "int32")
        graph.input((2, 3))
    limit = condition.input((1,), "int32")
    condition.outputs = [condition.add((1,), "bool")]
    condition.operator("LESS", [0, limit], condition.outputs, "LessOptions")
    limit = body.input((1,), "int32")
    one, count = body.constant([1], "int32"), body.add((1,), "int32")
    square, total = body.add((2, 3)), body.add((2, 3))
    body.operator("ADD", [0, one], [count], "AddOptions")
    body.operator("MUL", [1, 1], [square], "MulOptions")
    body.operator("ADD", [square, 1], [total], "AddOptions")
    body.outputs = [count, total, limit]
    net = Net(others=[condition, body])
    places = [net.input((1,), "int32"), net.input((2, 3)), net.input((1,), "int32")]
    net.outputs = [net.add((1,), "int32"), net.add((2, 3)), net.add((1,), "int32")]
    net.operator(
        "WHILE", places, net.outputs, "WhileOptions", CondSubgraphIndex=1, BodySubgraphIndex=2
    )
    return net


@pytest.mark.parametrize("limit", [0, 1, 4])
def test_a_loop(limit, tmp_path):
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 3)).astype(np.float32)
    check(_loop(), tmp_path, inputs=[np.int32([0]), x, np.int32([limit])])


def test_a_subgraph_may_not_use_itself(tmp_path):
    net = _loop()
    net.others[1].operator(
        "WHILE", [0, 1, 2], [net.others[1].add((1,), "int32")], "WhileOptions",
        CondSubgraphIndex=1, BodySubgraphIndex=2,
    )  # fmt: skip
    net.others[1].outputs[0] = len(net.others[1].tensors) - 1
    path = tmp_path / "model.tflite"
    path.write_bytes(net.to_bytes())
    with pytest.raises(aotc.ModelError, match="nested more than"):
        load_tflite(path)


@pytest.mark.slow
@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("peepholes", [False, True])
def test_lstm(time_major, peepholes, tmp_path):
    rng, net, units, size = np.random.default_rng(0), Net(), 5, 4
    x = net.input((3, 2, size) if time_major else (2, 3, size))

    def weights(*shape):
        return net.constant(rng.uniform(-1, 1, shape), "float32")

    operands = [x, *(weights(units, size) for _ in range(4))]
    operands += [weights(units, units) for _ in range(4)]
    operands += [weights(units) if peepholes else -1 for _ in range(3)]
    operands += [weights(units) for _ in range(4)]
    operands += [-1, -1, net.add((2, units), variable=True), net.add((2, units), variable=True)]
    operands += [-1] * 4
    net.outputs = [net.add((*net.tensors[x].shape[:2], units))]
    net.operator(
        "UNIDIRECTIONAL_SEQUENCE_LSTM", operands, net.outputs, "UnidirectionalSequenceLSTMOptions",
        FusedActivationFunction=4, TimeMajor=time_major,
    )  # fmt: skip
    check(net, tmp_path, tolerance=1e-5)


def detector(regular, *, boxes=40, classes=4, most=6, each=1, seed=0, dtype="float32"):
    """A model of one detection; class 0 of the scores is the background."""
    rng, net = np.random.default_rng(seed), Net()
    details = {} if dtype == "float32" else {"scale": 0.03, "zero": 120}
    encoded = net.input((1, boxes, 4), dtype, **details)
    details = {} if dtype == "float32" else {"scale": 1 / 256, "zero": 0}
    scores = net.input((1, boxes, classes + 1), dtype, **details)
    centres = rng.uniform(0.2, 0.8, (boxes, 2))
    anchors = np.hstack([centres, np.full((boxes, 2), 0.3)])
    if dtype == "float32":
        anchors = net.constant(anchors, dtype)
    else:
        anchors = net.constant(np.rint(anchors * 256), dtype, scale=1 / 256)
    size = most * each
    net.outputs = [net.add(shape) for shape in ((1, size, 4), (1, size), (1, size), (1,))]
    options = flatbuffers.flexbuffers.Dumps(
        {
            "max_detections": most,
            "max_classes_per_detection": each,
            "detections_per_class": 3,
            "use_regular_nms": regular,
            "nms_score_threshold": 0.3,
            "nms_iou_threshold": 0.5,
            "num_classes": classes,
            "y_scale": 10.0,
            "x_scale": 10.0,
            "h_scale": 5.0,
            "w_scale": 5.0,
        }
    )
    net.operator(
        "TFLite_Detection_PostProcess", [encoded, scores, anchors], net.outputs,
        custom=bytes(options),
    )  # fmt: skip
    return net


@pytest.mark.parametrize("regular", [False, True])
@pytest.mark.parametrize("each", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_detection(regular, each, dtype, tmp_path):
    for seed in range(2):
        net = detector(regular, each=each, seed=seed, dtype=dtype)
        inputs = [draw(net.tensors[net.inputs[0]], seed)]
        shape = net.tensors[net.inputs[1]].shape
        # no two scores are equal: which of them is first is nobody's promise
        order = np.random.default_rng(seed).permutation(np.prod(shape))
        scores = (order / order.size).astype(np.float32)
        inputs.append((scores if dtype == "float32" else order.astype(np.uint8)).reshape(shape))
        data = net.to_bytes()
        expected, found = lite(data, inputs), ours(data, inputs, tmp_path)
        count = int(expected[3][0])
        assert found[3] == expected[3] and count > 0
        count *= 1 if regular else each
        for want, have in zip(expected[:3], found[:3], strict=True):
            assert have.shape == want.shape
            np.testing.assert_allclose(have[:, :count], want[:, :count], atol=1e-5)
            assert not have[:, count:].any()


def test_detection_without_a_box_that_is_good_enough(tmp_path):
    net = detector(False)
    inputs = [draw(net.tensors[place]) for place in net.inputs]
    found = ours(net.to_bytes(), [inputs[0], inputs[1] * 0], tmp_path)
    assert all(not array.any() for array in found)
