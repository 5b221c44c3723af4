"""Operators, element types and shapes drawn at random: native code against ONNX's reference.

Shapes have rank 0 to 6, with axes of size 0 and 1; axes and steps may be negative. Every operand of
the model's own is an input of the compiled function.
"""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx_cases import model_of

from aotc import onnx_backend

OPSET = 22
FLOATS = (np.float32, np.float64)
INTS = (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64)
ALL = (*FLOATS, *INTS, np.bool_)

UNARY = {
    **dict.fromkeys(("Abs", "Neg", "Sign"), (*FLOATS, np.int8, np.int32, np.int64)),
    **dict.fromkeys(("Ceil", "Floor", "Round", "Sqrt", "Exp", "Sigmoid", "Tanh"), FLOATS),
    **dict.fromkeys(("Relu", "Softplus", "Erf", "Cos", "IsNaN"), (np.float32,)),
    "Not": (np.bool_,),
    "BitwiseNot": INTS,
    "Identity": ALL,
}
BINARY = {
    **dict.fromkeys(("Add", "Sub", "Mul"), (*FLOATS, *INTS)),
    "Div": FLOATS,
    **dict.fromkeys(("Max", "Min"), (*FLOATS, np.int32, np.int64, np.uint8)),
    **dict.fromkeys(("Equal",), ALL),
    **dict.fromkeys(("Less", "GreaterOrEqual"), (*FLOATS, *INTS)),
    **dict.fromkeys(("And", "Or", "Xor"), (np.bool_,)),
    **dict.fromkeys(("BitwiseAnd", "BitwiseXor"), INTS),
}
REDUCE = ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceMean", "ReduceProd", "ReduceL2")


def shapes(least=0, most=6):
    """Sizes of 0 are rare, since little happens to them."""
    size = st.sampled_from([0, 1, 1, 2, 2, 3, 3, 4, 5])
    return st.lists(size, min_size=least, max_size=most).map(tuple)


