"""`aotc verify` and `aotc bench`: agreement, blame, and figures from one run."""

import json

import numpy as np
import pytest
from small_models import save_embedding, save_good, save_two_branches, save_unary

from aotc.cli import main
from aotc.passes import runner
from aotc.passes.rewrite import reemit

pytest.importorskip("onnxruntime")

CPU = ["--cpu", "x86-64-v3"]


@pytest.fixture
def model(tmp_path):
    return save_good(tmp_path / "m.onnx")


def test_a_good_model_agrees(model, capsys):
    assert main(["verify", str(model), *CPU]) == 0
    shown = capsys.readouterr().out
    assert "agrees" in shown and "onnxruntime" in shown
    assert all(name in shown for name in "yz")


def test_integers_are_equal_and_ids_stay_inside_the_table(tmp_path, capsys):
    assert main(["verify", str(save_embedding(tmp_path / "m.onnx")), *CPU]) == 0
    shown = capsys.readouterr().out
    assert "int64[3]" in shown and "equal" in shown


def test_a_tolerance_of_zero_is_strict(model, capsys):
    status = main(["verify", str(model), *CPU, "--tolerance", "0", "--seed", "3"])
    assert status in (0, 1)
    assert ("DIFFERS" in capsys.readouterr().out) == (status == 1)


def test_given_inputs_are_used(model, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.full((2, 8), 0.5, np.float32))
    assert main(["verify", str(model), *CPU, "--input", f"x={tmp_path}/x.npy"]) == 0
    assert main(["verify", str(model), *CPU, "--input", f"q={tmp_path}/x.npy"]) == 2
    assert "'q'" in capsys.readouterr().err


def test_outputs_can_be_chosen(model, capsys):
    assert main(["verify", str(model), *CPU, "--outputs", "z"]) == 0
    assert "y " not in capsys.readouterr().out


def test_an_inaccurate_reference_is_found_out(tmp_path, capsys):
    """Far below zero, ONNX Runtime's sigmoid is off by 1e-7, more than the values themselves
    allow."""
    path = save_unary(tmp_path / "m.onnx", "Sigmoid", (64,))
    np.save(tmp_path / "x.npy", np.linspace(-14, -11, 64, dtype=np.float32))
    assert main(["verify", str(path), *CPU, "--input", f"x={tmp_path}/x.npy"]) == 0
    shown = capsys.readouterr().out
    assert "double precision" in shown and "is the one that is off" in shown


def test_inner_tensors_and_pruned_inputs_can_be_compared(model, tmp_path, capsys):
    assert main(["verify", str(model), *CPU, "--outputs", "h"]) == 0
    assert "h " in capsys.readouterr().out
    two = save_two_branches(tmp_path / "two.onnx")
    assert main(["verify", str(two), *CPU, "--outputs", "b"]) == 0


def test_stages_are_all_shown(model, capsys):
    assert main(["verify", str(model), *CPU, "--stages"]) == 0
    shown = capsys.readouterr().out
    for step in runner.PIPELINE:
        assert step.name in shown
    assert "loops" in shown and "machine code" in shown and "no stage differs" in shown


def test_the_first_wrong_pass_is_named(model, capsys, monkeypatch):
    def negate_first_output(graph):
        def change(builder, node, new):
            if node is not graph.outputs[0][1]:
                return None
            return builder.unary("neg", builder.apply(node.op, *(new[x] for x in node.inputs)))

        return reemit(graph, change)

    def run_broken_passes(graph, passes, **options):
        broken = runner.Pass("layout", negate_first_output)
        passes = tuple(broken if p.name == "layout" else p for p in passes)
        return runner.run_passes(graph, passes, **options)

    monkeypatch.setattr("aotc.driver.run_passes", run_broken_passes)
    assert main(["verify", str(model), *CPU, "--stages"]) == 1
    assert "first stage that differs: layout" in capsys.readouterr().out


def test_bench_prints_medians_and_their_ratio(model, capsys, monkeypatch):
    monkeypatch.setattr("aotc.commands.bench.measure", _measure_quickly)
    assert main(["bench", str(model), *CPU, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["ms"]) == {"aotc", "onnxruntime"}
    expected = report["ms"]["onnxruntime"] / report["ms"]["aotc"]
    assert report["ratio_to_best"] == pytest.approx(expected, rel=0.02)
    assert report["machine"]["cores"] and report["versions"]["onnxruntime"]
    assert main(["bench", str(model), *CPU]) == 0
    assert "median ms" in capsys.readouterr().out


@pytest.mark.requires_cc
def test_bench_gives_every_engine_its_threads(model, capsys, monkeypatch):
    monkeypatch.setattr("aotc.commands.bench.measure", _measure_quickly)
    assert main(["bench", str(model), *CPU, "--json", "--threads", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["threads"] == {"aotc": 2, "onnxruntime": 2}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--against", "abacus"], "unknown engine 'abacus'"),
        (["--against", ","], "no engine"),
        (["--threads", "0"], "0 threads"),
    ],
)
def test_bad_bench_flags_give_one_message(model, capsys, flags, words):
    assert main(["bench", str(model), *CPU, *flags]) == 2
    assert words in capsys.readouterr().err


def test_a_missing_engine_says_how_to_get_it(model, capsys, monkeypatch):
    def fail(name):
        raise ImportError(f"No module named '{name}'")

    monkeypatch.setattr("aotc.reference.engines.importlib.import_module", fail)
    assert main(["bench", str(model), *CPU, "--against", "openvino"]) == 2
    message = capsys.readouterr().err
    assert "openvino is not installed" in message and "pip install openvino" in message


def _measure_quickly(functions, on_round):
    from aotc.reference.measure import measure

    return measure(functions, budget_seconds=0, min_rounds=3, on_round=on_round)
