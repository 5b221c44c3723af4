"""Saved models: read back they compute the same, are valid ONNX, and ONNX Runtime runs them."""

import doctest

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented

import aotc
from aotc.export import onnx_file
from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.eval import evaluate
from aotc.graph.types import DType, TensorType, TupleType
from tests.graph.graph_cases import APPLICATIONS, random_values
from tests.tracing.drawn_programs import differences
from tests.tracing.drawn_programs import programs as drawn_programs
from tests.tracing.programs import programs

PROGRAMS = {program.name: program for program in programs()}
KINDS = [kind for kind in APPLICATIONS if kind is not ops.Item]
QUICK = settings(max_examples=3, deadline=None, suppress_health_check=list(HealthCheck))
LONG = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def through_file(graph, folder):
    """The graph written, checked and read."""
    path = folder / "model.onnx"
    aotc.save_onnx(graph, path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    return aotc.load_onnx(path), model


def assert_same(found, expected, exact=True):
    """Equal bytes, but for the bits of NaN; a few roundings where an order of adding is not
    kept."""
    assert list(found) == list(expected)
    for name, wanted in expected.items():
        got = found[name]
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
        if DType.of(wanted).is_float:
            got, wanted = got.astype(np.float64), wanted.astype(np.float64)
            tolerance = 0 if exact else 1e-5
            np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=0)
            if exact:
                number = ~np.isnan(wanted)
                np.testing.assert_array_equal(np.signbit(got)[number], np.signbit(wanted)[number])
        else:
            # the spare bits of short integers mean nothing
            got, wanted = (x.astype(DType.of(x).machine.numpy) for x in (got, wanted))
            np.testing.assert_array_equal(got, wanted)


def application(kind, data):
    """A graph of one primitive, on inputs and constants."""
    op, types = data.draw(APPLICATIONS[kind]())
    builder, operands, inputs = Builder(), [], {}
    for place, type_ in enumerate(types):
        values = random_values(type_, data.draw(st.integers(0, 9)))
        if data.draw(st.booleans()):
            operands.append(builder.constant(values))
        else:
            operands.append(builder.parameter(f"in{place}", type_))
            inputs[f"in{place}"] = values
    made = builder.apply(op, *operands)
    count = len(made.type.items) if isinstance(made.type, TupleType) else 0
    items = [builder.apply(ops.Item(index), made) for index in range(count)] or [made]
    return builder.finish("one", [(f"out{i}", node) for i, node in enumerate(items)]), inputs


def check_kind(kind, data, folder):
    graph, inputs = application(kind, data)
    expected = evaluate(graph, inputs)
    if any(sum(np.shape(value)) > 10**6 for value in expected.values()):
        return
    read, _ = through_file(graph, folder)
    found = evaluate(read, {name: inputs[name] for name in inputs})
    if kind is ops.Relabel:
        (made,) = (node for _, node in graph.outputs)
        bits = min(node.type.dtype.size_bits for node in (made, made.inputs[0]))
        if bits < 8:  # the spare ones mean nothing
            found, expected = (
                {name: x.view(np.uint8) & ((1 << bits) - 1) for name, x in values.items()}
                for values in (found, expected)
            )
    exact = kind is not ops.ReduceWindow
    assert_same(found, expected, exact)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@QUICK
