"""PTX of GPU kernels: entries, memory spaces, and what ptxas says of them."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from graph_runs import Net, lowered

from aotc.codegen.ptx import ptx_module
from aotc.errors import UsageError, VerifyError
from aotc.fuse.groups import fuse
from aotc.graph import ops
from aotc.graph.types import DType
from aotc.loop import index as ix
from aotc.loop.ir import Alloc, Barrier, Buffer, For, Kernel, Kind, Load, Mma, Space, Store, Var
from aotc.loop.mma import KINDS
from aotc.lower.gpu import tensor_contract
from aotc.lower.program import lower
from aotc.schedule.gpu import GpuTile
from aotc.schedule.gpu_tensor import TENSOR_TILES, TensorChoice
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


def test_limits_are_one_instruction_each():
    net = Net()
    graph = net.graph(net.b.unary("tanh", net.b.binary("max", net.x(64), net.x(64))))
    text = ptx_module(lowered(graph, cuda_target("sm_80")).kernels(), "sm_80")
    assert text.count("max.NaN.f32") == text.count("min.NaN.f32") == 2  # of the operand, the result
    assert text.count("setp.gt.f32") == 1  # of two operands


def product_program(precision):
    net = Net()
    graph = net.graph(net.b.apply(ops.Dot(), net.x(2, 256), net.x(256, 96)))
    return lowered(graph, replace(cuda_target("sm_80"), precision=precision))


@pytest.mark.parametrize("precision", ["f32", "tf32"])
def test_loops_between_barriers_are_kept(precision, tmp_path):
    ptx = ptx_module(product_program(precision).kernels(), "sm_80")
    assert '.pragma "nounroll";' in ptx
    assert all(spilled == 0 for _, _, spilled in resources(ptx, "sm_80", tmp_path).values())


def test_too_much_shared_memory():
    kernel = shared_kernel(elems=30_000)
    ptx_module([kernel], "sm_80")
    with pytest.raises(VerifyError, match="needs 120000 bytes of shared memory, sm_86 has 101376"):
        ptx_module([kernel], "sm_86")


def test_unknown_architecture():
    with pytest.raises(UsageError, match="unknown cpu 'sm_81'"):
        ptx_module([], "sm_81")
    with pytest.raises(UsageError, match="no generic architecture"):
        ptx_module([], "generic")


def attention_graph(batch, rows, width):
    """Attention of ``rows`` queries and as many keys."""
    net = Net()
    q, k, v = (net.x(batch, rows, width) for _ in range(3))
    x = net.b.apply(ops.Dot(), q, net.b.transpose(k, (0, 2, 1)))
    y = net.b.unary("exp", net.b.binary("sub", x, net.b.reduce("max", x, (2,), keep=True)))
    y = net.b.binary("div", y, net.b.reduce("sum", y, (2,), keep=True))
    return net.graph(net.b.apply(ops.Dot(), y, v))


def family_graphs():
    """One graph of each family of kernels, of sizes that a GPU is for."""

    def product(rows, depth, columns, tail):
        net = Net()
        y = net.b.apply(ops.Dot(), net.x(rows, depth), net.c(depth, columns))
        y = net.b.binary("add", y, net.c(columns))
        return net.graph(net.b.unary("erf", y) if tail else y)

    def convolution(images, size, channels, outputs, window, stride):
        net = Net()
        op = ops.Conv((stride, stride), (0, 0), (0, 0), (1, 1), 1, channels_last=True)
        x, w = net.x(images, size, size, channels), net.c(outputs, channels, window, window)
        return net.graph(net.b.apply(op, x, w))

    def rows(count, length):
        net = Net()
        x = net.x(count, length)
        y = net.b.unary("exp", net.b.binary("sub", x, net.b.reduce("max", x, (1,), keep=True)))
        return net.graph(net.b.binary("div", y, net.b.reduce("sum", y, (1,), keep=True)))

    yield "large", product(2048, 512, 2048, tail=False)
    yield "gelu", product(512, 384, 1536, tail=True)
    yield "small", product(128, 384, 384, tail=False)
    yield "row", product(1, 2048, 1000, tail=False)
    yield "three", convolution(32, 58, 64, 64, 3, 1)
    yield "seven", convolution(1, 230, 3, 64, 7, 2)
    yield "softmax", rows(2048, 768)
    yield "long softmax", rows(2048, 4096)
    yield "longer softmax", rows(64, 24000)
    net = Net()
    yield "pooling", net.graph(net.b.reduce("sum", net.x(49, 2048), (0,), keep=False))
    net = Net()
    yield "transposition", net.graph(net.b.unary("neg", net.b.transpose(net.x(512, 512), (1, 0))))
    net = Net()
    depthwise = ops.Conv((1, 1), (0, 0), (0, 0), (1, 1), 96, channels_last=True)
    image = net.x(1, 58, 58, 96)
    yield "depthwise", net.graph(net.b.apply(depthwise, image, net.c(96, 1, 3, 3)))
    yield "attention", attention_graph(12, 200, 64)
    net = Net()
    yield "sweep", net.graph(net.b.unary("tanh", net.x(1024, 1024)))


def products(body):
    """How many products of tensor cores one thread's code has, loops unrolled as stated."""
    count = 0
    for stmt in body:
        inner = products(getattr(stmt, "body", ()))
        unrolled = isinstance(stmt, For) and stmt.kind is Kind.UNROLLED
        count += isinstance(stmt, Mma) + inner * (stmt.extent if unrolled else 1)
    return count


