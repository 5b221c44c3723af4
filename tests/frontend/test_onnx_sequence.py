"""Sequences against ONNX Runtime: positions known or not, pieces, joins, maps."""

import numpy as np
import pytest
from text_models import agrees, compiled, interpreted, same, saved

from aotc.errors import AotcError, ModelError, UnsupportedError, UsageError
from aotc.frontend.onnx_reader import import_onnx
from aotc.graph.eval import evaluate

X = np.arange(6, dtype=np.float32).reshape(2, 3)
ITEMS = [X[:1], X, X[1:] + 1]
LONG = np.arange(21, dtype=np.float32).reshape(7, 3)
AT = "g (seq(float[?,3]) s, int64 p) => (float[?,3] y) { y = SequenceAt(s, p) }"


def position(place):
    return np.array(place, np.int64)


@pytest.mark.parametrize("place", [0, 2, -1, -3])
def test_positions_at_run_time(place, tmp_path):
    inputs = {"s": ITEMS, "p": position(place)}
    agrees(AT, tmp_path, inputs)
    erase = "g (seq(float[?,3]) s, int64 p) => (seq(float[?,3]) y) { y = SequenceErase(s, p) }"
    agrees(erase, tmp_path, inputs)
    insert = """g (seq(float[?,3]) s, float[2,3] x, int64 p) => (seq(float[?,3]) y) {
        y = SequenceInsert(s, x, p)
    }"""
    agrees(insert, tmp_path, {**inputs, "x": X + 9}, native=place == 2)


@pytest.mark.parametrize("place", [0, 1, -1, 3])
def test_positions_that_are_constants(place, tmp_path):
    text = f"""g (seq(float[?,3]) s, float[2,3] x) => (seq(float[?,3]) y, int64 n, float[?,3] z) {{
        p = Constant <value = int64 {{{place}}}> ()
        q = SequenceInsert(s, x, p)
        y = SequenceErase(q, p)
        n = SequenceLength(q)
        z = SequenceAt(q, p)
    }}"""
    found = agrees(text, tmp_path, {"s": ITEMS, "x": X + 9})
    assert found[1] == 4
    imported = import_onnx(saved(text, tmp_path), input_shapes={"s": ((1, 3), (2, 3), (1, 3))})
    assert not imported.graph.checks


def test_the_end_is_meant_where_no_position_is_given(tmp_path):
    text = """g (seq(float[?,3]) s, float[2,3] x) => (seq(float[?,3]) y, seq(float[?,3]) z) {
        y = SequenceInsert(s, x)
        z = SequenceErase(s)
    }"""
    agrees(text, tmp_path, {"s": ITEMS, "x": X})


@pytest.mark.parametrize("place", [3, -4])
def test_a_position_outside_fails_at_run_time(place, tmp_path):
    path = saved(AT, tmp_path)
    with pytest.raises(UsageError, match="'SequenceAt_y' needs a position inside"):
        interpreted(path, {"s": ITEMS, "p": position(place)})
    with pytest.raises(AotcError, match="outside the bounds"):
        compiled(path, {"s": ITEMS, "p": position(place)})


@pytest.mark.parametrize(
    ("node", "items", "words"),
    [
        ("p = Constant <value_int = 3> () y = SequenceAt(s, p)", 3, "outside a sequence of 3"),
        ("p = Constant <value_int = 0> () y = SequenceAt(s, p)", 0, "outside a sequence of 0"),
        ("y = ConcatFromSequence <axis = 0> (s)", 0, "without elements"),
        ("y = SequenceAt(x, n)", 1, "input 0 must be a sequence, is a tensor"),
        ("y = SequenceInsert(s, s)", 1, "input 1 must be a tensor, is a sequence"),
        ("q = Cast <to = 1> (n) y = SequenceAt(s, q)", 1, "position must be one whole number"),
        ("y = Neg(s)", 1, "input 0 is a sequence, which Neg is not compiled for"),
        ("y = SplitToSequence <axis = 4> (x)", 1, "axis 4 is outside"),
        ("k = Constant <value_ints = [1, 3]> () y = SplitToSequence(x, k)", 1, "do not make"),
        ("k = Constant <value_int = 0> () y = SplitToSequence(x, k)", 1, "pieces of 0"),
    ],
)
def test_what_cannot_be_is_refused(node, items, words, tmp_path):
    text = f"g (seq(float[2,3]) s, float[2,3] x, int64 n) => (float[?,3] y) {{ {node} }}"
    with pytest.raises((ModelError, UnsupportedError), match=words):
        import_onnx(saved(text, tmp_path), input_shapes={"s": ((2, 3),) * items})


