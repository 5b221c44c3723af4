"""Loop and Scan against ONNX Runtime: trip counts, conditions, collected rows, directions, axes."""

import numpy as np
import pytest
from text_models import agrees, interpreted, reference, same, saved

from aotc.errors import ModelError, UnsupportedError, UsageError
from aotc.frontend.onnx_reader import check_onnx, import_onnx

X = np.arange(6, dtype=np.float32).reshape(2, 3)
ROW = X[1]


def count(number):
    return np.array(number, np.int64)


def loop(inputs, outputs, call, body, before=""):
    """A model around one Loop with the condition ``t``, constant true."""
    return f"""g ({inputs}) => ({outputs}) {{
        t = Constant <value = bool {{1}}> ()
        {before}
        {call} <body = b {body}>
    }}"""


COLLECTS = loop(
    "int64 n, float[3] x", "float[3] y, float[?,3] r", "y, r = Loop(n, t, x)",
    """(int64 i, bool c, float[3] s) => (bool go, float[3] s2, float[3] o) {
        go = Identity(c)
        f = Cast <to = 1> (i)
        s2 = Add(s, f)
        o = Mul(s2, s)
    }""",
)  # fmt: skip


@pytest.mark.parametrize("trips", [-1, 0, 1, 5, 8])
def test_rows_of_a_run_time_trip_count(trips, tmp_path):
    inputs = {"n": count(trips), "x": ROW}
    path = saved(COLLECTS, tmp_path)
    wanted = reference(path, {"n": count(max(trips, 0)), "x": ROW})
    same(interpreted(path, inputs, bounds={"r": 8}), wanted)


def test_native_code_agrees(tmp_path):
    agrees(COLLECTS, tmp_path, {"n": count(5), "x": ROW}, native=True, bounds={"r": 8})


@pytest.mark.parametrize("name", ["y", "r", "Loop_y", "*"])
def test_the_bound_has_the_name_of_the_node_of_a_result_or_of_everything(name, tmp_path):
    path = saved(COLLECTS, tmp_path)
    if name == "y":
        with pytest.raises(UnsupportedError, match="(?s)known at run time only.*--max Loop_y=N"):
            import_onnx(path, bounds={name: 4})
        return
    imported = import_onnx(path, bounds={name: 4})
    assert imported.ports.outputs[1].type.dims == (4, 3)


def test_more_iterations_than_the_bound_fail(tmp_path):
    path = saved(COLLECTS, tmp_path)
    with pytest.raises(UsageError, match="'Loop_y' needs more than 4 iterations"):
        interpreted(path, {"n": count(5), "x": ROW}, bounds={"r": 4})


def test_a_declared_number_of_rows_is_the_bound(tmp_path):
    path = saved(COLLECTS.replace("float[?,3] r", "float[4,3] r"), tmp_path)
    inputs = {"n": count(4), "x": ROW}
    same(interpreted(path, inputs), reference(path, inputs))
    with pytest.raises(UsageError, match="must have 4 elements, as declared"):
        interpreted(path, {"n": count(3), "x": ROW})


ENDS = loop(
    "float[3] x, float most", "float[3] y, int64 n", "y, n = Loop( , t, x, zero)",
    """(int64 i, bool c, float[3] s, int64 k) => (bool go, float[3] s2, int64 k2) {
        s2 = Add(s, s)
        k2 = Add(k, one)
        m = ReduceMax <keepdims = 0> (s2)
        go = Less(m, most)
    }""",
    "zero = Constant <value = int64 {0}> () one = Constant <value = int64 {1}> ()",
)  # fmt: skip


@pytest.mark.parametrize("most", [0.0, 100.0])
def test_a_condition_ends_a_loop_without_a_trip_count(most, tmp_path):
    agrees(ENDS, tmp_path, {"x": ROW, "most": np.array(most, np.float32)}, native=True)


def until(most):
    """COLLECTS with the condition that no row reaches ``most``."""
    text = COLLECTS.replace("go = Identity(c)", "")
    row = "o = Mul(s2, s)"
    text = text.replace(row, f"{row} m = ReduceMax <keepdims = 0> (o) go = Less(m, most)")
    limit = f"most = Constant <value = float {{{most}}}> ()"
    return text.replace("y, r = Loop", f"{limit} y, r = Loop")


