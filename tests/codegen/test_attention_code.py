"""Code of attention: everything stays in registers, and it gives the bytes of the evaluator."""

from dataclasses import replace

import numpy as np
import pytest
from gpu_code import Machine
from graph_runs import BASE, Net, assert_same_bytes, inputs_of, lowered, runs_here
from test_ptx import resources

import aotc.loop.eval
import aotc.lower.gpu.attention_match
from aotc.codegen.ptx import ptx_module
from aotc.fuse.groups import fuse
from aotc.graph import ops
from aotc.loop.eval import run_program
from aotc.lower.program import lower
from aotc.schedule.attention import AttentionTile
from aotc.target import cuda_target

#: Heads, queries, keys and width: many, as many as an encoder has, and one after many keys.
SIZES = (
    *((16, 4096, 4096, width) for width in (64, 128, 256)),
    (12, 197, 197, 64),
    (12, 1, 2000, 128),
)


def attention(heads, rows, keys, width, causal=False):
    """With a mask over keys, or a triangle."""
    net = Net()
    q, k, v = net.x(heads, rows, width), net.x(heads, keys, width), net.x(heads, keys, width)
    x = net.b.apply(ops.Dot(), q, net.b.transpose(k, (0, 2, 1)))
    hidden = np.where(np.tri(rows, keys, dtype=bool), 0, -1e9).astype(np.float32)
    mask = net.b.constant(hidden) if causal else net.x(heads, 1, keys)
    x = net.b.binary("add", x, mask)
    y = net.b.unary("exp", net.b.binary("sub", x, net.b.reduce("max", x, (2,), keep=True)))
    y = net.b.binary("div", y, net.b.reduce("sum", y, (2,), keep=True))
    return net.graph(net.b.apply(ops.Dot(), y, v))


def kernels(arch, kind, sizes):
    """The kernels of attentions, under distinct names."""
    target = replace(cuda_target(arch), precision=kind)
    made = []
    for heads, rows, keys, width in sizes:
        causal = rows == keys < 1000
        program = lower(fuse(attention(heads, rows, keys, width, causal)), target, "net")
        made += [kernel for kernel in program.kernels() if "attention" in kernel.name]
    return [replace(kernel, name=f"k{number}") for number, kernel in enumerate(made)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "kind"), [("sm_80", "f16"), ("sm_80", "tf32"), ("sm_90a", "f16"), ("sm_90a", "bf16")]
)
def test_nothing_spills(arch, kind, tmp_path):
    made = kernels(arch, kind, SIZES if kind == "f16" else SIZES[::2])
    found = resources(ptx_module(made, arch), arch, tmp_path)
    assert len(found) == len(made)
    for name, (registers, stack, spill) in found.items():
        assert (stack, spill) == (0, 0) and registers <= 255, name


@pytest.mark.slow
def test_queries_are_loaded_once_and_scores_stay_where_they_are(tmp_path):
    """The benchmark: instructions of one step of 32 rows and 64 keys of a warp."""
    (kernel,) = kernels("sm_80", "f16", SIZES[:1])
    ptx = ptx_module([kernel], "sm_80")
    # 32 products for scores, 32 for sums and 4 for totals, for each 16 rows
    assert ptx.count("mma.sync") == 2 * (32 + 32 + 4)
    # keys in four steps of four pairs, values alike; queries in four steps of two fragments
    assert ptx.count("ldmatrix.sync.aligned.m8n8.x4.shared") == 16 + 8
    assert ptx.count("ldmatrix.sync.aligned.m8n8.x4.trans") == 16
    assert ptx.count("cvt.rn.f16x2.f32") == 32 and "ld.local" not in ptx


@pytest.mark.slow
@pytest.mark.skipif(not runs_here(BASE), reason="needs x86-64 with AVX2 and FMA")
@pytest.mark.parametrize(
    ("kind", "causal", "rows", "tile"),
    [
        ("f16", True, 40, AttentionTile(2, 1, 1, 16, 3, 1, keeps=False)),
        ("bf16", False, 5, AttentionTile(1, 1, 2, 32, 2, 3)),
    ],
)
def test_code_gives_the_bytes_of_the_evaluator(kind, causal, rows, tile, tmp_path, monkeypatch):
    """Stages, a triangle, parts and splits; tests/codegen/test_gpu_code.py has the chosen tiles."""
    monkeypatch.setattr(aotc.lower.gpu.attention_match, "choose_attention", lambda _: tile)
    target = replace(cuda_target("sm_80"), precision=kind)
    graph = attention(1, rows, 90, 24, causal)
    program, inputs = lowered(graph, target), inputs_of(graph)
    wanted = run_program(program, inputs)
    machine = Machine(program.kernels(), target, tmp_path)
    monkeypatch.setattr(aotc.loop.eval, "run_kernel", machine.run)
    assert_same_bytes(run_program(program, inputs), wanted)
    assert machine.launched == len(program.calls)