def test_elements_of_different_ranks_at_one_position_are_refused(tmp_path):
    text = "g (seq(float) s, int64 p) => (float[?] y) { y = SequenceAt(s, p) }"
    path = saved(text, tmp_path)
    with pytest.raises(UnsupportedError, match=r"float32\[4\] on one way .* float32\[2,2\]"):
        import_onnx(path, input_shapes={"s": ((2, 2), (4,))})


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("step", [1, 2, 3, 7, 9])
def test_pieces_of_one_size_known_at_run_time(axis, step, tmp_path):
    data = LONG if axis == 0 else LONG.T.copy()
    dims = ",".join(map(str, data.shape))
    text = f"""g (float[{dims}] x, int64 k) => (seq(float[?,?]) y, int64 n) {{
        y = SplitToSequence <axis = {axis}> (x, k)
        n = SequenceLength(y)
    }}"""
    agrees(text, tmp_path, {"x": data, "k": position(step)})


@pytest.mark.parametrize("sizes", [[3, 0, 4], [7, 0, 0], [0, 1, 6]])
def test_pieces_of_sizes_known_at_run_time_join_again(sizes, tmp_path):
    text = """g (float[7,3] x, int64[3] k) => (seq(float[?,3]) q, float[?,3] y) {
        q = SplitToSequence <axis = 0> (x, k)
        y = ConcatFromSequence <axis = -2> (q)
    }"""
    agrees(text, tmp_path, {"x": LONG, "k": np.array(sizes)}, native=sizes[0] == 3)


def test_pieces_that_do_not_make_the_axis_fail_at_run_time(tmp_path):
    text = "g (float[7,3] x, int64[2] k) => (seq(float[?,3]) q) { q = SplitToSequence(x, k) }"
    path = saved(text, tmp_path)
    for sizes in ([3, 3], [9, -2]):
        with pytest.raises(UsageError, match="make an axis of 7"):
            interpreted(path, {"x": LONG, "k": np.array(sizes)})


@pytest.mark.parametrize("keep", [0, 1])
def test_pieces_of_one_element(keep, tmp_path):
    text = f"""g (float[7,3] x) => (seq(float[?]) y) {{
        y = SplitToSequence <axis = 1, keepdims = {keep}> (x)
    }}"""
    agrees(text, tmp_path, {"x": LONG})


@pytest.mark.parametrize("split", ["{2}", "[3]{1,2,4}"])
def test_pieces_of_constant_sizes(split, tmp_path):
    shape, values = split.split("{") if split[0] == "[" else ("", split[1:])
    text = f"""g (float[7,3] x) => (seq(float[?,3]) y) {{
        k = Constant <value = int64{shape} {{{values}> ()
        y = SplitToSequence(x, k)
    }}"""
    agrees(text, tmp_path, {"x": LONG})


@pytest.mark.parametrize("step", [2, 3, 7])
def test_a_join_of_a_run_time_number_of_pieces(step, tmp_path):
    text = """g (float[7,3] x, int64 k) => (float[?,3] y) {
        q = SplitToSequence <axis = 0> (x, k)
        y = ConcatFromSequence <axis = 0> (q)
    }"""
    agrees(text, tmp_path, {"x": LONG, "k": position(step)})


@pytest.mark.parametrize("place", [0, 2])
def test_a_join_of_elements_of_run_time_sizes(place, tmp_path):
    text = """g (seq(float[?,3]) s, float[2,3] x, int64 p) => (float[?,3] y) {
        a = SequenceInsert(s, x, p)
        b = SequenceErase(a)
        y = ConcatFromSequence <axis = 0> (b)
    }"""
    agrees(text, tmp_path, {"s": ITEMS, "x": X + 9, "p": position(place)})


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_elements_stacked_on_a_new_axis(axis, tmp_path):
    text = f"""g (seq(float[2,3]) s) => (float[?,?,?] y) {{
        y = ConcatFromSequence <axis = {axis}, new_axis = 1> (s)
    }}"""
    agrees(text, tmp_path, {"s": [X, X + 1, X * 2]})


def test_elements_that_do_not_join_are_refused(tmp_path):
    text = "g (seq(float[?,?]) s) => (float[?,?] y) { y = ConcatFromSequence <axis = 0> (s) }"
    path = saved(text, tmp_path)
    with pytest.raises(ModelError, match="2 and 3 elements on axis 1"):
        import_onnx(path, input_shapes={"s": ((1, 2), (1, 3))})


def test_a_map_over_elements_of_several_shapes(tmp_path):
    text = """g (seq(float[?,3]) s, seq(float[3]) v, float[3] x)
        => (seq(float[?,3]) y, seq(int64[2]) z) {
        y, z = SequenceMap <body = b (float[?,3] a, float[3] w, float[3] u)
            => (float[?,3] o, int64[2] h) {
            m = Add(a, w)
            o = Mul(m, u)
            h = Shape(a)
        }> (s, v, x)
    }"""
    agrees(text, tmp_path, {"s": ITEMS, "v": [X[0], X[1], X[0]], "x": X[1]})


