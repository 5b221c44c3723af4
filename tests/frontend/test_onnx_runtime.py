"""Operands that are inputs although ONNX would let a shape or an axis depend on them."""

import numpy as np
import pytest
from onnx import helper
from onnx_cases import Const, case, check, f32, model_of, save

from aotc.errors import ModelError, UnsupportedError
from aotc.frontend.onnx_reader import load_onnx
from aotc.graph.eval import evaluate


def number(value, dtype=np.int64):
    return np.asarray(value, dtype=dtype)


CASES = [
    *(case("Trilu", 14, f32(2, 3, 5), number(k), upper=k % 2) for k in (-9, -1, 0, 2, 3, 2**40)),
    *(
        case("CumSum", 14, f32(2, 3, 4), number(axis), exclusive=exclusive, reverse=1 - exclusive)
        for axis in (-3, 0, 1, 2)
        for exclusive in (0, 1)
    ),
    *(
        case("CumProd", 26, f32(2, 7, 4), axis, exclusive=e, reverse=r, oracle="onnx")
        for axis in (number(1), Const(number(-1)))
        for e in (0, 1)
        for r in (0, 1)
    ),
    case("CumProd", 26, f32(2, 0), number(1), oracle="onnx"),
    case("CumProd", 26, f32(2, 1), number(1), exclusive=1, oracle="onnx"),
    case("OneHot", 11, number([1, -1, 9]), Const(number(4.0, np.float32)), f32(2)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_the_reference(case, tmp_path):
    check(case, tmp_path)


def graph_of(op, feeds, declared, folder, **attrs):
    """The imported graph of one node whose result is declared to have some shape."""
    model = model_of([helper.make_node(op, list(feeds), ["y"], **attrs)], feeds, ["y"], opset=18)
    if declared is not None:
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, declared))
    return load_onnx(save(model, folder))


ONE_HOT = {"i": number([0, 2]), "depth": number(3), "values": f32(2)}


def test_a_size_comes_from_the_declared_shape_and_is_checked_in_the_run(tmp_path):
    graph = graph_of("OneHot", ONE_HOT, (2, 3), tmp_path)
    assert evaluate(graph, ONE_HOT)["y"].shape == (2, 3)
    ((sentence, condition),) = graph.checks
    assert "its depth must be 3" in sentence
    assert condition.type.shape == ()


def test_without_a_declared_shape_the_size_must_be_known(tmp_path):
    with pytest.raises(UnsupportedError, match="its depth"):
        graph_of("OneHot", ONE_HOT, None, tmp_path)


def test_an_axis_at_run_time_is_checked(tmp_path):
    graph = graph_of("CumSum", {"x": f32(2, 3), "axis": number(0)}, None, tmp_path)
    assert "one of 0, 1" in graph.checks[0][0]


def test_a_scalar_has_no_axis(tmp_path):
    with pytest.raises(ModelError, match="at least one axis"):
        graph_of("CumSum", {"x": f32(), "axis": number(0)}, None, tmp_path)
