"""aotc.from_torch as an interface: names, sizes, and errors that list everything."""

import re
from pathlib import Path

import numpy as np
import pytest

import aotc

torch = pytest.importorskip(
    "torch", reason="PyTorch is an optional extra: pip install 'aotc[torch]'"
)

from torch import nn  # noqa: E402

from tests.importers.torch_agreement import seeded  # noqa: E402


class Tree(nn.Module):
    def forward(self, x, options):
        return {"sum": x + options["b"][0], "parts": [x * options["a"], x]}


def test_names_follow_arguments_and_results():
    b = torch.ones(3, dtype=torch.int32)
    graph = aotc.from_torch(Tree(), (seeded(3), {"a": seeded(3), "b": [b]}), name="tree")
    assert graph.name == "tree"
    assert [node.op.name for node in graph.inputs] == ["x", "options_a", "options_b_0"]
    assert [name for name, _ in graph.outputs] == ["out_sum", "out_parts_0", "out_parts_1"]
    assert str(graph.inputs[2].type) == "int32[3]"


def test_the_graph_keeps_the_weights_of_its_export():
    layer = nn.Linear(3, 2)
    graph = aotc.from_torch(layer, (seeded(1, 3),))
    with torch.no_grad():
        wanted = layer(seeded(1, 3)).numpy()
        layer.weight.zero_()
    found = aotc.compile(graph)(seeded(1, 3).numpy())
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_symbolic_dimensions_get_sizes():
    batch = torch.export.Dim("batch", min=2, max=64)

    class Flatten(nn.Module):
        def forward(self, x):
            return x.reshape(x.shape[0] * 4) * x.shape[0]

    program = torch.export.export(Flatten(), (seeded(3, 4),), dynamic_shapes=({0: batch},))
    with pytest.raises(aotc.UsageError, match="axis 0 of 'x'") as missing:
        aotc.from_torch(program)
    symbol = missing.value.remedy.split("'")[1]
    graph = aotc.from_torch(program, dims={symbol: 5})
    assert str(graph.inputs[0].type) == "float32[5,4]"
    x = seeded(5, 4).numpy()
    np.testing.assert_allclose(aotc.compile(graph)(x), x.reshape(20) * 5, rtol=1e-6)
    with pytest.raises(aotc.UsageError, match="no dimension 'nothing'"):
        aotc.from_torch(program, dims={"nothing": 5})
    with pytest.raises(aotc.UsageError, match="does not take these sizes"):
        aotc.from_torch(program, dims={symbol: 99})


def test_everything_unsupported_is_listed_with_its_line():
    class Strange(nn.Module):
        def forward(self, x):
            noise = torch.rand(3) + torch.rand(3)
            return torch.lgamma(x) + noise, x.to(torch.complex64).real

    with pytest.raises(aotc.UnsupportedError) as caught:
        aotc.from_torch(Strange(), (seeded(3, 3),))
    text = str(caught.value)
    assert "aten.rand.default (2 times, first " in text
    assert "random numbers" in text
    assert "aten.lgamma.default (once, first " in text and "torch.lgamma(x)" in text
    assert "no element type complex64" in text


def test_a_function_is_no_module():
    with pytest.raises(aotc.UsageError, match="ExportedProgram or a module"):
        aotc.from_torch(lambda x: x, (seeded(3),))


def test_what_torch_cannot_export_is_one_error():
    class Branching(nn.Module):
        def forward(self, x):
            return x + 1 if x.sum() > 0 else x

    with pytest.raises(aotc.UnsupportedError, match="torch.export cannot export Branching"):
        aotc.from_torch(Branching(), (seeded(3),))


def test_the_example_of_the_guide_runs():
    guide = Path(__file__).resolve().parents[2] / "docs" / "python.md"
    (block,) = re.findall(r"```python torch\n(.*?)```", guide.read_text(), re.S)
    exec(compile(block, str(guide), "exec"), {"aotc": aotc, "np": np})
