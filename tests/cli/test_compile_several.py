"""`aotc compile` with several models and with lists of sizes: files, the report, refusals."""

import json

import pytest
from small_models import save_good, save_two_branches

from aotc.cli import main


@pytest.fixture
def models(tmp_path):
    return [
        str(save_good(tmp_path / "good.onnx", batch="batch")),
        str(save_two_branches(tmp_path / "branches.onnx")),
    ]


def compile_here(tmp_path, *args):
    return main(["compile", *args, "-o", str(tmp_path / "out")])


def test_several_models_make_one_object(models, tmp_path, capsys):
    flags = ["--name", "app", "--dim", "batch=2", "--emit", "loops,llvm", "--explain"]
    assert compile_here(tmp_path, *models, *flags) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"app.o", "app.h", "app.json", "app.loops.txt", "app.ll"}
    out = capsys.readouterr().out
    assert "app_good_run, app_branches_run" in out and "contract 1x2x4" in out
    assert main(["audit", str(tmp_path / "out" / "app.o")]) == 0
    manifest = json.loads((tmp_path / "out" / "app.json").read_text())
    assert [row["entry"] for row in manifest["models"]] == ["app_good_run", "app_branches_run"]


def test_a_list_of_sizes_makes_an_entry_for_each(models, tmp_path, capsys):
    flags = ["--dim", "batch=1,8", "--weights", "file", "--threads"]
    assert compile_here(tmp_path, models[0], *flags) == 0
    assert "good_run_1, good_run_8" in capsys.readouterr().out
    header = (tmp_path / "out" / "good.h").read_text()
    assert "int good_run(int64_t batch," in header and "GOOD_UNKNOWN_SIZE" in header
    assert "int good_run_8_threads(" in header and "int good_run_threads(int64_t" in header


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--name app"),
        (["--name", "app", "--dim", "batch=2", "--tune", "1"], "--tune"),
        (["--name", "app", "--dim", "batch=2", "--stop-after", "fuse"], "--stop-after"),
        (["--name", "app", "--dim", "rows=2"], "no model has the dimension 'rows'"),
        (["--name", "app", "--dim", "batch=2", "--outputs", "q"], "no model has the output 'q'"),
        (["--name", "app"], "good.onnx"),
    ],
)
def test_what_does_not_go_with_several_models(models, tmp_path, capsys, flags, words):
    assert compile_here(tmp_path, *models, *flags) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags", [["--dim", "batch=1,1"], ["--dim", "batch=1,x"]])
def test_lists_that_do_not_parse(models, tmp_path, flags):
    assert compile_here(tmp_path, models[0], *flags) == 2


def test_a_module_holds_one_entry(models, tmp_path, capsys):
    flags = ["--target", "wasm32", "--emit", "module", "--dim", "batch=1,2"]
    assert compile_here(tmp_path, models[0], *flags) == 2
    assert "one model for one size" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["verify", "bench", "run", "profile", "check"])
def test_other_commands_take_one_size(models, capsys, command):
    assert main([command, models[0], "--dim", "batch=1,8"]) == 2
    assert "--dim batch=1" in capsys.readouterr().err
