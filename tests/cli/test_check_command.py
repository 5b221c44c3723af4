"""`aotc check`, `aotc targets`, `--version` and `--help`."""

import json

import pytest
from onnx import helper
from small_models import BAD_MODELS, save, save_good, value

from aotc import __version__
from aotc.cli import main


def test_a_good_model_has_no_problems(tmp_path, capsys):
    model = save_good(tmp_path / "m.onnx")
    assert main(["check", str(model)]) == 0
    assert "nothing stops a compile" in capsys.readouterr().out
    assert main(["check", str(model), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True and report["problems"] == []


def test_all_problems_are_listed_at_once(tmp_path, capsys):
    nodes = [
        helper.make_node("Foo", ["x"], ["a"], name="one"),
        helper.make_node("Bar", ["a"], ["b"], name="two"),
        helper.make_node("Add", ["x", "nowhere"], ["y"], name="three"),
    ]
    outputs = [value("y", 2), value("b", 2)]
    path = save(tmp_path / "m.onnx", nodes, [value("x", 2)], outputs)
    assert main(["check", str(path), "--json"]) == 1
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert {(p["node"], p["operator"], p["opset"]) for p in problems} >= {
        ("one", "Foo", 17),
        ("two", "Bar", 17),
    }
    assert any("nowhere" in p["reason"] for p in problems)
    assert main(["check", str(path)]) == 1
    shown = capsys.readouterr().out
    assert "Foo" in shown and "Bar" in shown


@pytest.mark.parametrize("kind", ["truncated", "not ONNX", "absent"])
def test_what_is_no_model_is_an_error(kind, tmp_path, capsys):
    BAD_MODELS[kind][0](tmp_path / "bad.onnx")
    assert main(["check", str(tmp_path / "bad.onnx")]) == 2
    assert "bad.onnx" in capsys.readouterr().err


def test_targets_says_what_cpu_takes(capsys):
    assert main(["targets"]) == 0
    shown = capsys.readouterr().out
    for word in ("x86_64", "native", "x86-64-v3", "x86-64-v4", "znver4"):
        assert word in shown


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"aotc {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["frobnicate"], ["compile"], ["compile", "m", "--nope"]])
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "Traceback" not in capsys.readouterr().err
