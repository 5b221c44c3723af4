"""`aotc quantize` and `aotc verify --against`: files, tables, exit status, one message for errors.
"""

import json

import numpy as np
import onnx
import pytest
from small_nets import draw, make, residual_net, run, save_samples

from aotc.cli import main


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with one small layer, m.onnx, and samples."""
    monkeypatch.chdir(tmp_path)
    nodes = [("Conv", "x,w", "t", {}), ("GlobalAveragePool", "t", "y", {})]
    onnx.save(
        make(nodes, {"w": draw(1, 5, 3, 3, 3)}, {"x": [1, 3, 8, 8]}, {"y": 4}), "m.onnx"
    )
    save_samples(tmp_path / "samples", 4)
    return tmp_path


@pytest.mark.slow
def test_a_model_is_quantised_and_agrees(place, capsys):
    assert main(["quantize", "m.onnx", "--calibrate", "samples", "--json", "r.json"]) == 0
    shown = capsys.readouterr().out
    assert "0 of 4 decisions changed" in shown and "m.int8.onnx" in shown
    assert json.loads((place / "r.json").read_text())["samples"] == 4
    model = onnx.load("m.int8.onnx")
    onnx.checker.check_model(model, full_check=True)
    inputs = {"x": np.load("samples/0.npy")}
    np.testing.assert_allclose(run(model, inputs), run(onnx.load("m.onnx"), inputs), atol=0.05)
    against = ["verify", "m.int8.onnx", "--against", "m.onnx", "--data", "samples"]
    assert main(against) == 0
    assert "agrees: 0 of 4 decisions" in capsys.readouterr().out
    assert main([*against, "--decide", "y=equal", "--max-drop", "10%"]) == 1
    assert "DIFFERS: 20 of 20 decisions changed (100.00%)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["quantize", "m.onnx", "--calibrate", "none"], "not a folder"),
        (["quantize", "m.onnx", "--calibrate", "samples", "--max-drop", "5"], "not a share"),
        (["quantize", "m.onnx", "--calibrate", "samples", "--samples", "0"], "leaves none"),
        (["quantize", "m.onnx", "--calibrate", "samples", "--decide", "y"], "cannot read"),
        (["quantize", "m.onnx", "--calibrate", "samples", "--decide", "z=equal"], "no output 'z'"),
        (["quantize", "m.onnx", "--calibrate", "samples", "--image-size", "4"], "not a height"),
        (["quantize", "m.onnx", "--calibrate", "samples", "--image-std", "a"], "not a list"),
        (["quantize", "m.onnx", "--calibrate", "samples", "--image-std", "0"], "divided by zero"),
        (["quantize", "m.onnx", "--calibrate", "samples", "--keep-float", "q"], "no node 'q'"),
        (["quantize", "none.onnx", "--calibrate", "samples"], "cannot read the file"),
        (["verify", "m.onnx", "--against", "m.onnx"], "needs samples"),
        (["verify", "m.onnx", "--against", "m.onnx", "--data", "samples", "--stages"], "do not go"),
        (["verify", "m.onnx", "--against", "other.onnx", "--data", "samples"], "shape"),
    ],
)
def test_mistakes_are_one_message(place, capsys, arguments, expected):
    if "other.onnx" in arguments:
        other = make([("Relu", "x", "y", {})], {}, {"x": [1, 3, 8, 8]}, {"y": 4})
        onnx.save(other, "other.onnx")
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert expected in error and "remedy" in error and "Traceback" not in error


@pytest.mark.parametrize(
    "command, status",
    [(["check"], 1), (["compile"], 2), (["quantize", "--calibrate", "samples"], 2)],
)
def test_a_scale_of_zero_is_one_message(place, capsys, command, status):
    nodes = [("QuantizeLinear", "x,s,p", "q", {}), ("DequantizeLinear", "q,s,p", "y", {})]
    grid = {"s": np.float32(0), "p": np.uint8(3)}
    onnx.save(make(nodes, grid, {"x": [1, 3, 8, 8]}, {"y": 4}), "bad.onnx")
    assert main([command[0], "bad.onnx", *command[1:]]) == status
    shown = "".join(capsys.readouterr())
    assert "its scale is 0.0" in shown and "remedy" in shown and "Traceback" not in shown


@pytest.mark.slow
def test_damaged_models_are_refused(place, capsys):
    whole = residual_net().SerializeToString()
    random = np.random.default_rng(0)
    for _ in range(10):
        data = bytearray(whole)
        for position in random.integers(0, len(data), 4):
            data[position] = random.integers(256)
        (place / "d.onnx").write_bytes(data)
        status = main(["quantize", "d.onnx", "--calibrate", "samples", "-o", "q.onnx"])
        shown = capsys.readouterr().err
        assert status in (0, 2), shown