@pytest.mark.parametrize("step", [2, 4, 6])
def test_a_map_over_a_run_time_number_of_elements(step, tmp_path):
    text = """g (float[6,3] x, int64 k) => (seq(float[?,3]) y, int64 n) {
        q = SplitToSequence <axis = 0> (x, k)
        y = SequenceMap <body = b (float[?,3] a) => (float[?,3] o) { o = Identity(a) }> (q)
        n = SequenceLength(y)
    }"""
    agrees(text, tmp_path, {"x": LONG[:6], "k": position(step)})


def test_a_map_over_sequences_of_different_lengths_is_refused(tmp_path):
    text = """g (seq(float[3]) s, seq(float[3]) v) => (seq(float[3]) y) {
        y = SequenceMap <body = b (float[3] a, float[3] w) => (float[3] o) { o = Add(a, w) }> (s, v)
    }"""
    with pytest.raises(ModelError, match="its sequences have 1 and 2 elements"):
        import_onnx(saved(text, tmp_path), input_shapes={"s": ((3,),), "v": ((3,), (3,))})


def test_a_sequence_chosen_at_run_time(tmp_path):
    text = """g (bool c, seq(float[?,3]) s, float[2,3] x) => (seq(float[?,3]) y, int64 n) {
        y = If (c) <
            then_branch = t () => (seq(float[?,3]) a) { a = SequenceInsert(s, x) },
            else_branch = e () => (seq(float[?,3]) b) { b = Identity(s) }>
        n = SequenceLength(y)
    }"""
    for condition in (True, False):
        inputs = {"c": np.array(condition), "s": ITEMS, "x": X}
        agrees(text, tmp_path, inputs, native=condition)


LENGTH = """g (seq(float[2,3]) s, float[2,3] x, int64 p)
    => (seq(float[2,3]) y, int64 n, float[2,3] z) {
    y = SequenceInsert(s, x)
    n = SequenceLength(y)
    z = SequenceAt(s, p)
}"""


@pytest.mark.parametrize("count", [1, 2, 4])
def test_an_input_of_run_time_length(count, tmp_path):
    path = saved(LENGTH, tmp_path)
    items = [X + place for place in range(count)]
    inputs = {"s": items, "x": X * 5, "p": position(-1)}
    wanted = [[*items, X * 5], np.array(count + 1), items[-1]]
    same(interpreted(path, inputs, input_shapes={}, bounds={"s": 4}), wanted)
    if count == 2:
        same(compiled(path, inputs, input_shapes={}, bounds={"s": 4}), wanted)


def test_a_length_that_lies_is_refused_at_run_time(tmp_path):
    imported = import_onnx(saved(LENGTH, tmp_path), bounds={"s": 2})
    arrays = {"s_0": X, "s_1": X, "x": X, "p": position(0), "s_length": position(3)}
    with pytest.raises(UsageError, match="'s_length' is more than 2, or negative"):
        evaluate(imported.graph, arrays)


def test_a_sequence_without_elements(tmp_path):
    text = """g (seq(float[2,3]) s) => (seq(float[2,3]) y, int64 n) {
        y = Identity(s)
        n = SequenceLength(s)
    }"""
    same(interpreted(saved(text, tmp_path), {"s": []}), [[], np.array(0)])


WORDS = np.array([["a", "bcd"], ["", "longer"], ["x", "y"]], dtype=object)


def test_pieces_of_strings_and_their_join(tmp_path):
    text = """g (string[3,2] x, int64 k) => (seq(string[?,2]) s, string[3,2] y) {
        s = SplitToSequence <axis = 0> (x, k)
        y = ConcatFromSequence <axis = 0> (s)
    }"""
    agrees(text, tmp_path, {"x": WORDS, "k": position(2)})


def test_strings_of_different_widths_in_one_sequence(tmp_path):
    text = """g (seq(string[2]) s, int64 p) => (string[2] y, string[?,2] z) {
        c = Constant <value_strings = ["much", "wider"]> ()
        q = SequenceInsert(s, c)
        y = SequenceAt(q, p)
        z = ConcatFromSequence <axis = 0, new_axis = 1> (q)
    }"""
    inputs = {"s": [WORDS[0], WORDS[1]], "p": position(2)}
    found = interpreted(saved(text, tmp_path), inputs, bounds={"s": 7})
    same(found, [np.array(["much", "wider"], object), np.array([*WORDS[:2], ["much", "wider"]])])
