"""The text of a graph: printing, parsing and printing again; errors name the line."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from graph_cases import graphs
from hypothesis import given, settings
from hypothesis import strategies as st

from aotc.errors import AotcError, ModelError
from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.eval import evaluate
from aotc.graph.ir import Constant, Graph, Node, Parameter
from aotc.graph.text import parse_graph, print_graph
from aotc.graph.types import DType, Symbol, TensorType
from aotc.graph.verify import verify_graph

GOLDEN = """\
graph "net"
%0 = parameter "x" : float32[2,3]
%1 = constant #23376eca95894273eef2e962d5311201 : float32[3,8]
%2 = dot(%0, %1) : float32[2,8] @ "fc1"
%3 = constant [0.1, -inf, nan, 1e-45, -0.0, 1.0, 2.5, 3e+38] : float32[8]
%4 = reshape(%3, shape=(1, 8)) : float32[1,8]
%5 = broadcast(%4, shape=(2, 8)) : float32[2,8]
%6 = binary(%2, %5, fn="add") : float32[2,8] @ "fc1"
%7 = pad(%6, low=(0, 1), high=(0, 0), value=-0.5) : float32[2,9]
%8 = cast(%7, dtype=float16) : float16[2,9]
%9 = argreduce(%7, fn="max", axis=1, last=true) : int64[2]
return "y" = %8
return "best" = %9
"""


def golden() -> tuple[Graph, np.ndarray]:
    builder = Builder()
    weights = np.ones((3, 8), np.float32)
    x = builder.parameter("x", TensorType(DType.F32, (2, 3)))
    y = builder.apply(ops.Dot(), x, builder.constant(weights), origin="fc1")
    bias = [0.1, -np.inf, np.nan, 1e-45, -0.0, 1, 2.5, 3e38]
    y = builder.binary("add", y, builder.constant(bias, DType.F32), origin="fc1")
    y = builder.apply(ops.Pad((0, 1), (0, 0), -0.5), y)
    best = builder.apply(ops.ArgReduce("max", 1, True), y)
    return builder.finish("net", [("y", builder.cast(y, DType.F16)), ("best", best)]), weights


def test_golden_text() -> None:
    assert print_graph(golden()[0]) == GOLDEN


def values_by_digest(graph: Graph) -> dict[str, np.ndarray]:
    found = {}
    for node in graph.nodes():
        if isinstance(node.op, Constant) and node.data is not None:
            found[node.op.digest] = node.data
        for nested in ops.nested_graphs(node):
            found.update(values_by_digest(nested))
    return found


CONTROL = """\
graph "net"
%0 = parameter "x" : float32[2]
%1 = constant [4] : int64[]
%2 = constant [true] : bool[]
%3 = repeat(%1, %2, %0, body={
  graph "body"
  %0 = parameter "i" : int64[]
  %1 = parameter "s" : float32[2]
  %2 = constant [true] : bool[]
  %3 = unary(%1, fn="neg") : float32[2]
  %4 = branch(%2, %3, then={
    graph "t"
    %0 = parameter "a" : float32[2]
    return "a" = %0
  }, other={
    graph "e"
    %0 = parameter "a" : float32[2]
    %1 = unary(%0, fn="exp") : float32[2]
    return "b" = %1
  }) : (float32[2]) @ "if"
  %5 = item(%4, index=0) : float32[2]
  return "go" = %2
  return "s" = %5
}, carried=1, scanned=0, limit=9) : (int64[], float32[2])
%4 = item(%3, index=0) : int64[]
%5 = constant [3] : int64[]
%6 = compare(%4, %5, fn="lt") : bool[]
%7 = item(%3, index=1) : float32[2]
check "too long" = %6
return "y" = %7
"""


def test_nested_graphs_tuples_and_checks() -> None:
    graph = parse_graph(CONTROL)
    verify_graph(graph)
    assert print_graph(graph) == CONTROL
    with pytest.raises(AotcError, match="too long"):
        evaluate(graph, {"x": np.ones(2, np.float32)})


def check_same_nodes(graph: Graph, parsed: Graph) -> None:
    for old, new in zip(graph.nodes(), parsed.nodes(), strict=True):
        assert (new.type, new.origin) == (old.type, old.origin)
        inside = list(zip(ops.nested_graphs(old), ops.nested_graphs(new), strict=True))
        if not inside:
            assert repr(new.op) == repr(old.op)  # repr: a NaN attribute differs from itself
        for pair in inside:
            check_same_nodes(*pair)
        if old.data is not None and new.data is not None:
            assert new.data.tobytes() == old.data.tobytes()


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(graphs())
def test_round_trip(graph: Graph) -> None:
    text = print_graph(graph)
    parsed = parse_graph(text, values_by_digest(graph))
    assert print_graph(parsed) == text
    verify_graph(parsed)
    check_same_nodes(graph, parsed)


@pytest.mark.parametrize("dtype", [DType.F16, DType.F32, DType.F64])
def test_every_bit_pattern_of_a_float_survives(dtype: DType) -> None:
    unsigned = np.dtype(f"u{dtype.size_bytes}")

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.integers(0, int(np.iinfo(unsigned).max)), min_size=1, max_size=16))
    def check(bits: list[int]) -> None:
        builder = Builder()
        values = np.array(bits, unsigned).view(dtype.numpy)
        graph = builder.finish("g", [("y", builder.constant(values))])
        parsed = parse_graph(print_graph(graph))
        assert parsed.outputs[0][1].data.tobytes() == values.tobytes()

    check()


def test_symbolic_dimensions_and_strange_names_survive() -> None:
    type_ = TensorType(DType.I64, (Symbol("past + 1", 128), 3, Symbol('a "name", ]')))
    x = Node(Parameter("in\nput"), (), type_, origin="in\nput")
    graph = Graph('g"', (x,), (("out : @ é", x),))
    parsed = parse_graph(print_graph(graph))
    assert parsed.inputs[0].type == type_
    assert parsed.outputs[0][0] == "out : @ é"
    assert print_graph(parsed) == print_graph(graph)


def test_values_of_a_large_constant_may_come_in_any_shape() -> None:
    graph, weights = golden()
    digest = Constant.of(weights).digest
    parsed = parse_graph(GOLDEN, {digest: weights.reshape(-1).view(np.uint8)})
    assert print_graph(parsed) == GOLDEN
    assert not next(n for n in parsed.nodes() if n.op == Constant(digest)).data.flags.writeable
    assert weights.flags.writeable


def test_missing_or_wrong_values_of_a_large_constant() -> None:
    digest = Constant.of(golden()[1]).digest
    with pytest.raises(ModelError, match="line 3.*no values are given for constant #2337"):
        parse_graph(GOLDEN)
    with pytest.raises(ModelError, match="has 96 bytes, the values 4"):
        parse_graph(GOLDEN, {digest: np.zeros(1, np.float32)})
    with pytest.raises(ModelError, match="have the digest"):
        parse_graph(GOLDEN, {digest: np.zeros((3, 8), np.float32)})


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("%1 = unary(%7, fn=\"exp\") : float32[2]", "%7 is not defined above"),
        ("%1 = unary(%0, fn=\"exp\") : float32[3]", "the rule of unary gives float32[2]"),
        ("%1 = unary(%0) : float32[2]", "attributes are missing: fn"),
        ("%1 = unary(%0, fn=\"exp\", fn=\"log\") : float32[2]", "unknown or repeated"),
        ("%1 = unary(%0, fn=exp) : float32[2]", "expected a quoted string"),
        ("%1 = cube(%0) : float32[2]", "no operator 'cube'"),
        ("%0 = unary(%0, fn=\"exp\") : float32[2]", "%0 is defined twice"),
        ("%1 = constant [1.0] : float32[2]", "has 2 elements, not 1"),
        ("%1 = constant [300] : uint8[1]", "300 does not fit uint8"),
        ("%1 = constant [bits:0x12345] : float16[1]", "does not fit uint16"),
        ("%1 = constant [one] : float32[1]", "expected a number"),
        ("%1 = cast(%0, dtype=float8) : float32[2]", "'float8' is not a valid DType"),
        ("return \"y\" = %0 %0", "expected the end of the line"),
        ("hello", "expected 'graph', 'check', 'return' or a node"),
        ('%1 = branch(%0, then={', "a nested graph has no closing brace"),
        ('%1 = branch(%0, then=7)', "expected '{'"),
        ('%1 = unary(%0, fn="exp") : (float32[2], int64[])', "gives float32[2]"),
    ],
)
def test_errors_name_the_line(line: str, sentence: str) -> None:
    text = f'graph "g"\n%0 = parameter "x" : float32[2]\n\n{line}\n'
    with pytest.raises(ModelError) as caught:
        parse_graph(text)
    assert "graph text, line 4" in str(caught.value)
    assert sentence in str(caught.value)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_damaged_text_is_a_clean_error_or_a_graph(data: st.DataObject) -> None:
    graph, weights = golden()
    at = data.draw(st.integers(0, len(GOLDEN) - 1))
    length = data.draw(st.integers(0, 5))
    text = GOLDEN[:at] + data.draw(st.text(max_size=3)) + GOLDEN[at + length :]
    with contextlib.suppress(AotcError):
        verify_graph(parse_graph(text, {Constant.of(weights).digest: weights}))


@pytest.mark.slow
def test_a_deep_graph_prints_and_parses() -> None:
    builder = Builder()
    y = builder.parameter("x", TensorType(DType.F32, (1,)))
    for _ in range(3000):
        y = builder.unary("neg", y)
    graph = builder.finish("deep", [("y", y)])
    text = print_graph(graph)
    assert print_graph(parse_graph(text)) == text
