"""``aotc profile``: what it prints, draws and refuses, and that it counts what kernels do."""

import json
import xml.etree.ElementTree as ElementTree

import pytest
from small_models import save_good

from aotc.cli import main
from aotc.debug.count import count_bytes, count_flop
from aotc.graph.types import DType
from aotc.loop.ir import Buffer, Fma, For, Kernel, Kind, Load, Store, Var


@pytest.fixture
def model(tmp_path):
    return str(save_good(tmp_path / "good.onnx"))


@pytest.mark.slow
def test_json_and_picture(model, tmp_path, capsys):
    picture = tmp_path / "roof.svg"
    assert main(["profile", model, "--json", "--svg", str(picture)]) == 0
    report = json.loads(capsys.readouterr().out)
    kernels, total = report["kernels"], report["total"]
    assert total["kernels"] == len(kernels) > 0
    assert total["flop"] == sum(kernel["flop"] for kernel in kernels) > 0
    assert sum(kernel["share"] for kernel in kernels) == pytest.approx(1, abs=0.01)
    assert [k["us"] for k in kernels] == sorted((k["us"] for k in kernels), reverse=True)
    assert report["peak_gflops"] > 0 and report["bandwidth_gbs"] > 0
    root = ElementTree.fromstring(picture.read_text())
    assert len(root.findall("{*}circle")) == sum(kernel["flop"] > 0 for kernel in kernels)


@pytest.mark.slow
def test_top_keeps_the_totals(model, capsys):
    assert main(["profile", model, "--top", "1"]) == 0
    heading, _, total, machine = capsys.readouterr().out.splitlines()
    assert heading.startswith("kernel") and total.startswith("total")
    assert "GFLOP/s" in machine


@pytest.mark.parametrize("flags", [["--top", "0"], ["--input", "nobody=x.npy"], ["--svg", "/"]])
def test_errors_have_a_remedy(model, flags, capsys):
    assert main(["profile", model, *flags]) == 2
    assert "remedy" in capsys.readouterr().err


def test_counts_active_lanes_and_each_byte_once():
    source, out = Buffer("x", DType.F32, 5), Buffer("y", DType.F32, 5)
    lane, step = Var("v"), Var("t")
    value = Load(source, lane)
    fused = Store(out, lane, Fma(value, value, value))
    vector = For(lane, 5, (fused,), Kind.VECTOR, 8)
    kernel = Kernel("k", (source, out), frozenset({out}), (For(step, 3, (vector,)),))
    assert count_flop(kernel) == 2 * 5 * 3
    assert count_bytes(kernel) == 2 * 5 * 4
