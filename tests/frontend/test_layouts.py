"""Joint forms of values: every value survives the way into the form and back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aotc.errors import UnsupportedError, UsageError
from aotc.frontend.folding import FoldingBuilder
from aotc.frontend.layouts import assemble, choose, join, layout_of, parts, types
from aotc.frontend.ports import output_port, unpack
from aotc.frontend.values import OptionalValue, Ragged, SequenceValue, Text
from aotc.graph.eval import evaluate
from aotc.graph.types import DType, TensorType


def tensors(rank):
    sizes = st.lists(st.integers(0, 3), min_size=rank, max_size=rank)
    return st.builds(
        lambda shape, seed: np.random.default_rng(seed).integers(1, 99, shape).astype("float32"),
        sizes,
        st.integers(0, 999),
    )


def values(rank=1):
    """Plain values: arrays, lists of them, or None for an absent one."""
    lists = st.lists(tensors(rank), max_size=3), st.lists(tensors(0), max_size=2)
    return st.one_of(tensors(rank), *lists, st.none())


def value_of(builder, plain, name, feeds, ragged):
    """``plain`` as parameters, which ``feeds`` collects."""
    if plain is None:
        return OptionalValue(None, present=False)
    if isinstance(plain, list):
        items = [value_of(builder, x, f"{name}{i}", feeds, ragged) for i, x in enumerate(plain)]
        return SequenceValue(tuple(items))
    box = np.zeros([size + ragged for size in plain.shape], plain.dtype)
    box[tuple(map(slice, plain.shape))] = plain
    feeds[name] = box
    node = builder.parameter(name, TensorType(DType.of(box), box.shape))
    if not ragged or not plain.ndim:
        return node
    sizes = []
    for axis, size in enumerate(plain.shape):
        feeds[f"{name}_{axis}"] = np.asarray(size, np.int64)
        sizes.append(builder.parameter(f"{name}_{axis}", TensorType(DType.I64, ())))
    return Ragged(node, tuple(sizes))


def result(builder, value, feeds):
    """What ``value`` means when ``feeds`` are the inputs."""
    port, outputs = output_port(builder, "y", value)
    return unpack(port, evaluate(builder.finish("g", outputs), feeds))


def assert_same(found, plain):
    if isinstance(plain, list):
        assert len(found) == len(plain)
        for pair in zip(found, plain, strict=True):
            assert_same(*pair)
    elif plain is None:
        assert found is None
    else:
        if found.size == plain.size == 1:
            found = found.reshape(plain.shape)  # a scalar may have met a vector of one
        assert (found.dtype, found.shape) == (plain.dtype, plain.shape)
        np.testing.assert_array_equal(found, plain)


@settings(max_examples=60, deadline=None)
@given(values(), values(), st.booleans(), st.booleans(), st.booleans())
def test_either_value_survives_the_joint_form(a, b, first, ragged_a, ragged_b):
    builder, feeds = FoldingBuilder(), {}
    one = value_of(builder, a, "a", feeds, ragged_a)
    other = value_of(builder, b, "b", feeds, ragged_b)
    try:
        layout = join(layout_of(one), layout_of(other))
    except UnsupportedError:
        return
    assert layout == join(layout, layout_of(one)) == join(layout, layout_of(other))
    nodes = parts(builder, one if first else other, layout)
    assert [node.type for node in nodes] == types(layout)
    assert_same(result(builder, assemble(layout, iter(nodes)), feeds), a if first else b)


@settings(max_examples=60, deadline=None)
@given(values(), values(), st.booleans(), st.booleans(), st.booleans(), st.booleans())
def test_choose_gives_the_value_that_the_condition_says(a, b, first, known, ragged_a, ragged_b):
    builder, feeds = FoldingBuilder(), {"c": np.asarray(first)}
    condition = builder.parameter("c", TensorType(DType.BOOL, ()))
    if known:
        condition = builder.constant(first, DType.BOOL)
    one = value_of(builder, a, "a", feeds, ragged_a)
    other = value_of(builder, b, "b", feeds, ragged_b)
    try:
        chosen = choose(builder, condition, one, other)
    except UnsupportedError:
        return
    assert_same(result(builder, chosen, feeds), a if first else b)


def test_text_takes_the_larger_width():
    builder = FoldingBuilder()
    narrow = Text(builder.constant(np.zeros((2, 3), np.uint8)))
    wide = Text(builder.constant(np.zeros((2, 5), np.uint8)))
    layout = join(layout_of(narrow), layout_of(wide))
    assert types(layout) == [TensorType(DType.U8, (2, 5))]
    (node,) = parts(builder, narrow, layout)
    assert node.shape == (2, 5)


def test_a_size_beyond_a_smaller_box_is_checked():
    builder = FoldingBuilder()
    small = layout_of(Ragged(builder.constant(np.zeros(2)), (builder.constant(1, DType.I64),)))
    size = builder.parameter("n", TensorType(DType.I64, ()))
    value = Ragged(builder.parameter("x", TensorType(DType.F64, (4,))), (size,))
    nodes = parts(builder, value, small)
    graph = builder.finish("g", [("y", nodes[0])])
    x = np.arange(4.0)
    assert evaluate(graph, {"n": np.asarray(2), "x": x})["y"].tolist() == [0, 1]
    with pytest.raises(UsageError, match="exceeds 2"):
        evaluate(graph, {"n": np.asarray(3), "x": x})


def test_strings_keep_their_sizes():
    builder = FoldingBuilder()
    size = builder.parameter("n", TensorType(DType.I64, ()))
    open_ = Text(builder.constant(np.zeros((4, 3), np.uint8)), (size,))
    fixed = Text(builder.constant(np.zeros((2, 5), np.uint8)))
    layout = join(layout_of(open_), layout_of(fixed))
    assert types(layout) == [TensorType(DType.U8, (4, 5)), TensorType(DType.I64, ())]
    back = assemble(layout, iter(parts(builder, open_, layout)))
    assert back.extents == (size,)


@pytest.mark.parametrize("first", [True, False])
def test_a_scalar_meets_one_element(first):
    builder = FoldingBuilder()
    scalar = builder.parameter("a", TensorType(DType.F32, ()))
    single = builder.parameter("b", TensorType(DType.F32, (1,)))
    condition = builder.parameter("c", TensorType(DType.BOOL, ()))
    pair = (scalar, single) if first else (single, scalar)
    chosen = choose(builder, condition, *pair)
    feeds = {"a": np.float32(1), "b": np.float32([2]), "c": np.asarray(True)}
    found = result(builder, chosen, feeds)
    np.testing.assert_array_equal(found, [1 if first else 2])
