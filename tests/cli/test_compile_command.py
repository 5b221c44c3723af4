"""`aotc compile`: files out, stages as text, and one clear message for whatever is wrong."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from small_models import BAD_MODELS, save_good

from aotc.cli import main


@pytest.fixture
def model(tmp_path):
    return save_good(tmp_path / "small-net.onnx")


def test_three_files_and_a_summary(model, tmp_path, capsys):
    assert main(["compile", str(model), "-o", str(tmp_path / "out")]) == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["small_net.h", "small_net.json", "small_net.o"]
    shown = capsys.readouterr()
    assert "x86_64 means x86-64-v3 (AVX2 and FMA)" in shown.out
    assert "lower bound" in shown.out
    assert shown.err == ""


def test_flags_reach_the_header(tmp_path):
    model = save_good(tmp_path / "m.onnx", batch="batch")
    flags = ["--dim", "batch=3", "--name", "net", "--outputs", "z", "--cpu", "haswell"]
    assert main(["compile", str(model), "-o", str(tmp_path), *flags]) == 0
    header = (tmp_path / "net.h").read_text()
    assert "NET_X_DIM0 3" in header and "NET_Z_DIM0 3" in header
    assert "NET_Y_ELEMS" not in header
    assert "haswell" in header


def test_input_shape_binds_a_whole_input(tmp_path):
    model = save_good(tmp_path / "m.onnx", batch="batch")
    assert main(["compile", str(model), "-o", str(tmp_path), "--input-shape", "x=5,8"]) == 0
    manifest = json.loads((tmp_path / "m.json").read_text())
    assert manifest["inputs"][0]["shape"] == [5, 8]


def test_weights_stored_small(tmp_path):
    model = save_good(tmp_path / "m.onnx")
    assert main(["compile", str(model), "-o", str(tmp_path), "--weights-dtype", "i8"]) == 0
    manifest = json.loads((tmp_path / "m.json").read_text())
    assert manifest["weights"]["dtype"] == "i8"


def test_gpus_store_weights_as_they_are(model, capsys):
    flags = ["--target", "cuda", "--weights-dtype", "i4"]
    assert main(["compile", str(model), *flags]) == 2
    assert "leave out --weights-dtype" in capsys.readouterr().err


def test_weights_in_a_file(model, tmp_path):
    assert main(["compile", str(model), "-o", str(tmp_path), "--weights", "file"]) == 0
    weights = (tmp_path / "small_net.weights").stat().st_size
    assert weights > 4 * 8 * 4
    assert "const void *weights" in (tmp_path / "small_net.h").read_text()


def test_regions_are_shown_and_written(model, tmp_path, capsys):
    flags = ["--region", "flash=1K", "--region", "dtcm=128", "--region", "sram=1K"]
    flags += ["--emit", "loops"]
    assert main(["compile", str(model), "-o", str(tmp_path / "out"), *flags]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert re.search(r"flash \d+ .*of 1024 .*dtcm \d+ .*of 128 .*sram \d+ .*of 1024", shown)
    assert "> dtcm" in (tmp_path / "out" / "small_net.ld").read_text()
    assert re.search(r"// +dtcm: 0 \.\. \d+", (tmp_path / "out/small_net.loops.txt").read_text())
    few = ["--region", "flash=64", "--opt", "size"]
    assert main(["compile", str(model), "-o", str(tmp_path / "none"), *few]) == 2
    message = capsys.readouterr().err
    assert "flash (64 bytes) misses" in message and "remedy: give --region flash=" in message
    assert not (tmp_path / "none").exists()
    assert main(["verify", str(model), *flags[:6]]) == 0


def test_every_stage_can_be_written(model, tmp_path):
    flags = ["--emit", "graph,loops", "--emit", "llvm", "--emit", "asm"]
    assert main(["compile", str(model), "-o", str(tmp_path), *flags]) == 0
    for name, words in {
        "small_net.graph.txt": "dot(",
        "small_net.loops.txt": "call ",
        "small_net.ll": "define i32 @small_net_run",
        "small_net.s": "small_net_run:",
    }.items():
        assert words in (tmp_path / name).read_text()


@pytest.mark.parametrize(
    ("stage", "words"),
    [("frontend", "parameter"), ("layout", "return"), ("fuse", "g000"), ("lower", "call ")],
)
def test_stop_after_shows_a_stage_and_compiles_nothing(model, tmp_path, capsys, stage, words):
    assert main(["compile", str(model), "--stop-after", stage]) == 0
    assert words in capsys.readouterr().out
    out = tmp_path / "out"
    assert main(["compile", str(model), "--stop-after", stage, "-o", str(out)]) == 0
    assert [path.name for path in out.iterdir()] == [f"small_net.{stage}.txt"]


@pytest.mark.parametrize("kind", BAD_MODELS)
def test_bad_models_give_one_message_and_no_files(kind, tmp_path, capsys):
    make, words = BAD_MODELS[kind]
    path = tmp_path / "bad.onnx"
    make(path)
    assert main(["compile", str(path), "-o", str(tmp_path / "out")]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Traceback" not in shown.err
    assert shown.err.count("bad.onnx") == 1
    assert "remedy:" in shown.err
    for word in words:
        assert word in shown.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--input-shape", "nope=2,8"], "nope"),
        (["--dim", "nope=2"], "nope"),
        (["--dim", "batch"], "--dim NAME=VALUE"),
        (["--dim", "batch=two"], "two"),
        (["--dim", "batch=-1"], "-1"),
        (["--outputs", "nope"], "nope"),
        (["--cpu", "pentium99"], "pentium99"),
        (["--cpu", "nehalem"], "AVX2"),
        (["--target", "z80"], "z80"),
        (["--emit", "poetry"], "poetry"),
        (["--stop-after", "lunch"], "lunch"),
    ],
)
def test_bad_flags_give_one_message(model, tmp_path, capsys, flags, words):
    assert main(["compile", str(model), "-o", str(tmp_path / "out"), *flags]) == 2
    message = capsys.readouterr().err
    assert words in message and "remedy:" in message
    assert not (tmp_path / "out").exists()


def test_an_unwritable_folder_is_named(model, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["compile", str(model), "-o", str(tmp_path / "file" / "out")]) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_a_defect_is_one_message_and_debug_shows_more(model, tmp_path, capsys, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("boom\nand more")

    monkeypatch.setattr("aotc.commands.compile.run_stages", fail)
    assert main(["compile", str(model), "-o", str(tmp_path)]) == 70
    message = capsys.readouterr().err
    assert "internal error (RuntimeError): boom" in message and "report" in message
    with pytest.raises(RuntimeError):
        main(["compile", str(model), "-o", str(tmp_path), "--debug"])


@pytest.mark.slow
def test_the_same_bytes_whatever_the_hash_seed(model, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    assert main(["compile", str(model), "-o", str(here)]) == 0
    subprocess.run(
        [sys.executable, "-m", "aotc.cli", "compile", str(model), "-o", str(there)],
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONHASHSEED": "1"},
        stdout=subprocess.DEVNULL,
    )
    files = [[path.read_bytes() for path in sorted(out.iterdir())] for out in (here, there)]
    assert files[0] == files[1] != []


@pytest.mark.slow
def test_a_pipe_that_closes_early_is_no_error(model, tmp_path):
    command = [sys.executable, "-m", "aotc.cli", "compile", str(model), "--stop-after", "fuse"]
    pipe = subprocess.PIPE
    child = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=tmp_path)
    child.stdout.close()
    assert "Traceback" not in child.stderr.read()
    child.stderr.close()
    child.wait()


def test_run_reads_and_writes_arrays(model, tmp_path, capsys):
    x = np.random.default_rng(1).standard_normal((2, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    flags = ["--input", f"x={tmp_path}/x.npy", "--output", f"z={tmp_path}/z.npy"]
    assert main(["run", str(model), *flags, "--cpu", "x86-64-v3"]) == 0
    assert np.load(tmp_path / "z.npy").sum(axis=1) == pytest.approx([1, 1], abs=1e-5)
    assert main(["run", str(model), *flags[:2], "--cpu", "x86-64-v3"]) == 0
    assert "float32[2, 4]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "input 'x' is missing"),
        (["--input", "x=nowhere.npy"], "nowhere.npy"),
        (["--input", "x={tmp}/text.npy"], "text.npy"),
        (["--input", "x={tmp}/pickled.npy"], "pickled.npy"),
        (["--input", "x={tmp}/wide.npy"], "[3, 3]"),
        (["--input", "x={tmp}/double.npy"], "float64"),
        (["--input", "q={tmp}/good.npy", "--input", "x={tmp}/good.npy"], "'q'"),
        (["--input", "x={tmp}/good.npy", "--output", "nope=y.npy"], "nope"),
    ],
)
def test_bad_arrays_give_one_message(model, tmp_path, capsys, flags, words):
    (tmp_path / "text.npy").write_text("1 2 3")
    np.save(tmp_path / "pickled.npy", np.array([{}], object), allow_pickle=True)
    np.save(tmp_path / "wide.npy", np.zeros((3, 3), np.float32))
    np.save(tmp_path / "double.npy", np.zeros((2, 8)))
    np.save(tmp_path / "good.npy", np.zeros((2, 8), np.float32))
    given = [flag.replace("{tmp}", str(tmp_path)) for flag in flags]
    assert main(["run", str(model), "--cpu", "x86-64-v3", *given]) == 2
    message = capsys.readouterr().err
    assert words in message and "Traceback" not in message


def test_explain_shows_every_contraction_and_where_its_cycles_go(model, tmp_path, capsys):
    assert main(["compile", str(model), "-o", str(tmp_path), "--explain"]) == 0
    shown = capsys.readouterr().out
    assert "multiply-adds" in shown and "next best" in shown
    assert re.search(r"contract 1x\d+x\d+ depth \d+/\d+ .*: rows 1x1 columns", shown)


@pytest.mark.slow
def test_tuning_writes_recipes_that_later_compilations_use(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("aotc.tune.WORTHWHILE", 1e9)  # so that the slowest may win
    monkeypatch.setattr("aotc.tune.ROUND_SECONDS", 0.01)
    monkeypatch.setattr("aotc.tune.min", max, raising=False)
    recipes = tmp_path / "recipes.json"
    flags = ["-o", str(tmp_path), "--recipes", str(recipes)]
    assert main(["compile", str(model), *flags, "--tune", "0.1"]) == 0
    found = json.loads(recipes.read_text())["recipes"]["x86_64/x86-64-v3"]
    assert found and all(key.startswith("contract ") for key in found)
    tuned = (tmp_path / "small_net.json").read_text()
    assert main(["compile", str(model), *flags]) == 0
    assert (tmp_path / "small_net.json").read_text() == tuned
    manifest = json.loads(tuned)
    used = {call["recipe"] for call in manifest["kernels"] if "contract" in call.get("recipe", "")}
    assert used == {f"{key}: {recipe}" for key, recipe in found.items()}


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf"])
def test_tuning_needs_a_time(model, seconds, capsys):
    assert main(["compile", str(model), f"--tune={seconds}"]) == 2
    assert "--tune 30" in capsys.readouterr().err


def test_recipes_must_be_there_to_be_used(model, tmp_path, capsys):
    assert main(["compile", str(model), "--recipes", str(tmp_path / "none.json")]) == 2
    assert "cannot read the recipes" in capsys.readouterr().err