@pytest.mark.slow
@pytest.mark.parametrize("depth", [16, 64])
@pytest.mark.parametrize("precision", ["tf32", "f16"])
def test_no_product_is_lost(precision, depth):
    """Neither where sums start as literals in the same block, nor where they come from a loop."""
    target = replace(cuda_target("sm_80"), precision=precision)
    net = Net()
    product = net.graph(net.b.apply(ops.Dot(), net.x(128, depth), net.c(depth, 128)))
    graphs = (product, attention_graph(2, 70, 16))
    for kernel in (kernel for graph in graphs for kernel in lowered(graph, target).kernels()):
        if "copy" not in kernel.name:  # of attention's operands, to 16 bits
            text = ptx_module([kernel], "sm_80")
            assert text.count("mma.sync") == products(kernel.body) > 0


@pytest.mark.slow
@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("precision", ["f32", "tf32", "f16", "bf16"])
def test_families_do_not_spill(precision, arch, tmp_path):
    kernels = []
    for name, graph in family_graphs():
        target = replace(cuda_target(arch), precision=precision)
        for kernel in lower(fuse(graph), target, name).kernels():
            kernels.append(replace(kernel, name=f"{name}_{kernel.name}".replace(" ", "_")))
    found = resources(ptx_module(kernels, arch), arch, tmp_path)
    assert len(found) == len(kernels) >= 14
    for name, (registers, stack, spill) in found.items():
        assert (stack, spill) == (0, 0) and registers <= 255, name


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["tf32", "f16"])
def test_the_largest_tiles_do_not_spill(precision, tmp_path, monkeypatch):
    """Each row of a convolution's tile has an address of its own."""
    net = Net()
    x = net.b.unary("abs", net.x(8, 30, 30, 64))
    op = ops.Conv((1, 1), (0, 0), (0, 0), (1, 1), 1, channels_last=True)
    y = net.b.binary("add", net.b.apply(op, x, net.c(256, 64, 3, 3)), net.c(256))
    graph = net.graph(net.b.unary("tanh", net.b.binary("add", y, net.x(*y.shape))))
    chunk = 128 // KINDS[precision].dtype.size_bytes
    kernels = []
    for shape in [shape for shape in TENSOR_TILES if shape[0] * shape[1] >= 128 * 128]:
        choice = TensorChoice(GpuTile(*shape, chunk, precision, stages=3), False)
        monkeypatch.setattr(tensor_contract, "choose_tensor_tile", lambda _, c=choice: c)
        target = replace(cuda_target("sm_80"), precision=precision)
        found = lower(fuse(graph), target, "net").kernels()
        kernels += [replace(k, name=f"k{len(kernels)}") for k in found if "block" in k.recipe]
    assert len(kernels) >= 4
    found = resources(ptx_module(kernels, "sm_80"), "sm_80", tmp_path)
    assert all((stack, spill) == (0, 0) for _, stack, spill in found.values())


@pytest.mark.parametrize("arch", ARCHS)
def test_assembler_takes_it_without_spills(arch, tmp_path):
    net = Net()
    y = net.b.unary("exp", net.x(6, 40))
    net.out(net.b.reduce("sum", y, (1,), keep=False))
    kernels = [*lowered(net.graph(y), cuda_target("sm_80")).kernels(), shared_kernel()]
    found = resources(ptx_module(kernels, arch), arch, tmp_path)
    assert set(found) == {kernel.name for kernel in kernels}
    assert all(spill == 0 for _, _, spill in found.values())
