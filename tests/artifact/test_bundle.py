"""Compiled programs in, files out: all or none, and the same bytes each time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from handmade import affine_program, compile_program

from aotc.artifact.bundle import save_bundle
from aotc.errors import UsageError


@pytest.fixture(scope="module")
def model():
    return compile_program(affine_program())


def test_files_are_written_into_a_new_folder(model, tmp_path):
    paths = save_bundle(model.bundle, tmp_path / "a" / "b")
    assert {path.name for path in paths} == {"net.o", "net.h", "net.json"}
    assert sorted((tmp_path / "a" / "b").iterdir()) == sorted(paths)
    saved = compile_program(affine_program(), weights_in_file=True).save(tmp_path)
    assert saved[-1].name == "net.weights"


def test_older_files_are_replaced(model, tmp_path):
    (tmp_path / "net.o").write_bytes(b"old")
    model.save(tmp_path)
    assert (tmp_path / "net.o").read_bytes() == model.object_bytes()


def test_a_folder_that_cannot_be_written_is_named(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write") as caught:
        model.save(tmp_path / "file")
    assert "file" in caught.value.where and "-o" in caught.value.remedy


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_read_only_folder_is_named(model, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="Permission denied"):
        model.save(tmp_path)


def test_a_failure_half_way_leaves_nothing_behind(model, tmp_path):
    (tmp_path / "net.json").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        model.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["net.json"]


def test_a_full_disk_leaves_nothing_behind(model, tmp_path, monkeypatch):
    def fail(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(UsageError, match="No space left on device"):
        model.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from handmade import affine_program, compile_program
compile_program(affine_program(), sys.argv[3] == "file").save(sys.argv[2])
"""


@pytest.mark.slow
def test_the_same_input_gives_the_same_bytes_whatever_the_hash_seed(tmp_path):
    tests = str(Path(__file__).parents[1])
    for seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", SCRIPT, tests, str(tmp_path / seed), "file"],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
        )
    names = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert names == ["net.h", "net.json", "net.o", "net.weights"]
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
