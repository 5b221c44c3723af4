"""The front door: trace, function, compile, compose and stateful, and what their errors say."""

import inspect

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import aotc
from aotc.graph.eval import evaluate
from aotc.graph.verify import verify_graph


def test_names_of_inputs_and_outputs():
    def update(state, x):
        return {"state": (state[0] + x, state[1]), "y": x}

    one = aotc.spec((), "float32")
    graph = aotc.trace(update, (one, one), one)
    verify_graph(graph)
    assert graph.name == "update"
    assert [node.op.name for node in graph.inputs] == ["state_0", "state_1", "x"]
    assert [name for name, _ in graph.outputs] == ["out_state_0", "out_state_1", "out_y"]
    assert aotc.trace(lambda *xs: xs[0] + xs[1], one, one, name="sum").name == "sum"


def test_nodes_know_their_line():
    def function(x):
        return x + x

    (made,) = [node for node in aotc.trace(function, aotc.spec(3)).nodes() if node.inputs]
    line = inspect.getsourcelines(function)[1] + 1
    assert made.origin == f"test_tracing.py:{line}"


@aotc.function
def mix(
    x: aotc.Tensor[2, 3], w: aotc.Tensor[3, "float32"], n: aotc.Tensor[(), np.int64]  # noqa: F821
) -> aotc.Tensor[2]:
    return (x * w).sum(axis=1) + x[0, n]


def test_a_function_compiles_and_runs():
    x, w = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(3, np.float32)
    np.testing.assert_array_equal(mix(x, w, 2), [5, 14])
    np.testing.assert_array_equal(aotc.compile(mix)(x, w, np.int64(0)), [3, 12])
    assert mix.compile(target="aarch64").target.name == "aarch64"
    assert mix.graph.name == "mix"
    with pytest.raises(aotc.UsageError):
        mix(x[:1], w, 2)


def test_a_function_inside_another_is_traced():
    graph = aotc.trace(lambda x: mix(x, np.ones(3, np.float32), 1) * 2, aotc.spec((2, 3)))
    assert str(graph.outputs[0][1].type) == "float32[2]"


def test_an_annotation_of_the_result_is_checked():
    def function(x: aotc.Tensor[3]) -> aotc.Tensor[4]:
        return x

    with pytest.raises(aotc.UsageError, match=r"returns float32\[3\]"):
        aotc.trace(function)


def bool_of(x):
    return x if x[0] > 0 else -x


def add_wrong(x):
    return x + x[:2]


def many(x):
    return np.linalg.svd(x)


def own_array(x):
    return np.array([x[0], x[1]])


def as_number(x):
    return np.ones(int(x[0]))


def mask(x):
    return x[x > 0]


def assign(x):
    x[0] = 1
    return x


def outside(x):
    return x[5]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (bool_of, ["return x if x[0] > 0 else -x", "aotc.cond"]),
        (add_wrong, ["numpy.add", "float32[4] and float32[2]", "return x + x[:2]"]),
        (many, ["numpy.linalg.svd does not trace"]),
        (own_array, ["np.stack"]),
        (as_number, ["known only when the compiled code runs"]),
        (mask, ["np.where(mask, x, other)"]),
        (assign, ["aotc.updated", "x[0] = 1"]),
        (outside, ["index 5", "float32[4]"]),
        (lambda x: x @ x[:2], ["columns", "float32[4] and float32[2]"]),
        (lambda x: x.sum(axis=2), ["axis 2"]),
        (lambda x: x & 1, ["bitwise_and", "float32[4]"]),
        (lambda x: np.add(x, x, out=np.zeros(4)), ["out="]),
        (lambda x: x.astype(np.int8) + 300, ["300", "numpy 2"]),
        (lambda x: x + 1j, ["not defined", "1j"]),
        (lambda x: x.view(np.int32), ["view", "float32[4]"]),
        (lambda x: f"{x:.2f}", ["has no number yet"]),
        (lambda x: None, ["returns nothing"]),
        (lambda x: np.where(x > 0), ["unknown size"]),
        (lambda x: np.concatenate([x, x[:, None]]), ["rank"]),
        (lambda x: x.reshape(3, -1), ["does not reshape"]),
        (lambda x: np.sum(x, initial=x), ["initial"]),
    ],
)
def test_errors_show_the_line_and_the_types(function, words):
    with pytest.raises(aotc.AotcError) as caught:
        aotc.trace(function, aotc.spec(4))
    text = str(caught.value)
    assert "test_tracing.py:" in text
    for word in words:
        assert word in text


