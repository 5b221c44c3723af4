"""Objects for Windows and their loader, built by whatever compiler for Windows is here; nothing of
it is run."""

import importlib.util
import shutil
import subprocess
import sys

import numpy as np
import pytest

import aotc
from aotc.pool import runtime_sources


def windows_compiler():
    """The command of a C compiler for Windows on x86-64; None if there is none."""
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc", "-target", "x86_64-windows-gnu"]
    found = shutil.which("x86_64-w64-mingw32-gcc")
    return [found] if found else None


COMPILER = windows_compiler()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        COMPILER is None, reason="no C compiler for Windows: pip install ziglang"
    ),
]
STRICT = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic"]
PROGRAM = """
#include "net.h"
static float x[NET_X_ELEMS], y[32 * 64];
int main(void)
{
    net_context *context;
    if (net_run(x, y, 0) || net_create(0, &context))
        return 1;
    if (net_run_device(context, 0, x, y) || net_destroy(context))
        return 2;
    return net_release();
}
"""


def net(x):
    w = np.random.default_rng(3).standard_normal((48, 64)).astype(np.float32)
    return np.tanh(x @ w)


def build(*arguments, folder):
    done = subprocess.run(
        [*COMPILER, *STRICT, *map(str, arguments)], cwd=folder, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_loader_compiles_without_a_warning(tmp_path):
    build("-c", runtime_sources() / "aotc_cuda.c", "-o", "loader.obj", folder=tmp_path)
    assert b"nvcuda.dll" in (tmp_path / "loader.obj").read_bytes()


def test_an_object_links_into_a_program_that_needs_no_library_of_cuda(tmp_path):
    graph = aotc.trace(net, aotc.spec((32, 48), "float32"))
    model = aotc.compile(graph, target="cuda", host="x86_64-pc-windows-gnu", name="net")
    model.save(tmp_path, "net")
    (tmp_path / "main.c").write_text(PROGRAM)
    sources = ["main.c", "net.o", runtime_sources() / "aotc_cuda.c", "-I", runtime_sources()]
    build(*sources, "-o", "main.exe", folder=tmp_path)
    program = (tmp_path / "main.exe").read_bytes()
    assert program[:2] == b"MZ" and b".target sm_80" in program
    if shutil.which("objdump"):
        listed = subprocess.run(
            ["objdump", "-p", "main.exe"], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout
        needed = [line.split()[-1].lower() for line in listed.splitlines() if "DLL Name" in line]
        assert "kernel32.dll" in needed and not [name for name in needed if "cuda" in name]
