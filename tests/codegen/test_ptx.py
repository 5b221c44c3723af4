"""PTX of GPU kernels: entries, memory spaces, and what ptxas says of them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from graph_runs import Net, lowered

from aotc.codegen.ptx import ptx_module
from aotc.errors import UsageError, VerifyError
from aotc.graph.types import DType
from aotc.loop import index as ix
from aotc.loop.ir import Alloc, Barrier, Buffer, For, Kernel, Kind, Load, Space, Store, Var
from aotc.target import cuda_target

ARCHS = ("sm_80", "sm_90a")


def ptxas():
    """ptxas on the path, or in the wheel of NVIDIA's compiler; skips the test without one."""
    found = shutil.which("ptxas")
    if found is None:
        package = pytest.importorskip("nvidia.cuda_nvcc", reason="no ptxas: nvidia-cuda-nvcc-cu12")
        found = next((str(p) for root in package.__path__ for p in Path(root).rglob("ptxas")), None)
    if found is None:
        pytest.skip("no ptxas here")
    return found


def resources(ptx, arch, folder):
    """(registers, stack, spilled) bytes of each entry, as ptxas finds them."""
    source = folder / "module.ptx"
    source.write_text(ptx)
    command = [ptxas(), "-v", f"-arch={arch}", str(source), "-o", str(folder / "module.cubin")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = re.findall(r"Compiling entry function '(\w+)'", done.stderr)
    frames = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores", done.stderr)
    registers = re.findall(r"Used (\d+) registers", done.stderr)
    rows = zip(names, registers, frames, strict=True)
    return {name: (int(count), int(stack), int(spill)) for name, count, (stack, spill) in rows}


def shared_kernel(elems=64):
    x, y = Buffer("x", DType.F32, 64), Buffer("y", DType.F32, 64)
    tile = Buffer("tile", DType.F32, elems, Space.SHARED)
    block, thread = Var("block"), Var("thread")
    body = (
        Store(tile, thread, Load(x, thread)),
        Barrier(),
        Store(y, thread, Load(tile, ix.sub(ix.lit(63), thread))),
    )
    nest = For(block, 1, (Alloc(tile, (For(thread, 64, body, Kind.THREAD),)),), Kind.BLOCK)
    return Kernel("mirror", (x, y), frozenset({y}), (nest,))


def test_spaces_and_barriers():
    text = ptx_module([shared_kernel()], "sm_80")
    assert ".visible .entry mirror(" in text and ".reqntid 64, 1, 1" in text
    for instruction in ("ld.global.b32", "st.shared.b32", "bar.sync", "ld.shared.b32"):
        assert instruction in text


def test_arithmetic_is_never_fused_by_the_assembler():
    net = Net()
    x = net.x(100)
    graph = net.graph(net.b.binary("add", net.b.binary("mul", x, x), net.c(100)))
    text = ptx_module(lowered(graph, cuda_target("sm_80")).kernels(), "sm_80")
    assert "mul.rn.f32" in text and "add.rn.f32" in text and "fma" not in text


def test_too_much_shared_memory():
    kernel = shared_kernel(elems=30_000)
    ptx_module([kernel], "sm_80")
    with pytest.raises(VerifyError, match="needs 120000 bytes of shared memory, sm_86 has 101376"):
        ptx_module([kernel], "sm_86")


def test_unknown_architecture():
    with pytest.raises(UsageError, match="unknown cpu 'sm_81'"):
        ptx_module([], "sm_81")


@pytest.mark.parametrize("arch", ARCHS)
def test_assembler_takes_it_without_spills(arch, tmp_path):
    net = Net()
    y = net.b.unary("exp", net.x(6, 40))
    net.out(net.b.reduce("sum", y, (1,), keep=False))
    kernels = [*lowered(net.graph(y), cuda_target("sm_80")).kernels(), shared_kernel()]
    found = resources(ptx_module(kernels, arch), arch, tmp_path)
    assert set(found) == {kernel.name for kernel in kernels}
    assert all(spill == 0 for _, _, spill in found.values())
