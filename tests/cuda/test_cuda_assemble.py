"""`make cuda-assemble`: what ptxas says of small models on every architecture, and of bad news."""

import pytest

from aotc.cuda.ptxas import KernelUse, find_ptxas
from aotc.target import SHARED_BYTES
from tools import cuda_assemble
from tools.cuda_assemble import Assembled


@pytest.mark.slow
@pytest.mark.skipif(find_ptxas() is None, reason="there is no ptxas: pip install aotc[cuda]")
@pytest.mark.parametrize(
    ("name", "precision"), [("tiny_kws_dscnn", "f16"), ("tiny_ic_resnet8", "tf32")]
)
def test_small_models_do_not_spill_on_any_architecture(name, precision, capsys):
    assert cuda_assemble.main(["--models", name, "--precisions", precision]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines[1:]] == list(SHARED_BYTES)
    for line in lines[1:]:
        kernels, registers, shared, spilled = map(int, line.split()[3:7])
        assert kernels > 5 and 16 <= registers <= 255 and spilled == 0
        assert 0 < shared <= SHARED_BYTES[line.split()[2]]


def test_spills_warnings_and_failures_are_reported():
    use = KernelUse("k_dot", 255, 0, 16, 8, 12)
    fine = Assembled("m", "f16", "sm_80", (KernelUse("k", 40, 16, 0, 0, 0),), 16, (), 1.0)
    spilling = Assembled("m", "f16", "sm_90", (use,), 0, (), 1.0)
    warned = Assembled("m", "f16", "sm_90a", (), 0, ("ptxas warning : serialized",), 1.0)
    failed = Assembled("m", "f16", "sm_100", failure="needs more shared memory")
    assert [one.wrong for one in (fine, spilling, warned, failed)] == [False, True, True, True]
    assert cuda_assemble.report([fine, spilling, warned]) == [
        "m f16 sm_90: k_dot spills 8 bytes and loads 12, with 255 registers",
        "m f16 sm_90a: ptxas warning : serialized",
    ]
    assert fine.cells()[3:] == ("1", "40", "16", "0", "1.0", "")
    assert spilling.cells()[6] == "20" and failed.cells()[-1] == "needs more shared memory"


def test_without_an_assembler_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(cuda_assemble, "find_ptxas", lambda: None)
    assert cuda_assemble.main([]) == 2
    assert "pip install nvidia-cuda-nvcc" in capsys.readouterr().err