def test_specs_and_annotations_are_checked():
    for shape in ((2, 1.5), (-1,), ("not a name",), (True,)):
        with pytest.raises(aotc.UsageError):
            aotc.spec(shape)
    with pytest.raises(aotc.UsageError, match="complex"):
        aotc.spec(3, "complex64")
    with pytest.raises(aotc.UsageError, match="has no type"):
        aotc.trace(lambda x: x)
    with pytest.raises(aotc.UsageError, match="2 are described"):
        aotc.trace(lambda x: x, aotc.spec(3), aotc.spec(3))


def test_a_value_used_after_its_trace():
    kept = []
    aotc.trace(lambda x: kept.append(x) or x, aotc.spec(3))
    with pytest.raises(aotc.UsageError, match="after its function was traced"):
        kept[0] + 1


def small_model(path):
    nodes = [helper.make_node("Gemm", ["x", "w"], ["y"])]
    w = onnx.numpy_helper.from_array(np.arange(6, dtype=np.float32).reshape(3, 2), "w")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 2])
    onnx.save(helper.make_model(helper.make_graph(nodes, "net", [x], [y], [w])), path)
    return path


def test_compose_joins_functions_and_models(tmp_path):
    path = small_model(tmp_path / "net.onnx")

    def before(pixels: aotc.Tensor[4, 3, np.uint8]):
        return pixels / np.float32(255)

    app = aotc.compose(before, path, lambda y: aotc.top_k(aotc.softmax(y), 1))
    pixels = np.arange(12, dtype=np.uint8).reshape(4, 3)
    best, place = app(pixels)
    scores = pixels / np.float32(255) @ np.arange(6, dtype=np.float32).reshape(3, 2)
    np.testing.assert_array_equal(place, scores.argmax(axis=1)[:, None])
    assert best.shape == (4, 1)
    last = aotc.compose(aotc.load_onnx(path), np.negative)
    x = np.ones((4, 3), np.float32)
    np.testing.assert_array_equal(last(x), np.full((4, 2), [-6, -9], np.float32))


def test_compose_says_what_does_not_fit(tmp_path):
    path = small_model(tmp_path / "net.onnx")

    def before(x: aotc.Tensor[4, 2]):
        return x

    with pytest.raises(aotc.UsageError, match=r"is float32\[4,3\], gets float32\[4,2\]"):
        aotc.compose(before, path).graph  # noqa: B018


def test_inline_keeps_checks_and_matches_inputs():
    graph = aotc.trace(lambda x, y: (x + y, x - y), aotc.spec(2), aotc.spec(2))
    joined = aotc.trace(lambda x: aotc.inline(graph, x, np.ones(2, np.float32))[0], aotc.spec(2))
    (found,) = evaluate(joined, {"x": np.zeros(2, np.float32)}).values()
    np.testing.assert_array_equal(found, [1, 1])
    with pytest.raises(aotc.UsageError, match="2 inputs, gets 1"):
        aotc.trace(lambda x: aotc.inline(graph, x), aotc.spec(2))


def test_state_goes_in_and_out():
    def smooth(state, x):
        level, count = state
        level = level + (x - level) * np.float32(0.25)
        return (level, count + 1), level * 2

    filter_ = aotc.stateful(smooth, (np.zeros(2, np.float32), np.int32(0)))
    graph = filter_.trace(aotc.spec(2))
    assert [node.op.name for node in graph.inputs] == ["state_0", "state_1", "x"]
    assert [name for name, _ in graph.outputs] == ["out_state_0", "out_state_1", "out_y"]
    stream = filter_.start(aotc.spec(2))
    level = np.zeros(2, np.float32)
    for sample in np.eye(2, dtype=np.float32):
        level = level + (sample - level) * np.float32(0.25)
        np.testing.assert_array_equal(stream(sample), level * 2)
    assert stream.state[1] == 2
    stream.reset()
    assert stream.state[1] == 0


def test_state_keeps_its_type():
    with pytest.raises(aotc.UsageError, match="keeps its type"):
        aotc.stateful(lambda s, x: (s + x.sum(), s), np.int32(0)).trace(aotc.spec(2))


def test_outputs_that_are_inputs_or_constants_compile():
    graph = aotc.trace(lambda x: (x, x, np.arange(3), x + 1), aotc.spec(3))
    x = np.ones(3, np.float32)
    for found, wanted in zip(aotc.compile(graph)(x), (x, x, np.arange(3), x + 1), strict=True):
        np.testing.assert_array_equal(found, wanted)
