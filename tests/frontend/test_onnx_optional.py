"""Optional values: known to be there, known to be absent, or known at run time only."""

import numpy as np
import pytest
from text_models import compiled, interpreted, same, saved

from aotc.errors import ModelError, UsageError
from aotc.frontend.onnx_reader import import_onnx

X = np.arange(6, dtype=np.float32).reshape(2, 3)

MADE = """g (bool c, float[2,3] x) => (float[2,3] y, bool h, optional(float[2,3]) o) {
    o = If (c) <
        then_branch = t () => (optional(float[2,3]) a) { a = Optional(x) },
        else_branch = e () => (optional(float[2,3]) b) { b = Optional <type = float[2,3]> () }>
    h = OptionalHasElement(o)
    y = If (h) <
        then_branch = t2 () => (float[2,3] a2) { a2 = OptionalGetElement(o) },
        else_branch = e2 () => (float[2,3] b2) { b2 = Neg(x) }>
}"""

GIVEN = """g (optional(float[2,3]) o, float[2,3] x) => (float[2,3] y, optional(float[2,3]) z) {
    h = OptionalHasElement(o)
    y = If (h) <
        then_branch = t2 () => (float[2,3] a2) { a2 = OptionalGetElement(o) },
        else_branch = e2 () => (float[2,3] b2) { b2 = Neg(x) }>
    z = Identity(o)
}"""


@pytest.mark.parametrize("run", [interpreted, compiled])
@pytest.mark.parametrize("condition", [True, False])
def test_a_value_that_a_branch_may_leave_out(condition, run, tmp_path):
    inputs = {"c": np.array(condition), "x": X}
    wanted = [X if condition else -X, np.array(condition), X if condition else None]
    same(run(saved(MADE, tmp_path, opset=18), inputs), wanted)


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("value", [X + 1, None])
def test_an_optional_input(value, fixed, tmp_path):
    path = saved(GIVEN, tmp_path, opset=18)
    options = {} if fixed else {"input_shapes": {}}
    wanted = [-X if value is None else value, value]
    same(interpreted(path, {"o": value, "x": X}, **options), wanted)


def test_presence_at_run_time_is_a_parameter(tmp_path):
    path = saved(GIVEN, tmp_path, opset=18)
    names = [name for name, _ in import_onnx(path).graph.outputs]
    assert names == ["y", "z", "z_present"]
    assert import_onnx(path).ports.inputs[0].present == "o_present"
    assert len(import_onnx(path, input_shapes={"o": None}).graph.inputs) == 1


def test_a_value_that_the_code_was_not_made_for(tmp_path):
    path = saved(GIVEN, tmp_path, opset=18)
    with pytest.raises(UsageError, match="'o' is given, but the model is compiled for the other"):
        interpreted(path, {"o": X, "x": X}, input_shapes={"o": None})
    with pytest.raises(UsageError, match="'o' is missing, but the model is compiled"):
        interpreted(path, {"o": None, "x": X}, input_shapes={"o": (2, 3)})


TAKES = "g (optional(float[2,3]) o) => (float[2,3] y) { y = OptionalGetElement(o) }"


def test_an_absent_value_that_is_taken(tmp_path):
    path = saved(TAKES, tmp_path, opset=18)
    with pytest.raises(ModelError, match="takes the value of an optional that has none"):
        import_onnx(path, input_shapes={"o": None})
    with pytest.raises(UsageError, match="needs an optional value that is absent"):
        interpreted(path, {"o": None}, input_shapes={})


@pytest.mark.parametrize("bounds", [{}, {"s": 3}])
def test_an_optional_sequence(bounds, tmp_path):
    text = """g (optional(seq(float[2,3])) s) => (seq(float[2,3]) y, bool h) {
        y = OptionalGetElement(s)
        h = OptionalHasElement(s)
    }"""
    path = saved(text, tmp_path, opset=18)
    options = {"bounds": bounds, "input_shapes": {}} if bounds else {}
    same(interpreted(path, {"s": [X, -X]}, **options), [[X, -X], np.array(True)])


@pytest.mark.parametrize("operand", ["x", "", "s"])
def test_whatever_is_no_optional_is_there(operand, tmp_path):
    text = f"""g (float[2,3] x, seq(float[2,3]) s) => (bool h) {{
        h = OptionalHasElement({operand})
    }}"""
    found = interpreted(saved(text, tmp_path, opset=18), {"x": X, "s": [X]})
    same(found, [np.array(operand != "")])