@pytest.mark.parametrize("trips", [0, 2, 5])
def test_rows_until_the_condition_fails(trips, tmp_path):
    text = until(20.0)
    agrees(text, tmp_path, {"n": count(trips), "x": ROW}, bounds={"r": 5})


def test_a_condition_that_would_go_on_beyond_the_bound_fails(tmp_path):
    path = saved(until(1000.0), tmp_path)
    with pytest.raises(UsageError, match="more than 3 iterations"):
        interpreted(path, {"n": count(9), "x": ROW}, bounds={"r": 3})


def test_a_condition_that_fails_before_the_first_iteration(tmp_path):
    text = COLLECTS.replace("int64 n,", "int64 n, bool t2,").replace("(n, t, x)", "(n, t2, x)")
    for first in (True, False):
        inputs = {"n": count(2), "t2": np.array(first), "x": ROW}
        agrees(text, tmp_path, inputs, bounds={"r": 3})


def test_nested_loops_capture_from_both_graphs_around_them(tmp_path):
    text = loop(
        "int64 n, int64 m, float[3] x", "float[3] y", "y = Loop(n, t, x)",
        """(int64 i, bool c, float[3] s) => (bool go, float[3] s2) {
            go = Identity(c)
            h = Neg(s)
            s2 = Loop(m, t, s) <body = b2 (int64 j, bool c2, float[3] q) => (bool g2, float[3] q2) {
                g2 = Identity(c2)
                fi = Cast <to = 1> (i)
                fj = Cast <to = 1> (j)
                u = Add(fi, fj)
                v = Add(u, h)
                p = Mul(q, v)
                q2 = Add(p, x)
            }>
        }""",
    )  # fmt: skip
    agrees(text, tmp_path, {"n": count(3), "m": count(2), "x": ROW}, native=True)


def test_a_name_inside_hides_the_one_outside(tmp_path):
    text = loop(
        "int64 n, float[3] x", "float[3] y", "y = Loop(n, t, x)",
        """(int64 i, bool c, float[3] s) => (bool go, float[3] s2) {
            go = Identity(c)
            h = Add(s, x)
            s2 = Mul(h, x)
        }""",
        "h = Neg(x)",
    )  # fmt: skip
    state = ROW
    for _ in range(3):
        state = (state + ROW) * ROW
    same(interpreted(saved(text, tmp_path), {"n": count(3), "x": ROW}), [state])


def test_no_iteration_at_all(tmp_path):
    text = COLLECTS.replace("int64 n, ", "").replace(
        "y, r = Loop", "n = Constant <value = int64 {0}> () y, r = Loop"
    )
    agrees(text, tmp_path, {"x": ROW})


SCAN = """g (float[3] s0, float[3,4] x) => (float[3] y, float[3,4] z, float[3,4] w) {
    y, z, w = Scan <num_scan_inputs = 1, scan_input_axes = [%d], scan_input_directions = [%d],
        scan_output_axes = [1, -1], scan_output_directions = [%d, 1],
        body = b (float[3] s, float[3] xi) => (float[3] s2, float[3] o, float[3] o2) {
            s2 = Add(s, xi)
            o = Mul(s, xi)
            o2 = Identity(s2)
        }> (s0, x)
}"""


@pytest.mark.parametrize("axis", [1, -1])
@pytest.mark.parametrize("forth", [0, 1])
@pytest.mark.parametrize("back", [0, 1])
def test_scan_directions_and_axes(axis, forth, back, tmp_path):
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    agrees(SCAN % (axis, forth, back), tmp_path, {"s0": ROW, "x": x})


@pytest.mark.parametrize("length", [1, 2, 5])
def test_scan_of_two_operands_with_a_captured_value(length, tmp_path):
    text = f"""g (float[2] s0, float[{length},2] x, float[{length},2] v)
        => (float[2] y, float[{length},2] z) {{
        y, z = Scan <num_scan_inputs = 2,
            body = b (float[2] s, float[2] xi, float[2] vi) => (float[2] s2, float[2] o) {{
                p = Mul(xi, vi)
                s2 = Add(s, p)
                o = Mul(s2, s0)
            }}> (s0, x, v)
    }}"""
    x = np.arange(2 * length, dtype=np.float32).reshape(length, 2)
    agrees(text, tmp_path, {"s0": X[0, :2], "x": x, "v": x + 1}, native=length == 5)


