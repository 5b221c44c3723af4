"""Fourier transforms against numpy and the ONNX reference."""

import numpy as np
import pytest
from onnx import helper
from onnx_cases import Const, build, case, check, f32, model_of, run_file, save

from aotc.errors import ModelError, UnsupportedError
from aotc.frontend.onnx_reader import load_onnx
from aotc.graph.eval import evaluate


def number(value):
    return np.asarray(value, dtype=np.int64)


def scalar(value):
    return Const(number(value))


def f64(*shape):
    return f32(*shape).astype(np.float64)


LENGTHS = (1, 2, 7, 97, 400, 1009, 1024, 1535)
"""One product, a prime, three of many factors, a large prime, one that holds a large prime."""


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("inverse", [0, 1])
def test_lengths(length, inverse, tmp_path):
    x = f64(2, length, 2)
    model, feeds = build(case("DFT", 17, x, inverse=inverse))
    (y,) = run_file(save(model, tmp_path), feeds)
    signal = x[..., 0] + 1j * x[..., 1]
    right = np.fft.ifft(signal) if inverse else np.fft.fft(signal)
    np.testing.assert_allclose(y[..., 0] + 1j * y[..., 1], right, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("length", [2, 9, 16, 2018])
def test_real_signals_and_back(length, tmp_path):
    x = f64(1, length, 1)
    model, feeds = build(case("DFT", 17, x, onesided=1))
    (y,) = run_file(save(model, tmp_path), feeds)
    right = np.fft.rfft(x[..., 0])
    np.testing.assert_allclose(y[..., 0] + 1j * y[..., 1], right, rtol=1e-9, atol=1e-9)
    model, feeds = build(case("DFT", 17, y, scalar(length), onesided=1, inverse=1))
    (back,) = run_file(save(model, tmp_path), feeds)
    np.testing.assert_allclose(back, x, rtol=1e-9, atol=1e-9)


CASES = [
    *(
        case("DFT", 17, x, scalar(length), oracle="onnx", onesided=onesided, tolerance=1e-4)
        for x in (f32(2, 6, 3, 1), f32(1, 6, 2))
        for length in (4, 9)
        for onesided in (0, 1)
    ),
    *(case("DFT", 17, f32(2, 6, 3, 2), axis=axis, oracle="onnx") for axis in (0, 2, -2)),
    case("DFT", 17, f32(1, 5, 2), scalar(5), inverse=1, onesided=1, oracle="onnx"),
    case("DFT", 17, f32(1, 5, 2), inverse=1, onesided=1, oracle="onnx"),
    case("DFT", 20, f32(3, 4, 2), None, number(0), oracle="onnx"),
    case("DFT", 20, f32(3, 4, 2), None, Const(number(1)), oracle="onnx"),
    case("DFT", 20, f32(3, 4, 2), oracle="onnx"),
    *(
        case("STFT", 17, f32(2, 40, 1), scalar(step), window, length, onesided=half, oracle="onnx")
        for step, half in ((7, 0), (3, 1))
        for window, length in ((f32(9), None), (None, scalar(8)), (Const(f32(8)), scalar(8)))
    ),
    case("STFT", 17, f32(1, 30, 2), scalar(4), f32(8), onesided=0, oracle="onnx"),
    case("STFT", 17, f32(1, 2000, 1), scalar(500), f32(1000), oracle="onnx", tolerance=1e-3),
    *(
        case(f"{name}Window", 17, Const(np.array(size)), periodic=periodic, oracle="onnx")
        for name in ("Hann", "Hamming", "Blackman")
        for size, periodic in ((10, 1), (9, 0))
    ),
    case(
        "MelWeightMatrix", 17, scalar(12), scalar(64), scalar(16000), Const(f32(low=20, high=30)),
        Const(f32(low=7000, high=7500)), oracle="onnx",
    ),  # fmt: skip
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_the_reference(case, tmp_path):
    check(case, tmp_path)


def declared_graph(op, feeds, shape, folder, opset=20, **attrs):
    """The imported graph of one node with run-time operands and a declared result."""
    names = [name if value is not None else "" for name, value in feeds.items()]
    feeds = {name: value for name, value in feeds.items() if value is not None}
    model = model_of([helper.make_node(op, names, ["y"], **attrs)], feeds, ["y"], opset=opset)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, shape))
    return load_onnx(save(model, folder)), feeds


@pytest.mark.parametrize("length", [8, 9])
def test_a_length_at_run_time_is_one_of_those_that_give_the_declared_shape(length, tmp_path):
    x = f32(3, 9, 1)
    operands = {"x": x, "length": number(length), "axis": number(1)}
    graph, feeds = declared_graph("DFT", operands, (3, 5, 2), tmp_path, onesided=1)
    y = evaluate(graph, feeds)["y"]
    right = np.fft.rfft(x[..., 0], n=length)
    np.testing.assert_allclose(y[..., 0] + 1j * y[..., 1], right, rtol=1e-4, atol=1e-5)
    assert any("one of 8, 9" in sentence for sentence, _ in graph.checks)


@pytest.mark.parametrize("length", [8, 9])
def test_frames_at_run_time(length, tmp_path):
    x = f32(1, 41, 1)
    operands = {"x": x, "step": number(8), "window": None, "length": number(length)}
    graph, feeds = declared_graph("STFT", operands, (1, 5, 5, 2), tmp_path)
    y = evaluate(graph, feeds)["y"]
    framed = np.stack([x[0, at : at + length, 0] for at in range(0, 33, 8)])
    right = np.fft.rfft(framed)
    np.testing.assert_allclose(y[0, ..., 0] + 1j * y[0, ..., 1], right, rtol=1e-4, atol=1e-5)


def test_frames_that_no_length_gives(tmp_path):
    operands = {"x": f32(1, 9, 1), "step": number(1), "window": None, "length": number(3)}
    with pytest.raises(ModelError, match="no frame"):
        declared_graph("STFT", operands, (1, 5, 40, 2), tmp_path)


@pytest.mark.parametrize(
    ("one", "words", "error"),
    [
        (case("DFT", 17, f32(2, 3)), "needs data", ModelError),
        (case("DFT", 17, f32(2, 3, 2), axis=2), "parts of a number", ModelError),
        (case("DFT", 17, f32(2, 3, 2), scalar(0)), "length 0", ModelError),
        (case("DFT", 17, f32(2, 3, 2), scalar(2**40)), "length 1099511627776", UnsupportedError),
        (case("DFT", 20, f32(2, 3, 1), None, number(0), onesided=1), "its axis", UnsupportedError),
        (case("STFT", 17, f32(1, 9, 1), scalar(0), f32(3)), "1 or more", ModelError),
        (case("STFT", 17, f32(1, 9, 1), scalar(2), f32(10)), "do not fit a signal", ModelError),
        (case("STFT", 17, f32(1, 9, 1), scalar(2), Const(f32(5)), scalar(4)), "window", ModelError),
        (case("HannWindow", 17, scalar(-1)), "-1 elements", ModelError),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named(one, words, error, tmp_path):
    model, feeds = build(one)
    with pytest.raises(error, match=words):
        run_file(save(model, tmp_path), feeds)
