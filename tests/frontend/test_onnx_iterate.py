"""Iterations in one form or one after the other: growing values, bounds, and what cannot be."""

import numpy as np
import pytest
from text_models import agrees, interpreted, reference, same, saved

from aotc.errors import ModelError, UnsupportedError, UsageError
from aotc.frontend import importer
from aotc.frontend.onnx_reader import check_onnx, import_onnx
from aotc.graph import ops

X = np.arange(6, dtype=np.float32).reshape(2, 3)
ROW = X[1]
ADDS = "(int64 i, bool c, float[3] s) => (bool go, float[3] s2) { go = Identity(c) s2 = Add(s, x) }"


def model(body, inputs="int64 n, float[3] x", outputs="float[3] y", first="x", trips=""):
    given = f"n = Constant <value = int64 {{{trips}}}> ()" if trips else ""
    return f"""g ({inputs}) => ({outputs}) {{
        t = Constant <value = bool {{1}}> ()
        empty = SequenceEmpty()
        {given}
        y = Loop(n, t, {first}) <body = b {body}>
    }}"""


def repeats(path, **options):
    graph = import_onnx(path, **options).graph
    return sum(isinstance(node.op, ops.Repeat) for node in graph.nodes())


@pytest.mark.parametrize(("trips", "loops"), [("1", 0), ("2", 0), ("3", 1), ("1000", 1)])
def test_few_iterations_need_no_loop(trips, loops, tmp_path):
    path = saved(model(ADDS, "float[3] x", trips=trips), tmp_path)
    assert repeats(path) == loops


def test_a_loop_that_collects_nothing_needs_no_bound(tmp_path):
    path = saved(model(ADDS), tmp_path)
    assert repeats(path) == 1
    found = interpreted(path, {"n": np.array(1000), "x": np.ones(3, np.float32)})
    same(found, [np.full(3, 1001, np.float32)])


GROWS = """(int64 i, bool c, float[?,3] s) => (bool go, float[?,3] s2) {
    go = Identity(c)
    s2 = Concat <axis = 0> (s, x)
}"""


def test_a_tensor_that_grows_a_known_number_of_times(tmp_path):
    text = model(GROWS, "float[2,3] x", "float[?,3] y", trips="4")
    agrees(text, tmp_path, {"x": X})


@pytest.mark.parametrize("trips", [0, 1, 4])
def test_a_tensor_that_grows_at_run_time(trips, tmp_path):
    text = model(GROWS, "int64 n, float[2,3] x", "float[?,3] y")
    agrees(text, tmp_path, {"n": np.array(trips), "x": X}, bounds={"Loop_y": 4})


def test_a_tensor_that_grows_within_its_own_bound(tmp_path):
    path = saved(model(GROWS, "int64 n, float[2,3] x", "float[?,3] y"), tmp_path)
    bounds = {"y": 7}
    assert repeats(path, bounds=bounds) == 1
    for trips in (0, 2):
        inputs = {"n": np.array(trips), "x": X}
        same(interpreted(path, inputs, bounds=bounds), reference(path, inputs))
    with pytest.raises(UsageError, match="a size that changes in a loop exceeds 7"):
        interpreted(path, {"n": np.array(3), "x": X}, bounds=bounds)


def test_a_tensor_that_grows_without_a_bound_is_refused(tmp_path):
    path = saved(model(GROWS, "int64 n, float[2,3] x", "float[?,3] y"), tmp_path)
    with pytest.raises(UnsupportedError, match="(?s)'Loop_y' .Loop.* grows.*--max y=N"):
        import_onnx(path)
    (problem,) = check_onnx(path)
    assert "--max y=N" in problem.remedy


INSERTS = """(int64 i, bool c, seq(float[?]) s) => (bool go, seq(float[?]) s2) {
    go = Identity(c)
    f = Cast <to = 1> (i)
    v = Mul(x, f)
    s2 = SequenceInsert(s, v)
}"""


