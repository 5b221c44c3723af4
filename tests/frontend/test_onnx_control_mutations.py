"""Damaged control flow, sequences and optionals: reading gives a graph or one of aotc's errors."""

import copy

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from text_models import model

from aotc.errors import AotcError
from aotc.frontend.onnx_reader import check_onnx, load_onnx
from aotc.frontend.order import subgraphs

QUICK = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
THOROUGH = settings(QUICK, max_examples=500)

SEED = model(
    """g (bool c, int64 n, float[2,3] x, seq(float[2,3]) s, optional(float[2,3]) o)
    => (float[?,3] y, float[?,2,3] rows, seq(float[2,3]) more, int64 k, float[2,3] z) {
    yes = Constant <value = bool {1}> ()
    four = Constant <value = int64 {4}> ()
    zero = Constant <value = int64 {0}> ()
    last, rows = Loop(n, yes, x) <body = b (int64 i, bool go, float[2,3] h)
        => (bool on, float[2,3] h2, float[2,3] row) {
        on = Identity(go)
        h1 = If (c) <
            then_branch = t () => (float[2,3] a) { a = Add(h, x) },
            else_branch = e () => (float[2,3] b) { f = Cast <to = 1> (i) b = Mul(h, f) }>
        h2 = Relu(h1)
        row = Neg(h2)
    }>
    empty = SequenceEmpty()
    grown = Loop(four, , empty) <body = b2 (int64 i2, bool go2, seq(float[2,3]) q)
        => (bool on2, seq(float[2,3]) q2) {
        on2 = Identity(go2)
        v = SequenceAt(s, zero)
        q2 = SequenceInsert(q, v, zero)
    }>
    more = SequenceMap <body = b3 (float[2,3] m) => (float[2,3] m2) { m2 = Tanh(m) }> (grown)
    w = SequenceErase(more, n)
    y = ConcatFromSequence <axis = 0> (w)
    k = SequenceLength(w)
    there = OptionalHasElement(o)
    z = If (there) <
        then_branch = t2 () => (float[2,3] a2) { a2 = OptionalGetElement(o) },
        else_branch = e2 () => (float[2,3] r2) {
            top = ReduceMax <axes = [0], keepdims = 0> (x)
            b2, r2 = Scan <num_scan_inputs = 1,
                body = b4 (float[3] u, float[3] ui) => (float[3] u2, float[3] p) {
                    u2 = Add(u, ui)
                    p = Identity(u2)
                }> (top, x)
        }>
    }"""
)
SHAPES = {"s": ((2, 3), (2, 3)), "o": (2, 3)}
OPERATORS = [
    "If", "Loop", "Scan", "Identity", "SequenceConstruct", "SequenceEmpty", "SequenceInsert",
    "SequenceErase", "SequenceAt", "SequenceLength", "SplitToSequence", "ConcatFromSequence",
    "SequenceMap", "Optional", "OptionalHasElement", "OptionalGetElement", "Add", "Neg", "Concat",
    "Unsqueeze", "Shape", "Expand", "NonZero",
]  # fmt: skip
NUMBERS = st.sampled_from([0, 1, -1, 2, 7, 1 << 20, 1 << 31, (1 << 63) - 1, -(1 << 63)])


def read(path):
    """Reading gives a graph or an AotcError that names the file; checking agrees."""
    options = {"input_shapes": SHAPES, "bounds": {"*": 5}}
    try:
        load_onnx(path, **options)
        failed = False
    except AotcError as error:
        assert str(path) in str(error)
        failed = True
    try:
        assert bool(check_onnx(path, **options)) == failed
    except AotcError:
        assert failed


def graphs_of(graph):
    """``graph`` and all graphs inside it."""
    yield graph
    for node in graph.node:
        for inner in subgraphs(node):
            yield from graphs_of(inner)


