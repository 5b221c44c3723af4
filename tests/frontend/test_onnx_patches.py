"""Images and parts of them against ONNX Runtime and the ONNX reference."""

import numpy as np
import pytest
from onnx import helper
from onnx_cases import build, case, check, f32, ints, model_of, run_file, save

from aotc.errors import ModelError, UnsupportedError
from aotc.frontend.onnx_reader import load_onnx
from aotc.graph.eval import evaluate

TIES = np.round(f32(2, 2, 6, 7, low=0, high=3))
LOWEST = np.full((1, 1, 4, 4), -np.inf, dtype=np.float32)

CASES = [
    *(
        case("MaxPool", 12, x, kernel_shape=[3, 2], outputs=2, storage_order=order, **attrs)
        for x in (TIES, LOWEST)
        for order in (0, 1)
        for attrs in (
            {},
            {"pads": [1, 1, 1, 0], "strides": [2, 1]},
            {"ceil_mode": 1, "strides": [2, 3]},
        )
    ),
    case("MaxPool", 12, TIES, kernel_shape=[2, 3], outputs=2, dilations=[2, 2], pads=[1, 1, 1, 1]),
    case("MaxPool", 12, f32(1, 2, 9), kernel_shape=[3], outputs=2, auto_pad="SAME_UPPER"),
    case("MaxPool", 12, f32(1, 2, 4, 5, 4), kernel_shape=[2, 3, 2], outputs=2),
    *(
        case(
            "MaxPool", 12, x, kernel_shape=[40, 2], pads=[9, 0, 9, 1], outputs=2, strides=[3, 1],
            dilations=[2, 1],
        )  # fmt: skip
        for x in (np.round(f32(1, 2, 80, 3)), np.full((1, 1, 70, 2), -np.inf, np.float32))
    ),
    case("MaxPool", 12, np.arange(9, dtype=np.int8)[None, None], kernel_shape=[2], outputs=2),
    case(
        "MaxUnpool", 11, f32(1, 1, 2, 2), np.array([[[[5, 7], [13, 15]]]]), kernel_shape=[2, 2],
        strides=[2, 2],
    ),  # fmt: skip
    case(
        "Col2Im", 18, f32(2, 12, 12), ints(4, 5), ints(2, 3), pads=[0, 1, 0, 0], oracle="onnx",
    ),  # fmt: skip
    case(
        "Col2Im", 18, f32(1, 4, 12), ints(7, 5), ints(2, 2), strides=[2, 1], dilations=[1, 3],
        pads=[1, 0, 0, 1], oracle="onnx",
    ),  # fmt: skip
    case("Col2Im", 18, f32(1, 6, 8), ints(3, 3, 4), ints(2, 1, 1), strides=[1, 2, 2]),
    *(
        case("CenterCropPad", 18, f32(7, 6, 3), ints(*shape), oracle="onnx")
        for shape in ((4, 3, 3), (10, 9, 4), (2, 9, 3))
    ),
    case("CenterCropPad", 18, f32(7, 6, 3), ints(4, 8), axes=[-2, 0], oracle="onnx"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_the_reference(case, tmp_path):
    check(case, tmp_path)


def declared_graph(op, feeds, shape, folder, **attrs):
    """The imported graph of one node with run-time operands and a declared result."""
    model = model_of([helper.make_node(op, list(feeds), ["y"], **attrs)], feeds, ["y"], opset=18)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, shape))
    return load_onnx(save(model, folder))


@pytest.mark.parametrize(
    ("image", "block"), [((36, 4), (1, 4)), ((37, 2), (2, 2)), ((39, 1), (4, 1))]
)
def test_the_block_at_run_time_is_one_that_fits(image, block, tmp_path):
    x = f32(1, 4, 36)
    feeds = {"x": x, "image": np.array(image), "block": np.array(block)}
    graph = declared_graph("Col2Im", feeds, (1, 1, *image), tmp_path)
    right, _ = build(case("Col2Im", 18, x, ints(*image), ints(*block)))
    (wanted,) = run_file(save(right, tmp_path), {"in0": x})
    np.testing.assert_array_equal(evaluate(graph, feeds)["y"], wanted)


def test_two_blocks_that_fit_are_chosen_between_in_the_run(tmp_path):
    x = f32(1, 5, 5)
    graph = None
    for block in ((1, 5), (5, 1)):
        feeds = {"x": x, "image": np.array([5, 5]), "block": np.array(block)}
        graph = declared_graph("Col2Im", feeds, (1, 1, 5, 5), tmp_path)
        y = evaluate(graph, feeds)["y"][0, 0]
        np.testing.assert_array_equal(y, x[0].T if block == (1, 5) else x[0])
    assert any("(1, 5) or (5, 1)" in sentence for sentence, _ in graph.checks)


def test_unpooling_into_a_larger_result(tmp_path):
    places = np.array([[[[5, 7], [13, 15]]]])
    one = case(
        "MaxUnpool", 11, f32(1, 1, 2, 2), places, ints(1, 1, 5, 5), kernel_shape=[2, 2],
        strides=[2, 2], oracle="onnx",
    )  # fmt: skip
    check(one, tmp_path)


@pytest.mark.parametrize(
    ("one", "words", "error"),
    [
        (case("Col2Im", 18, f32(1, 4, 5), ints(5, 5), ints(2, 2)), "do not make", ModelError),
        (case("Col2Im", 18, f32(1, 4, 5), ints(5, 5), ints(0, 2)), "do not make", ModelError),
        (case("CenterCropPad", 18, f32(3, 3), ints(2)), "do not fit axes", ModelError),
        (
            case("MaxUnpool", 11, f32(1, 1, 2), ints(1, 2), kernel_shape=[2]),
            "do not fit", ModelError,
        ),
        (
            case("MaxUnpool", 11, f32(1, 1, 2), np.zeros((1, 1, 2), np.int64), kernel_shape=[1, 1]),
            "does not fit", ModelError,
        ),
        (case("ImageDecoder", 20, np.zeros(9, np.uint8)), "not decoded", UnsupportedError),
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_fit_is_named(one, words, error, tmp_path):
    model, feeds = build(one)
    with pytest.raises(error, match=words):
        run_file(save(model, tmp_path), feeds)
