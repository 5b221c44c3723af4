"""Operators on strings against ONNX Runtime: bytes padded with NUL mean what strings do."""

import warnings

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_cases import model_of, save

from aotc import onnx_backend
from aotc.errors import AotcError, UnsupportedError, UsageError
from aotc.frontend.onnx_reader import import_onnx
from aotc.frontend.ports import pack, unpack
from aotc.graph.eval import evaluate


def texts(*values):
    """An array of strings."""
    return np.array(values, dtype=object)


def model(op, feeds, outputs=1, opset=21, constants=(), domain="", **attrs):
    """A model of one node."""
    names = [*feeds, *dict(constants)]
    node = helper.make_node(op, names, [f"y{i}" for i in range(outputs)], domain=domain, **attrs)
    infos = {
        name: helper.make_tensor_type_proto(8, value.shape) if value.dtype == object else value
        for name, value in feeds.items()
    }
    return model_of([node], infos, [f"y{i}" for i in range(outputs)], constants, opset)


def by_runtime(proto, feeds):
    """What ONNX Runtime gives."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    return session.run(None, feeds)


def by_graph(proto, feeds, folder, **options):
    """What the imported graph gives."""
    imported = import_onnx(save(proto, folder), **options)
    arrays = {}
    for port in imported.ports.inputs:
        arrays.update(pack(port, feeds[port.name]))
    results = evaluate(imported.graph, arrays)
    return [unpack(port, results) for port in imported.ports.outputs]


def agree(proto, feeds, folder, **options):
    """Both give the same; returned for a further look."""
    found = by_graph(proto, feeds, folder, **options)
    wanted = by_runtime(proto, feeds)
    for one, other in zip(found, wanted, strict=True):
        assert np.shape(one) == np.shape(other)
        np.testing.assert_array_equal(one, other)
    return found


WORDS = texts("", "a", "Ab c", "b a", "äöß€", "x" * 60)
ALPHABET = "ab .-\tÄé€\U0001f600Z"
STRINGS = st.lists(st.text(ALPHABET, max_size=12), min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("op", "constants", "attrs"),
    [
        ("Reshape", {"to": np.array([5, -1])}, {}),
        ("Transpose", {}, {"perm": [1, 0]}),
        ("Slice", {"s": np.array([4]), "e": np.array([-9]), "a": np.array([1]),
                   "d": np.array([-2])}, {}),
        ("Gather", {"i": np.array([[1, -1], [0, 0]])}, {"axis": 0}),
        ("Expand", {"to": np.array([3, 2, 5])}, {}),
        ("Unsqueeze", {"a": np.array([0, -1])}, {}),
        ("Flatten", {}, {"axis": 0}),
        ("Tile", {"r": np.array([2, 1])}, {}),
        ("Identity", {}, {}),
        ("Shape", {}, {}),
        ("Size", {}, {}),
        ("Compress", {"c": np.array([True, False, True])}, {"axis": 1}),
    ],
)  # fmt: skip
def test_moving_strings(op, constants, attrs, tmp_path):
    x = np.resize(WORDS, (2, 5))
    proto = model(op, {"x": x}, constants=constants, **attrs)
    (found,) = by_graph(proto, {"x": x}, tmp_path)
    (wanted,) = ReferenceEvaluator(proto).run(None, {"x": x})
    assert found.tolist() == wanted.tolist()


def test_strings_of_several_operands_are_moved_together(tmp_path):
    x, z = WORDS[:4].reshape(2, 2), texts("new", "ones").reshape(2, 1)
    agree(model("Concat", {"x": x, "z": z}, axis=1), {"x": x, "z": z}, tmp_path)
    which = np.array([[True, False], [False, True]])
    feeds = {"which": which, "x": x, "z": z}
    agree(model("Where", feeds), feeds, tmp_path)
    pieces = model("Split", {"x": x}, outputs=2, axis=1, num_outputs=2)
    agree(pieces, {"x": x}, tmp_path)


def test_padding_with_strings(tmp_path):
    x = texts("a", "b")
    pads = {"pads": np.array([1, 2])}
    (found,) = by_graph(model("Pad", {"x": x}, constants=pads), {"x": x}, tmp_path)
    assert found.tolist() == ["", "a", "b", "", ""]
    constants = {"pads": np.array([1, 0]), "with": texts("end")[0:1].reshape(())}
    (found,) = by_graph(model("Pad", {"x": x}, constants=constants), {"x": x}, tmp_path)
    assert found.tolist() == ["end", "a", "b"]


def test_constants_of_strings(tmp_path):
    node = helper.make_node("Constant", [], ["c"], value_strings=["one", "zwölf"])
    joined = helper.make_node("StringConcat", ["x", "c"], ["y"])
    info = helper.make_tensor_type_proto(8, (1,))
    feeds = {"x": texts(">")}
    proto = model_of([node, joined], {"x": info}, ["y"], opset=21)
    assert by_graph(proto, feeds, tmp_path)[0].tolist() == [">one", ">zwölf"]
    stored = numpy_helper.from_array(texts("a", "bcd"), "c")
    joined = helper.make_node("StringConcat", ["c", "x"], ["y"])
    proto = model_of([joined], {"x": info}, ["y"], opset=21)
    proto.graph.initializer.append(stored)
    assert by_graph(proto, feeds, tmp_path)[0].tolist() == ["a>", "bcd>"]


@settings(max_examples=15, deadline=None)
@given(STRINGS, st.text(ALPHABET, max_size=5))
def test_concatenation_and_equality(tmp_path_factory, many, one):
    folder = tmp_path_factory.mktemp("strings")
    feeds = {"x": texts(*many), "z": texts(one)}
    agree(model("StringConcat", feeds), feeds, folder)
    agree(model("Equal", feeds), feeds, folder)
    feeds["z"] = np.array(many[::-1], dtype=object)
    agree(model("Equal", feeds), feeds, folder)


@settings(max_examples=25, deadline=None)
@given(STRINGS, st.sampled_from([".", "-", "..", "-.-", "aba", "€"]), st.sampled_from([None, 1, 2]))
def test_splitting_at_a_delimiter(tmp_path_factory, many, delimiter, limit):
    folder = tmp_path_factory.mktemp("strings")
    feeds = {"x": texts(*many)}
    attrs = {"delimiter": delimiter} | ({} if limit is None else {"maxsplit": limit})
    pieces, counts = by_graph(model("StringSplit", feeds, 2, **attrs), feeds, folder)
    wanted = [text.split(delimiter, -1 if limit is None else limit) for text in many]
    assert counts.tolist() == list(map(len, wanted))
    longest = max(map(len, wanted))
    assert pieces.tolist() == [row + [""] * (longest - len(row)) for row in wanted]


@settings(max_examples=15, deadline=None)
@given(STRINGS, st.sampled_from([None, 1, 2]))
def test_splitting_at_white_space(tmp_path_factory, many, limit):
    folder = tmp_path_factory.mktemp("strings")
    feeds = {"x": texts(*many)}
    attrs = {} if limit is None else {"maxsplit": limit}
    pieces, counts = by_graph(model("StringSplit", feeds, 2, **attrs), feeds, folder)
    wanted = [text.split(None, -1 if limit is None else limit) for text in many]
    assert counts.tolist() == list(map(len, wanted))
    longest = max(map(len, wanted))
    assert pieces.tolist() == [row + [""] * (longest - len(row)) for row in wanted]


@pytest.mark.parametrize("action", ["NONE", "LOWER", "UPPER"])
@pytest.mark.parametrize("exact", [0, 1])
def test_normalising(action, exact, tmp_path):
    x = texts("Monday", "monday", "tuesday", "MONDAY", "Wed nesday")
    attrs = {"case_change_action": action, "is_case_sensitive": exact}
    for words in ({}, {"stopwords": ["monday", "x"]}):
        for feed in (x, x.reshape(1, 5), x[1:2]):
            proto = model("StringNormalizer", {"x": feed}, opset=10, **attrs, **words)
            (found,) = by_graph(proto, {"x": feed}, tmp_path)
            assert found.shape == (*feed.shape[:-1], found.size)
            assert found.reshape(-1).tolist() == normalised(feed.reshape(-1), action, exact, words)


def normalised(strings, action, exact, words):
    """What ONNX says of StringNormalizer."""
    stopped = words.get("stopwords", [])
    same = str if exact else str.lower
    kept = [text for text in strings if same(text) not in map(same, stopped)]
    change = {"NONE": str, "LOWER": str.lower, "UPPER": str.upper}[action]
    return [change(text) for text in kept] or [""]


@pytest.mark.parametrize("mode", ["TF", "IDF", "TFIDF"])
@pytest.mark.parametrize("skips", [0, 3])
@pytest.mark.parametrize("least", [1, 2])
def test_counting_n_grams(mode, skips, least, tmp_path):
    attrs = {
        "mode": mode,
        "max_gram_length": 2,
        "min_gram_length": least,
        "max_skip_count": skips,
        "ngram_counts": [0, 3],
        "ngram_indexes": [3, 0, 1, 5, 2],
        "weights": [0.5, 2.0, 1.0, 3.0, 4.0],
    }
    x = np.array([[1, 2, 3, 1], [3, 1, 2, 2]])
    pool = [1, 2, 3, 1, 2, 3, 1]
    numbers = model("TfIdfVectorizer", {"x": x}, opset=9, pool_int64s=pool, **attrs)
    agree(numbers, {"x": x}, tmp_path)
    words = np.array([["a", "b", "é", "a"], ["é", "a", "b", "b"]], dtype=object)
    pool = ["a", "b", "é", "a", "b", "é", "a"]
    strings = model("TfIdfVectorizer", {"x": words}, opset=9, pool_strings=pool, **attrs)
    agree(strings, {"x": words}, tmp_path)


def test_strings_whose_number_is_known_at_run_time_only(tmp_path):
    x = texts("a b", "c", "d b b")
    feeds = {"x": helper.make_tensor_type_proto(8, x.shape)}
    words = helper.make_node("StringSplit", ["x"], ["p", "n"])
    column = [helper.make_node("Slice", ["p", "a", "b", "one"], ["q"]), words][::-1]
    sizes = {"a": np.array([0]), "b": np.array([2]), "one": np.array([1])}
    match = helper.make_node("RegexFullMatch", ["q"], ["y"], pattern="[bc]|")
    proto = model_of([*column, match], feeds, ["q", "y"], sizes, opset=21)
    found = by_graph(proto, {"x": x}, tmp_path)
    assert found[0].tolist() == [["a", "b"], ["c", ""], ["d", "b"]]
    assert found[1].tolist() == [[False, True], [True, True], [False, True]]
    kept = helper.make_node("StringNormalizer", ["x"], ["q"], stopwords=["c"])
    attrs = {"mode": "TF", "max_gram_length": 1, "min_gram_length": 1, "max_skip_count": 0}
    pool = {"ngram_counts": [0], "ngram_indexes": [0, 1, 2], "pool_strings": ["a b", "", "c"]}
    count = helper.make_node("TfIdfVectorizer", ["q"], ["y"], **attrs, **pool)
    (found,) = by_graph(model_of([kept, count], feeds, ["y"], opset=21), {"x": x}, tmp_path)
    assert found.tolist() == [1, 0, 0]
    joined = helper.make_node("StringConcat", ["q", "x"], ["y"])
    with pytest.raises(UnsupportedError, match="number of strings in input 0"):
        by_graph(model_of([kept, joined], feeds, ["y"], opset=21), {"x": x}, tmp_path)


def test_a_pattern_is_matched_by_native_code():
    x = texts("www.google.com", "www.facebook.com.", "", "wwwXa.com", "www.äö.com", "www.x.y-.com")
    proto = model("RegexFullMatch", {"x": x}, pattern=r"www\.[\w.-]+\.\bcom\b|(?i)Ä?")
    (found,) = onnx_backend.prepare(proto).run([x])
    assert found.tolist() == [True, False, True, False, False, True]


def test_what_is_not_regular_is_refused_by_name(tmp_path):
    proto = model("RegexFullMatch", {"x": WORDS}, pattern=r"(a)\1")
    with pytest.raises(UnsupportedError, match=r"uses \\1") as caught:
        import_onnx(save(proto, tmp_path))
    assert "(RegexFullMatch, opset 21)" in caught.value.where
    assert "RE2" in caught.value.remedy


def test_an_operator_without_a_rule_for_strings_is_refused_by_name(tmp_path):
    proto = model("Unique", {"x": WORDS})
    with pytest.raises(UnsupportedError, match="a tensor of strings") as caught:
        import_onnx(save(proto, tmp_path))
    assert "(Unique, opset 21)" in caught.value.where


def test_a_longer_string_needs_a_wider_input(tmp_path):
    x = texts("y" * 100)
    proto = model("Identity", {"x": x})
    with pytest.raises(UsageError, match="100 bytes, the bound is 64"):
        by_graph(proto, {"x": x}, tmp_path)
    assert by_graph(proto, {"x": x}, tmp_path, bounds={"x": 100})[0].tolist() == ["y" * 100]


def test_the_bound_of_a_result_of_strings_is_checked_at_run_time(tmp_path):
    x = texts("a b c")
    proto = model("StringSplit", {"x": x}, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = onnx_backend.prepare(proto, bounds={"y0": 3}).run([x])
    assert found[0].tolist() == [["a", "b", "c"]]
    with pytest.raises(AotcError, match="OUT_OF_BOUNDS"):
        onnx_backend.prepare(proto, bounds={"y0": 2}).run([x])