def damage_node(data, graph, names):
    """Another operator, operand, result or attribute in one node."""
    node = data.draw(st.sampled_from(list(graph.node)))
    kind = data.draw(st.sampled_from(["op", "input", "output", "drop", "more", "attribute"]))
    if kind == "op":
        node.op_type = data.draw(st.sampled_from(OPERATORS))
    elif kind == "input" and node.input:
        place = data.draw(st.integers(0, len(node.input) - 1))
        node.input[place] = data.draw(st.sampled_from([*names, "", "nowhere"]))
    elif kind == "output" and node.output:
        place = data.draw(st.integers(0, len(node.output) - 1))
        node.output[place] = data.draw(st.sampled_from([*names, "", "elsewhere"]))
    elif kind == "drop" and node.input:
        node.input.pop()
    elif kind == "more":
        node.input.append(data.draw(st.sampled_from(names)))
    elif node.attribute:
        damage_attribute(data, data.draw(st.sampled_from(list(node.attribute))), names)


def damage_attribute(data, attribute, names):
    """Another value, type or graph."""
    if attribute.type == onnx.AttributeProto.INT:
        attribute.i = data.draw(NUMBERS)
    elif attribute.type == onnx.AttributeProto.TENSOR:
        tensor = attribute.t
        number = data.draw(NUMBERS)
        tensor.CopyFrom(onnx.helper.make_tensor(tensor.name, onnx.TensorProto.INT64, [], [number]))
    elif attribute.type == onnx.AttributeProto.GRAPH and data.draw(st.booleans()):
        damage_ends(data, attribute.g, names)
    else:
        attribute.type = data.draw(st.sampled_from([0, 1, 2, 5, 7]))


def damage_ends(data, graph, names):
    """Other inputs or outputs of a graph."""
    ends = data.draw(st.sampled_from([graph.input, graph.output]))
    kind = data.draw(st.sampled_from(["drop", "more", "name", "type"]))
    if kind == "more":
        ends.add(name=data.draw(st.sampled_from([*names, "", "fresh"])))
    elif ends:
        end = data.draw(st.sampled_from(list(ends)))
        if kind == "drop":
            ends.remove(end)
        elif kind == "name":
            end.name = data.draw(st.sampled_from([*names, "", "nowhere"]))
        else:
            end.type.Clear()


def damaged(data, path):
    broken = copy.deepcopy(SEED)
    graphs = list(graphs_of(broken.graph))
    names = sorted({name for graph in graphs for node in graph.node for name in node.output})
    names += ["c", "n", "x", "s", "o", "h", "q", "u"]
    for _ in range(data.draw(st.integers(1, 3))):
        graph = data.draw(st.sampled_from(graphs))
        damage = data.draw(st.sampled_from([damage_node, damage_node, damage_ends]))
        if graph.node:
            damage(data, graph, names)
    path.write_bytes(broken.SerializeToString())
    read(path)


def test_the_seed_itself_is_read(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(SEED.SerializeToString())
    graph = load_onnx(path, input_shapes=SHAPES, bounds={"*": 5})
    assert dict(graph.outputs)["rows"].shape == (5, 2, 3)


@pytest.mark.slow
@QUICK
@given(data=st.data())
def test_damaged_graphs_in_graphs(data, tmp_path):
    damaged(data, tmp_path / "m.onnx")


@pytest.mark.slow
@THOROUGH
@given(data=st.data())
def test_damaged_graphs_in_graphs_thoroughly(data, tmp_path):
    damaged(data, tmp_path / "m.onnx")


def test_a_body_within_itself_as_deep_as_it_goes(tmp_path):
    """Nesting beyond the limit is an error, not a crash."""
    def ends(name):
        return [onnx.helper.make_tensor_value_info(name, 1, None)]

    def leaf(name):
        node = onnx.helper.make_node("Neg", ["x"], [name])
        return onnx.helper.make_graph([node], name, [], ends(name))

    outer = leaf("d")
    for level in range(30):
        node = onnx.helper.make_node(
            "If", ["c"], [f"d{level}"], then_branch=outer, else_branch=leaf(f"e{level}")
        )
        outer = onnx.helper.make_graph([node], f"g{level}", [], ends(f"d{level}"))
    inputs = [onnx.helper.make_tensor_value_info("c", 9, []),
              onnx.helper.make_tensor_value_info("x", 1, [2])]  # fmt: skip
    graph = onnx.helper.make_graph(outer.node, "g", inputs, outer.output)
    path = tmp_path / "m.onnx"
    imports = [onnx.helper.make_opsetid("", 17)]
    path.write_bytes(onnx.helper.make_model(graph, opset_imports=imports).SerializeToString())
    with pytest.raises(AotcError, match="nested more than"):
        load_onnx(path)