def values(draw, dtype, shape):
    """Small whole numbers and halves, which sums and products of every type keep exactly."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 16)))
    if dtype == np.bool_:
        return np.asarray(rng.integers(0, 2, shape), dtype)
    low = 0 if np.dtype(dtype).kind == "u" else -6
    whole = rng.integers(low, 7, shape)
    return np.asarray(whole / 2 if np.dtype(dtype).kind == "f" else whole, dtype)


def compare(op, feeds, attrs, constants=(), tolerance=1e-5):
    """One node on ``feeds``, all of them inputs, and ``constants``."""
    node = helper.make_node(op, [*feeds, *dict(constants)], ["y"], **attrs)
    model = model_of([node], feeds, ["y"], constants, OPSET)
    (wanted,) = ReferenceEvaluator(model).run(None, feeds)
    (found,) = onnx_backend.prepare(model).run(list(feeds.values()))
    assert (found.dtype, found.shape) == (np.asarray(wanted).dtype, np.shape(wanted)), model
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


@st.composite
def elementwise(draw):
    table = draw(st.sampled_from([UNARY, BINARY]))
    op = draw(st.sampled_from(sorted(table)))
    dtype = draw(st.sampled_from(table[op]))
    shape = draw(shapes())
    x = values(draw, dtype, shape)
    if op == "Sqrt":
        x = np.asarray(np.abs(x))
    if table is UNARY:
        return op, {"x": x}, {}
    # the other operand lacks leading axes, or has size 1 where this one has more
    keep = draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)))
    other = [size if kept else 1 for size, kept in zip(shape, keep, strict=True)]
    other = tuple(other[draw(st.integers(0, len(shape))) :])
    b = values(draw, dtype, other)
    if op == "Div":
        b = np.asarray(np.where(b == 0, 1, b), dtype)
    return op, {"a": x, "b": b} if draw(st.booleans()) else {"b": b, "a": x}, {}


@st.composite
def reductions(draw):
    op = draw(st.sampled_from(REDUCE))
    shape = draw(shapes())
    if op in ("ReduceMax", "ReduceMin", "ReduceMean"):
        shape = tuple(max(size, 1) for size in shape)  # nothing has no mean
    dtype = draw(st.sampled_from((np.float32, np.float64, np.int32, np.int64)))
    if op in ("ReduceL2", "ReduceMean"):
        dtype = np.float32
    feeds = {"x": values(draw, dtype, shape)}
    attrs = {"keepdims": draw(st.integers(0, 1))}
    if op == "ReduceProd":
        feeds["x"] = np.asarray(np.sign(feeds["x"]))
    axes = draw(st.lists(st.sampled_from(range(len(shape))), unique=True)) if shape else []
    back = draw(st.booleans())
    chosen = np.array([axis - len(shape) * back for axis in axes], np.int64)
    return op, feeds, attrs, {"axes": chosen}


@st.composite
def movements(draw):
    op = draw(st.sampled_from(["Transpose", "Concat", "Flatten", "Gather", "GatherElements"]))
    dtype = draw(st.sampled_from(ALL))
    least = 0 if op in ("Transpose", "Flatten") else 1
    shape = draw(shapes(least))
    rank = len(shape)
    if op == "Flatten":
        shape = tuple(max(size, 1) for size in shape)  # the reference fails on nothing
    x = values(draw, dtype, shape)
    if op == "Transpose":
        return op, {"x": x}, {"perm": draw(st.permutations(range(rank)))} if rank else {}
    axis = draw(st.integers(-rank, rank - 1)) if rank else 0
    if op == "Flatten":
        return op, {"x": x}, {"axis": axis}
    if op == "Concat":
        other = list(shape)
        other[axis] = draw(st.integers(0, 3))
        return op, {"x": x, "z": values(draw, dtype, tuple(other))}, {"axis": axis}
    size = shape[axis]
    wanted = draw(shapes(0, 2)) if size else (0,)
    if op == "GatherElements":
        wanted = (*shape[: axis % rank], 2 if size else 0, *shape[axis % rank + 1 :])
    rng = np.random.default_rng(draw(st.integers(0, 1 << 16)))
    index = rng.integers(-size, size, wanted) if size else np.zeros(wanted, np.int64)
    if op == "GatherElements":
        axis %= rank  # the reference takes a negative one for a place from the front
    return op, {"x": x, "i": index.astype(np.int64)}, {"axis": axis}


@st.composite
def slices(draw):
    """Slice with bounds and steps that are inputs; ONNX clamps bounds beyond the ends."""
    shape = draw(shapes(1))
    axes = draw(st.lists(st.sampled_from(range(len(shape))), min_size=1, unique=True))
    count = len(axes)
    bound = st.lists(st.integers(-7, 7), min_size=count, max_size=count)
    steps = st.lists(st.sampled_from([-3, -2, -1, 1, 2, 3]), min_size=count, max_size=count)
    back = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    axes = [axis - len(shape) if flip else axis for axis, flip in zip(axes, back, strict=True)]
    parts = {"starts": draw(bound), "ends": draw(bound), "axes": axes, "steps": draw(steps)}
    feeds = {"x": values(draw, draw(st.sampled_from(ALL)), shape)}
    return feeds | {name: np.array(part, np.int64) for name, part in parts.items()}


QUICK = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
LONG = settings(QUICK, max_examples=150)


@QUICK
@given(st.one_of(elementwise(), reductions(), movements()))
def test_one_operator(drawn):
    compare(*drawn)


@pytest.mark.slow
@QUICK
@given(slices())
def test_slices_chosen_at_run_time(feeds):
    compare("Slice", feeds, {})


@pytest.mark.slow
@LONG
@given(st.one_of(elementwise(), reductions(), movements()))
def test_one_operator_at_length(drawn):
    compare(*drawn)


@pytest.mark.slow
@LONG
@given(slices())
def test_slices_chosen_at_run_time_at_length(feeds):
    compare("Slice", feeds, {})