@pytest.mark.parametrize("trips", [0, 1, 4])
def test_a_sequence_that_grows_at_run_time(trips, tmp_path):
    text = model(INSERTS, outputs="seq(float[?]) y", first="empty")
    agrees(text, tmp_path, {"n": np.array(trips), "x": ROW}, bounds={"y": 4})


def test_a_sequence_that_grows_beyond_its_bound_fails(tmp_path):
    path = saved(model(INSERTS, outputs="seq(float[?]) y", first="empty"), tmp_path)
    with pytest.raises(UsageError, match="more than 4 iterations"):
        interpreted(path, {"n": np.array(5), "x": ROW}, bounds={"y": 4})


def test_a_sequence_that_grows_without_a_bound_is_refused(tmp_path):
    path = saved(model(INSERTS, outputs="seq(float[?]) y", first="empty"), tmp_path)
    with pytest.raises(UnsupportedError, match="(?s)a sequence .* grows.*--max Loop_y=N"):
        import_onnx(path)


def test_elements_of_different_ranks_in_a_growing_sequence(tmp_path):
    """Iterations one after the other know which element each of them adds."""
    body = """(int64 i, bool c, optional(seq(float[?])) s) => (bool go, seq(float[?]) s2) {
        go = Identity(c)
        there = OptionalHasElement(s)
        q = If (there) <
            then_branch = a () => (seq(float[?]) q1) { q1 = OptionalGetElement(s) },
            else_branch = e () => (seq(float[?]) q2) { k = ReduceSum <keepdims = 0> (x)
                                                       q2 = SequenceConstruct(k) }>
        s2 = SequenceInsert(q, x)
    }"""
    inputs = "int64 n, float[3] x, optional(seq(float[?])) o"
    path = saved(model(body, inputs, "seq(float[?]) y", first="o"), tmp_path, opset=18)
    options = {"bounds": {"y": 4}, "input_shapes": {"o": None}}
    found = interpreted(path, {"n": np.array(2), "x": ROW, "o": None}, **options)
    same(found, [[ROW.sum(), ROW, ROW]])


def test_a_sequence_of_constant_length_is_carried_through_any_number_of_iterations(tmp_path):
    text = """g (int64 n, seq(float[2,3]) s, float[2,3] x) => (seq(float[2,3]) y) {
        t = Constant <value = bool {1}> ()
        zero = Constant <value = int64 {0}> ()
        y = Loop(n, t, s) <body = b (int64 i, bool c, seq(float[2,3]) q)
            => (bool go, seq(float[2,3]) r) {
            go = Identity(c)
            h = SequenceAt(q, zero)
            d = SequenceErase(q, zero)
            w = Add(h, x)
            r = SequenceInsert(d, w)
        }>
    }"""
    inputs = {"n": np.array(5), "s": [X, X * 2, X * 3], "x": X}
    agrees(text, tmp_path, inputs, native=True)
    assert repeats(saved(text, tmp_path), input_shapes={"s": ((2, 3),) * 3}) == 1


def test_a_carried_tensor_that_gains_an_axis_each_time(tmp_path):
    body = """(int64 i, bool c, float[?] s) => (bool go, float[?] s2) {
        go = Identity(c)
        axes = Constant <value_ints = [0]> ()
        s2 = Unsqueeze(s, axes)
    }"""
    text = model(body, "float[3] x", "float[?,?,?,?,?] y", trips="4")
    path = saved(text, tmp_path)
    same(interpreted(path, {"x": ROW}), [ROW.reshape(1, 1, 1, 1, 3)])
    path = saved(model(body, outputs="float[?,?,?,?,?] y"), tmp_path)
    with pytest.raises(UnsupportedError, match=r"float32\[3\] on one way .* float32\[1,3\]"):
        import_onnx(path)