@pytest.mark.parametrize("lengths", [None, [3, 1], [2, 0]])
def test_the_first_form_of_scan_has_a_batch_and_lengths(lengths, tmp_path):
    first = "" if lengths is None else "n"
    text = f"""g (int64[2] n, float[2,3] s0, float[2,3,3] x) => (float[2,3] y, float[2,3,3] z) {{
        y, z = Scan <num_scan_inputs = 1,
            body = b (float[3] s, float[3] xi) => (float[3] s2, float[3] o) {{
                s2 = Add(s, xi)
                o = Identity(s2)
            }}> ({first}, s0, x)
    }}"""
    x = np.arange(18, dtype=np.float32).reshape(2, 3, 3)
    own = np.array([3, 3] if lengths is None else lengths, np.int64)
    sums = X[:, None] + np.cumsum(x, axis=1)
    real = np.arange(3)[None, :, None] < own[:, None, None]
    last = np.stack([sums[b, n - 1] if n else X[b] for b, n in enumerate(own)])
    found = interpreted(saved(text, tmp_path, opset=8), {"n": own, "s0": X, "x": x})
    same(found, [last, np.where(real, sums, 0).astype(np.float32)])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("scan_input_axes = [1]", "scan_input_axes = [5]"), "axis 5 is outside"),
        (("scan_input_axes = [1]", "scan_input_axes = [0, 1]"), "has 2 entries for 1"),
        (("num_scan_inputs = 1", "num_scan_inputs = 3"), "scans 3 of 2"),
        (("num_scan_inputs = 1", "num_scan_inputs = 0"), "scans 0 of 2"),
        ((", float[3] xi", ""), "its body has 1 inputs"),
        (("scan_output_axes = [1, -1]", "scan_output_axes = [1, 9]"), "axis 9 is outside"),
    ],
)
def test_a_malformed_scan_is_refused(change, words, tmp_path):
    path = saved((SCAN % (1, 0, 0)).replace(*change), tmp_path)
    with pytest.raises(ModelError, match=f"'Scan_y' .Scan.*{words}"):
        import_onnx(path)
    assert len(check_onnx(path)) == 1


def test_a_body_with_too_few_inputs_is_refused(tmp_path):
    path = saved(COLLECTS.replace(", float[3] s)", ")").replace("(s, f)", "(x, f)"), tmp_path)
    with pytest.raises(ModelError, match="its body has 2 inputs and 3 outputs; it needs 3"):
        import_onnx(path)


def test_problems_inside_a_body_are_listed_once(tmp_path):
    path = saved(COLLECTS.replace("o = Mul(s2, s)", "o = Frobnicate(s2)"), tmp_path)
    problems = check_onnx(path, bounds={"r": 5})
    assert [problem.node for problem in problems] == ["Loop_y/Frobnicate_o"]


def test_the_capacity_of_a_sequence_bounds_a_loop_over_it(tmp_path):
    text = loop(
        "seq(float[3]) s", "float[?] r", "r = Loop(n, t)",
        """(int64 i, bool c) => (bool go, float o) {
            go = Identity(c)
            v = SequenceAt(s, i)
            o = ReduceSum <keepdims = 0> (v)
        }""",
        "n = SequenceLength(s)",
    )  # fmt: skip
    items = [ROW, ROW + 1]
    found = interpreted(saved(text, tmp_path), {"s": items}, input_shapes={}, bounds={"s": 5})
    same(found, [np.float32([12, 15])])


@pytest.mark.parametrize("forth", [0, 1])
@pytest.mark.parametrize("back", [0, 1])
def test_scan_of_a_run_time_number_of_slices(forth, back, tmp_path):
    text = f"""g (float[3] s0, float[n,3] x) => (float[3] y, float[n,3] z) {{
        y, z = Scan <num_scan_inputs = 1, scan_input_directions = [{forth}],
            scan_output_directions = [{back}],
            body = b (float[3] s, float[3] xi) => (float[3] s2, float[3] o) {{
                s2 = Add(s, xi)
                o = Mul(s, xi)
            }}> (s0, x)
    }}"""
    path = saved(text, tmp_path)
    for length in (1, 5, 9):
        x = np.arange(3 * length, dtype=np.float32).reshape(length, 3)
        inputs = {"s0": ROW, "x": x}
        found = interpreted(path, inputs, input_shapes={}, dims={"n": (1, 9)})
        same(found, reference(path, inputs))