@given(data=st.data())
def test_each_primitive(kind, data, tmp_path_factory):
    check_kind(kind, data, tmp_path_factory.mktemp("one"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@LONG
@given(data=st.data())
def test_each_primitive_at_length(kind, data, tmp_path_factory):
    check_kind(kind, data, tmp_path_factory.mktemp("one"))


@pytest.mark.parametrize(
    "name",
    [name if name in ("iir", "nms") else pytest.param(name, marks=pytest.mark.slow)
     for name in PROGRAMS],
)
def test_the_twelve_programs(name, tmp_path):
    program = PROGRAMS[name]
    graph = aotc.trace(program.traced, *program.inputs, name=name)
    names = [node.op.name for node in graph.inputs]
    inputs = dict(zip(names, map(np.asarray, program.inputs), strict=True))
    expected = evaluate(graph, inputs)
    read, model = through_file(graph, tmp_path)
    assert_same(evaluate(read, inputs), expected)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for found, wanted in zip(session.run(None, inputs), expected.values(), strict=True):
        scale = np.abs(wanted).max() if wanted.dtype.kind == "f" else 0
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * scale)


@pytest.mark.slow
@LONG
@given(program=drawn_programs())
def test_drawn_programs(program, tmp_path_factory):
    graph = aotc.trace(program, *program.inputs)
    names = [node.op.name for node in graph.inputs]
    inputs = dict(zip(names, map(np.asarray, program.inputs), strict=True))
    read, model = through_file(graph, tmp_path_factory.mktemp("drawn"))
    assert_same(evaluate(read, inputs), evaluate(graph, inputs))
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString())
    except NotImplemented:
        return  # an operator that it has for other types only
    assert not differences(program, session.run(None, inputs))


def test_what_stops_derivatives_is_not_written(tmp_path):
    def function(x):
        return aotc.scan(lambda s, row: (s + aotc.softmax(row), s), x[0], x)[0]

    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    graph = aotc.trace(function, x)
    back, model = through_file(graph, tmp_path)
    assert model.opset_import[0].version == onnx_file.OPSET
    assert_same(evaluate(back, {"x": x}), evaluate(graph, {"x": x}))


def test_named_sizes_and_names(tmp_path):
    @aotc.function
    def scale(x: aotc.Tensor["N"], factor: aotc.Tensor[()]):  # noqa: F821
        return {"scaled": x * factor, "x": x}

    path = tmp_path / "scale.onnx"
    aotc.save_onnx(scale, path, dims={"N": 3})
    model = onnx.load(path)
    assert [info.name for info in model.graph.input] == ["x", "factor"]
    assert [info.name for info in model.graph.output] == ["out_scaled", "out_x"]
    assert model.opset_import[0].version == 21
    x = np.ones(3, np.float32)
    scaled, same = aotc.compile(path)(x, np.float32(2))
    np.testing.assert_array_equal(scaled, x * 2)
    np.testing.assert_array_equal(same, x)
    with pytest.raises(aotc.UsageError, match="'N'"):
        aotc.save_onnx(scale, path)


def test_a_model_saved_again(tmp_path):
    """Twice through a file is once."""
    graph = aotc.trace(lambda x: np.sum(x * 2, axis=0) % 3, np.ones((2, 3), np.int32))
    once, _ = through_file(graph, tmp_path)
    twice, _ = through_file(once, tmp_path)
    x = np.arange(6, dtype=np.int32).reshape(2, 3)
    assert_same(evaluate(twice, {"x": x}), evaluate(graph, {"x": x}))


def test_large_constants_go_beside_the_model(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "LARGE", 1000)
    weights = np.arange(4096, dtype=np.float32)
    graph = aotc.trace(lambda x: x * weights, aotc.spec(4096))
    path = tmp_path / "large.onnx"
    aotc.save_onnx(graph, path)
    assert (tmp_path / "large.onnx.data").stat().st_size >= weights.nbytes
    assert path.stat().st_size < 2000
    x = np.full(4096, 2, np.float32)
    found = evaluate(aotc.load_onnx(path), {"x": x})
    np.testing.assert_array_equal(next(iter(found.values())), 2 * weights)


def test_what_cannot_be_saved(tmp_path):
    graph = aotc.trace(lambda x: x, aotc.spec(3))
    with pytest.raises(aotc.UsageError, match="cannot write the file"):
        aotc.save_onnx(graph, tmp_path / "none" / "x.onnx")
    builder = Builder()
    x = builder.parameter("x", TensorType(DType.BOOL, ()))
    builder.check(x, "x must hold")
    with pytest.raises(aotc.UnsupportedError, match="run time"):
        aotc.save_onnx(builder.finish("checked", [("y", x)]), tmp_path / "x.onnx")


def test_the_example_of_the_docstring_runs():
    result = doctest.testmod(onnx_file)
    assert result.attempted and not result.failed
