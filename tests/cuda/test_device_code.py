"""Architectures, PTX and cubins: names, versions, and what an assembler says."""

import stat

import pytest
from test_device_model import copy_kernel

from aotc.cuda import images
from aotc.cuda.context import _fits
from aotc.cuda.images import arch_number, driver_of, is_exact, make_code, read_arch_names
from aotc.cuda.ptxas import KernelUse, assemble, find_ptxas
from aotc.errors import UnsupportedError, UsageError
from aotc.graph.types import DType
from aotc.loop.ir import Alloc, Barrier, Buffer, For, Kernel, Kind, Lit, Load, Space, Store, Var

SAID = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'k_sum' for 'sm_80'
ptxas info    : Function properties for k_sum
    24 bytes stack frame, 16 bytes spill stores, 20 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 24 bytes cumulative stack size, 368 bytes smem
ptxas info    : Compiling entry function 'k_copy' for 'sm_80'
ptxas info    : Function properties for k_copy
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, 368 bytes cmem[0]
"""


def test_names_of_architectures():
    assert read_arch_names("sm_90a, sm_80,sm_90,sm_80") == ("sm_80", "sm_90", "sm_90a")
    assert (arch_number("sm_90a"), arch_number("sm_120")) == (90, 120)
    assert is_exact("sm_90a") and not is_exact("sm_90")
    with pytest.raises(UsageError, match="unknown architecture 'sm_50'"):
        read_arch_names("sm_80,sm_50")


@pytest.mark.parametrize(
    ("version", "driver"),
    [("7.8", 11080), ("8.0", 12000), ("8.5", 12050), ("8.6", 12070), ("8.7", 12080)],
)
def test_versions_of_the_language_and_of_the_driver(version, driver):
    """As the release history of the PTX ISA reference has them."""
    assert driver_of(f"//\n.version {version}\n.target sm_80\n") == driver


@pytest.mark.parametrize(
    ("is_cubin", "arch", "capability", "fits"),
    [
        (True, "sm_80", (8, 0), True),
        (True, "sm_80", (8, 9), True),
        (True, "sm_86", (8, 0), False),
        (True, "sm_80", (9, 0), False),
        (True, "sm_90a", (9, 0), True),
        (True, "sm_100", (10, 3), True),
        (True, "sm_100", (12, 0), False),
        (False, "sm_80", (12, 0), True),
        (False, "sm_90", (8, 9), False),
        (False, "sm_90a", (10, 0), False),
    ],
)
def test_devices_that_code_runs_on(is_cubin, arch, capability, fits):
    """CUDA C++ programming guide, binary and PTX compatibility."""
    assert _fits(is_cubin, arch, *capability) is fits


@pytest.fixture
def ptxas(tmp_path):
    """An assembler that says what is in the environment of the test."""

    def make(said, status=0, writes=True):
        path = tmp_path / "ptxas"
        (tmp_path / "said").write_text(said)
        body = 'while [ "$1" != -o ]; do shift; done; printf cubin > "$2"' if writes else ":"
        path.write_text(f"#!/bin/sh\n{body}\ncat {tmp_path}/said >&2\nexit {status}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return make


def test_what_kernels_take_is_read_from_the_assembler(ptxas):
    cubin = assemble("ptx", "sm_80", ptxas(SAID))
    assert (cubin.arch, cubin.data) == ("sm_80", b"cubin")
    assert cubin.kernels == (
        KernelUse("k_copy", 8, 0, 0, 0, 0),
        KernelUse("k_sum", 40, 368, 24, 16, 20),
    )


def test_an_assembler_that_refuses_is_quoted(ptxas):
    with pytest.raises(UnsupportedError, match="'sm_120' is not defined for option") as raised:
        assemble("ptx", "sm_120", ptxas("'sm_120' is not defined for option 'gpu-name'", 255))
    assert "leave sm_120 out" in raised.value.remedy
    with pytest.raises(UnsupportedError, match="does not assemble"):
        assemble("ptx", "sm_80", ptxas("", 0, writes=False))
    with pytest.raises(UnsupportedError, match="does not run"):
        assemble("ptx", "sm_80", "/nowhere/ptxas")


def test_the_wheel_comes_before_the_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    plain = tmp_path / "ptxas"
    plain.touch(stat.S_IRWXU)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert find_ptxas() == str(plain)
    wheel = tmp_path / "nvidia" / "cuda_nvcc" / "bin" / "ptxas"
    wheel.parent.mkdir(parents=True)
    wheel.touch()

    class Spec:
        submodule_search_locations = (str(tmp_path / "nvidia"),)

    monkeypatch.setattr("importlib.util.find_spec", lambda name: Spec())
    assert find_ptxas() == str(wheel)


def shared_kernel(elems):
    """Each thread stores into shared memory of the block, and reads it back."""
    y, shared = Buffer("y", DType.F32, 32), Buffer("s", DType.F32, elems, Space.SHARED)
    thread = Var("t")
    body = (
        Store(shared, thread, Lit(1.0, DType.F32)),
        Barrier(),
        Store(y, thread, Load(shared, thread)),
    )
    threads = For(thread, 32, body, Kind.THREAD)
    nest = For(Var("b"), 1, (Alloc(shared, (threads,)),), Kind.BLOCK)
    return Kernel("wide", (y,), frozenset([y]), (nest,))


def test_a_kernel_that_an_architecture_has_no_room_for_is_an_error(monkeypatch):
    monkeypatch.setattr(images, "find_ptxas", lambda: None)
    kernel = shared_kernel(100 << 8)  # 100 KiB
    code = make_code([kernel], ["sm_80", "sm_90"])
    assert "wide" in code.ptx and code.remark
    message = "wide needs 102400 bytes of shared memory in each block, and sm_86 has 101376"
    with pytest.raises(UsageError, match=message):
        make_code([kernel], ["sm_80", "sm_86"])


def test_ptx_is_for_the_lowest_architecture(monkeypatch):
    monkeypatch.setattr(images, "find_ptxas", lambda: None)
    code = make_code([copy_kernel()], ["sm_80", "sm_120"])
    assert ".target sm_80" in code.ptx
    assert (code.arch, code.cubins, code.driver) == ("sm_80", (), 12000)
