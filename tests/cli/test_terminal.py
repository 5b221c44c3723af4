"""Progress is for terminals: on one there is some, in a pipe there is none."""

import os
import pty
import subprocess
import sys

import pytest
from small_models import save_good


@pytest.mark.slow
@pytest.mark.parametrize("terminal", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_progress_only_on_a_terminal(tmp_path, terminal):
    model = save_good(tmp_path / "net.onnx")
    command = [sys.executable, "-m", "aotc.cli", "compile", str(model), "-o", str(tmp_path)]
    command += ["--stop-after", "fuse"]  # there is a stage to show before that
    reader, writer = pty.openpty() if terminal else os.pipe()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    child = subprocess.Popen(
        command, stderr=writer, stdout=subprocess.DEVNULL, cwd=tmp_path, env=environment
    )
    os.close(writer)
    shown = b""
    try:
        while chunk := os.read(reader, 4096):
            shown += chunk
    except OSError:  # how a terminal says that the other side is gone
        pass
    os.close(reader)
    assert child.wait() == 0
    assert (b"net.onnx" in shown) == terminal
    assert bool(shown) == terminal
