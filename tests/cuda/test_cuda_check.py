"""`make cuda-check` on the fake driver, and on a machine without one."""

import gc
import time
from dataclasses import replace

import pytest

from aotc.codegen.signature import Status
from aotc.cuda import build
from aotc.cuda import compiled as cuda_compiled
from aotc.cuda.driver import DeviceError, Driver
from tools import cuda_check, cuda_kernels


@pytest.fixture
def checked(gpu, monkeypatch):
    """The tool on the fake driver, without the tests that it starts."""
    monkeypatch.setattr(cuda_check, "ROUNDS", 2)
    monkeypatch.setattr(cuda_check, "SANITIZERS", ())
    monkeypatch.setattr(cuda_check, "MODEL_PRECISIONS", ("tf32",))
    monkeypatch.setattr(cuda_check, "time_start", lambda: cuda_check.skipped("start", "here"))
    monkeypatch.setattr(cuda_check, "COPIED_BYTES", 1 << 12)
    monkeypatch.setattr(cuda_check, "run_tests", lambda: cuda_check.skipped("pytest", "here"))
    for module in (cuda_check, cuda_compiled, build):
        monkeypatch.setattr(module, "open_driver", lambda: Driver(gpu.library))
    plain = cuda_compiled.CudaModel.context

    def context(self, device=0):
        gpu.learn(self.device_model)
        return plain(self, device)

    monkeypatch.setattr(cuda_compiled.CudaModel, "context", context)
    yield gpu
    gc.collect()


@pytest.mark.slow
def test_a_model_is_compared_and_timed(checked, capsys):
    assert cuda_check.main(["--models", "mnist_mlp"]) == 0
    said = capsys.readouterr().out
    assert "fake device 0, code for sm_80, driver 13.0" in said
    rows = [line.split() for line in said.splitlines() if line.startswith("mnist_mlp")]
    assert [row[1] for row in rows] == ["tf32"]
    assert {row[-1] for row in rows} == {"ok"}
    assert {row[3] for row in rows} == {"1.000"}  # the clock of the fake driver


@pytest.mark.slow
def test_operations_are_checked_against_float64(checked, monkeypatch):
    chosen = [replace(c, precisions=c.precisions[:1]) for c in cuda_kernels.cases(256)]
    monkeypatch.setattr(cuda_check, "cases", lambda: chosen)
    monkeypatch.setattr(cuda_check, "time_in_torch", lambda *_: 3e-3)
    rows = list(cuda_check.check_cases(time.monotonic() + 100))
    assert [row.what for row in rows][:3] == ["copy", "product 16 f32", "product 32 f32"]
    assert [row.what for row in rows if row.wrong] == []
    assert len(rows) == 1 + 2 + 1 + 4
    assert {row.peer for row in rows[1:]} == {"3.00"}
    assert "of copy" in rows[-1].rate
    assert list(cuda_check.check_cases(0.0))[0].error == "no time left"


@pytest.mark.slow
def test_wrong_numbers_fail_the_check(checked, capsys, monkeypatch):
    monkeypatch.setattr(checked, "learn", lambda model: None)
    checked.library.fake_cuda_execute_by(None)
    try:
        assert cuda_check.main(["--models", "mnist_mlp"]) == 1
    finally:
        checked.library.fake_cuda_execute_by(checked._execute)
    assert "DIFFERS" in capsys.readouterr().out


def test_a_machine_without_a_driver_is_told_that_nothing_was_checked(capsys, monkeypatch):
    def fail():
        raise DeviceError(Status.NO_DRIVER)

    monkeypatch.setattr(cuda_check, "open_driver", fail)
    assert cuda_check.main([]) == 2
    assert "nothing was checked: The CUDA driver is not installed" in capsys.readouterr().err
