"""Static libraries: binutils and LLVM read the index and the member, whatever the object format."""

import shutil
import subprocess

import pytest
from handmade import compile_program, scale_program

from aotc.bindings.archive import make_archive
from aotc.target import resolve_target

pytestmark = pytest.mark.requires_cc

ELF = b"\x7fELF" + bytes(13)


def test_the_layout_of_an_elf_library():
    data = make_archive(ELF, "net.o", ["net_run"])
    assert data[:36] == b"!<arch>\n/               0           "
    assert data[36:68] == b"0     0     100644  16        `\n"
    assert data[68:84] == b"\0\0\0\1\0\0\0\x54net_run\0"
    assert data[84:100] == b"net.o/          " and data[142:144] == b"`\n"
    assert data[144:] == ELF + b"\n"


@pytest.mark.parametrize("member", ["net.o", "a_model_with_a_long_name.o"])
def test_ar_reads_it(member, tmp_path):
    (tmp_path / "lib.a").write_bytes(make_archive(ELF, member, ["net_run", "net_run_threads"]))
    command = ["ar", "t", "lib.a"]
    assert subprocess.check_output(command, cwd=tmp_path, text=True) == f"{member}\n"
    subprocess.run(["ar", "x", "lib.a"], cwd=tmp_path, check=True)
    assert (tmp_path / member).read_bytes() == ELF


@pytest.mark.parametrize(
    ("target", "prefix"),
    [
        ("x86_64", ""), ("wasm32", ""), ("aarch64-pc-windows-msvc", ""), ("arm64-apple-macos", "_"),
    ],
)
def test_llvm_finds_the_symbols_of_every_format(target, prefix, tmp_path):
    nm = shutil.which("llvm-nm") or pytest.skip("no llvm-nm on this machine")
    data = compile_program(scale_program(), target=resolve_target(target)).object_bytes()
    (tmp_path / "lib.a").write_bytes(make_archive(data, "scale.o", ["scale_run"]))
    command = [nm, "--print-armap", "--extern-only", "lib.a"]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert f"{prefix}scale_run in scale.o" in shown.stdout, shown.stderr
    assert f" T {prefix}scale_run" in shown.stdout
