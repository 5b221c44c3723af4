"""Products of warpgroups and copies by tensor maps as instructions: what ptxas says of them."""

import re
import subprocess

import numpy as np
import pytest
from gpu_code import Machine
from graph_runs import BASE, runs_here
from test_ptx import ptxas
from warpgroup_kernels import Product, operands, without

from aotc.codegen.ptx import ptx_module
from aotc.errors import VerifyError
from aotc.loop.eval import run_kernel
from aotc.loop.ir_async import WgmmaFence, WgmmaWait
from aotc.target import cuda_target

SIDE = (512, 512, 1024)
PRODUCTS = {
    "wide": Product("f16", SIDE, (128, 256)),
    "high": Product("bf16", SIDE, (256, 128)),
    "tf32": Product("tf32", SIDE, (128, 256)),
    "across": Product("bf16", SIDE, (128, 256), across=True),
    "held": Product("tf32", SIDE, (128, 256), stages=3, held=True),
    "both": Product("f16", SIDE, (128, 192), stages=3, held=True, across=True),
}


def assembled(kernel, folder):
    """What ptxas prints of a kernel for sm_90a."""
    source = folder / "module.ptx"
    source.write_text(ptx_module([kernel], "sm_90a"))
    command = [ptxas(), "-v", "-arch=sm_90a", str(source), "-o", str(folder / "module.cubin")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def expect_clean(report):
    """No spills, and nothing that the assembler says of products: that it waits for them at once,
    or puts in a fence or a wait."""
    spills = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores", report)
    assert spills == [("0", "0")]
    assert "C75" not in report and "erformance" not in report and "injected" not in report


@pytest.mark.parametrize(
    "name", [n if n == "wide" else pytest.param(n, marks=pytest.mark.slow) for n in PRODUCTS]
)
def test_assembler_leaves_products_under_way(name, tmp_path):
    expect_clean(assembled(PRODUCTS[name].kernel(), tmp_path))


@pytest.mark.parametrize(("kind", "numbers"), [(WgmmaFence, [0]), (WgmmaWait, [1])])
def test_the_assembler_would_complain(kind, numbers, tmp_path):
    product = Product("f16", (64, 64, 128), (64, 64), groups=1, stages=2)
    with pytest.raises(AssertionError):
        expect_clean(assembled(without(product.kernel(), kind, numbers), tmp_path))


CODE = {
    "wide": Product("f16", (130, 250, 136), (128, 256), stages=2),
    "high": Product("bf16", (256, 128, 136), (256, 128), stages=2),
    "tf32": Product("tf32", (64, 72, 100), (64, 64), groups=1, stages=2),
    "across": Product("bf16", (128, 136, 200), (128, 128), stages=3, across=True),
    "held": Product("tf32", (64, 16, 96), (64, 16), groups=1, stages=3, held=True),
    "both": Product("f16", (64, 72, 136), (64, 128), groups=1, stages=3, held=True, across=True),
}


@pytest.mark.slow
@pytest.mark.requires_cc
@pytest.mark.skipif(not runs_here(BASE), reason="needs x86-64 with AVX2 and FMA")
@pytest.mark.parametrize("name", CODE)
def test_code_gives_the_bytes_of_the_evaluator(name, tmp_path):
    kernel = CODE[name].kernel()
    a, b, wanted = operands(CODE[name])
    evaluated, found = np.zeros((2, wanted.size), np.float32)
    run_kernel(kernel, [a, b, evaluated])
    Machine([kernel], cuda_target("sm_90a"), tmp_path).run(kernel, [a, b, found])
    assert np.array_equal(evaluated, found)
    np.testing.assert_allclose(found.reshape(wanted.shape), wanted, rtol=0, atol=2e-5)


def test_maps_are_operands_by_value():
    product = Product("f16", (64, 64, 128), (64, 64), groups=1, stages=2)
    text = ptx_module([product.kernel()], "sm_90a")
    head = text[text.index(".entry") : text.index(")", text.index(".entry"))]
    operands = re.findall(r"\.param [^,\n]*", head)
    assert len(operands) == 5
    assert all(".align 64 .b8" in operand and "[128]" in operand for operand in operands[3:])
    # copies take the address of the operand: nothing of it is read or copied
    maps = re.findall(r"mov\.b64\s+(%rd\d+), product_param_[34];", text)
    assert len(maps) == 2 and ".local" not in text and "st.param" not in text
    for name in maps:
        assert re.findall(rf"\S+(?=\s+%rd\d+, {name};)", text) == ["cvta.param.u64"]
    assert ".extern .shared .align 1024" in text


def test_coordinates_are_innermost_first():
    product = Product("f16", (64, 64, 192), (64, 64), groups=1, stages=3)
    text = ptx_module([product.kernel()], "sm_90a")
    copies = re.findall(r"complete_tx::bytes \[%r\d+\], \[%rd\d+, \{(%r\d+), %r\d+\}\]", text)
    first = [re.findall(rf"mov\.b32\s+{name}, (\d+);", text) for name in copies]
    # the first two stages, at depths of 0 and 64
    assert first[:4] == [["0"], ["0"], ["64"], ["64"]]


def test_signals_are_fenced_once():
    product = Product("f16", (64, 64, 320), (64, 64), groups=1, stages=4)
    text = ptx_module([product.kernel()], "sm_90a")
    assert text.count("mbarrier.init") == 4
    start, end = text.rindex("mbarrier.init"), text.index("bar.sync")
    for fence in ("fence.mbarrier_init.release.cluster;", "fence.proxy.async.shared::cta;"):
        assert text.count(fence) == 1 and start < text.index(fence) < end


def test_factors_are_described():
    product = Product("f16", (64, 64, 128), (64, 64), groups=1, stages=2)
    text = ptx_module([product.kernel()], "sm_90a")
    # 128 bytes swizzled, groups of 8 rows 1024 bytes apart, the leading distance of no meaning
    assert str(1 << 62 | 64 << 32 | 1 << 16) in text
    assert "m64n64k16.f32.f16.f16" in text and "1, 1, 1, 0, 0;" in text
    across = Product("f16", (64, 128, 128), (64, 128), groups=1, stages=2, across=True)
    text = ptx_module([across.kernel()], "sm_90a")
    # blocks of 64 columns are a tile of 64 rows of 128 bytes apart
    assert str(1 << 62 | 64 << 32 | 512 << 16) in text and "1, 1, 1, 0, 1;" in text


@pytest.mark.parametrize("arch", ["sm_80", "sm_100"])
def test_other_architectures(arch):
    product = Product("f16", (64, 64, 128), (64, 64), groups=1, stages=2)
    with pytest.raises(VerifyError, match=f"instructions of sm_90a, and is compiled for {arch}"):
        ptx_module([product.kernel()], arch)