def test_what_an_inactive_iteration_would_check_does_not_fail(tmp_path):
    """Iterations beyond the trip count are computed, but their checks do not count."""
    body = """(int64 i, bool c, seq(float[?]) s) => (bool go, seq(float[?]) s2) {
        go = Identity(c)
        v = SequenceAt(all, i)
        s2 = SequenceInsert(s, v)
    }"""
    inputs = "int64 n, seq(float[3]) all, int64 at"
    text = model(body, inputs, "seq(float[?]) y", first="empty")
    path = saved(text.replace("y = Loop", "short = SequenceErase(all, at) y = Loop"), tmp_path)
    values = [ROW, ROW + 1]
    given = {"n": np.array(2), "all": values, "at": np.array(0)}
    shapes = {"all": None}
    found = interpreted(path, given, input_shapes=shapes, bounds={"all": 4, "y": 4})
    same(found, [values])
    with pytest.raises(UsageError, match="'Loop_y/SequenceAt_v' needs a position inside"):
        interpreted(path, {**given, "n": np.array(3)}, input_shapes=shapes,
                    bounds={"all": 4, "y": 4})  # fmt: skip


def test_only_tensors_are_collected(tmp_path):
    body = """(int64 i, bool c) => (bool go, seq(float[3]) r) {
        go = Identity(c)
        r = SequenceConstruct(x)
    }"""
    path = saved(model(body, first="").replace("t, )", "t)"), tmp_path)
    with pytest.raises(UnsupportedError, match="it collects a sequence of 1"):
        import_onnx(path, bounds={"y": 4})


def test_a_condition_that_is_no_bool_is_refused(tmp_path):
    path = saved(model(ADDS.replace("go = Identity(c)", "go = Identity(x)")), tmp_path)
    with pytest.raises(ModelError, match="must give one bool"):
        import_onnx(path)


@pytest.mark.parametrize(("levels", "fails"), [(3, False), (14, True)])
def test_loops_in_loops_one_after_the_other_do_not_grow_without_end(
    levels, fails, tmp_path, monkeypatch
):
    """No level has one form; what all of them together import is limited."""
    monkeypatch.setattr(importer, "MAX_COPIES", 500)
    body = """(int64 i{k}, bool c{k}, float[?] s{k}) => (bool g{k}, float[?] o{k}) {{
        g{k} = Identity(c{k})
        {inner}
    }}"""
    text = "o0 = Unsqueeze(s0, axes)"
    for level in range(1, levels):
        inside = body.format(k=level - 1, inner=text)
        text = f"o{level} = Loop(n, t, s{level}) <body = b{level - 1} {inside}>"
    last = levels - 1
    text = text.replace(f"Loop(n, t, s{last})", "Loop(n, t, x)")
    path = saved(
        f"""g (float[3] x) => (float[?] o{last}) {{
            t = Constant <value = bool {{1}}> ()
            n = Constant <value = int64 {{3}}> ()
            axes = Constant <value_ints = [0]> ()
            {text}
        }}""",
        tmp_path,
    )
    if fails:
        with pytest.raises(UnsupportedError, match="more than 500 nodes once they are unrolled"):
            import_onnx(path)
    else:
        same(interpreted(path, {"x": ROW}), [ROW.reshape([1] * 9 + [3])])


def test_both_ways_agree(tmp_path):
    """The same loop with a bound that allows either."""
    text = """g (int64 n, float[3] x) => (float[3] y, float[?,3] r) {
        t = Constant <value = bool {1}> ()
        y, r = Loop(n, t, x) <body = b (int64 i, bool c, float[3] s)
            => (bool go, float[3] s2, float[3] o) {
            go = Identity(c)
            s2 = Add(s, x)
            o = Neg(s)
        }>
    }"""
    path = saved(text, tmp_path)
    for most, loops in ((2, 1), (300, 1)):
        inputs = {"n": np.array(min(most, 7)), "x": ROW}
        assert repeats(path, bounds={"r": most}) == loops
        same(interpreted(path, inputs, bounds={"r": most}), reference(path, inputs))
