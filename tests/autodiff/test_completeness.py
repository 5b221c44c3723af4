"""Every primitive, and every function of one, has derivatives and a batch, or a reason why not;
those of drawn applications agree with differences."""

import dataclasses

import numpy as np
import pytest
from gradient_checks import Sketch, check
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from test_batch import check as check_batch

from aotc.autodiff.batch_rules import BATCHED
from aotc.autodiff.elementwise import FLAT, SLOPES
from aotc.autodiff.tables import CONTROL, EXPAND, NOT_DIFFERENTIABLE, RULES
from aotc.graph import ops
from aotc.graph.eval import evaluate
from aotc.graph.ops_elementwise import BINARY_FUNCTIONS, UNARY_FUNCTIONS
from aotc.graph.types import DType, TensorType
from tests.graph.graph_cases import APPLICATIONS

WITHOUT_DERIVATIVE = {
    "Compare": "its result is true or false",
    "ArgReduce": "its result is an index",
    "TopK": "its result is an index",
    "Iota": "it has no operand",
    "Bitcast": "bits are no numbers",
    "Relabel": "the same memory under another name",
    "Trees": "constant between its thresholds",
    "Widen": "made by passes, after derivatives are taken",
}
WITHOUT_BATCH = {
    "Iota": "it has no operand",
    "Branch": "control flow goes by its nested graphs",
    "Repeat": "control flow goes by its nested graphs",
    "Item": "it takes a tuple apart, which the walk does",
    "Widen": "it takes constants",
}
WHOLE_UNARY = {
    "not": "of bools",
    "bitnot": "of integers",
    "isnan": "its result is true or false",
    "isinf": "its result is true or false",
}
WHOLE_BINARY = dict.fromkeys(("and", "or", "xor", "shl", "shr"), "of bools and integers")


def names(kinds):
    return {kind.__name__ for kind in kinds}


def test_every_primitive_has_derivatives_or_a_reason():
    groups = [names(RULES), names(CONTROL), set(WITHOUT_DERIVATIVE)]
    assert set.union(*groups) == names(ops.PRIMITIVES)
    assert sum(map(len, groups)) == len(ops.PRIMITIVES)
    assert names(NOT_DIFFERENTIABLE) == set(WITHOUT_DERIVATIVE)
    assert set(EXPAND) < set(RULES)
    for rule in RULES.values():
        assert callable(rule.jvp) and callable(rule.vjp)


def test_every_primitive_has_a_batch_or_a_reason():
    groups = [names(BATCHED), set(WITHOUT_BATCH)]
    assert set.union(*groups) == names(ops.PRIMITIVES)
    assert not set.intersection(*groups)


def test_every_function_of_floats_has_a_slope():
    groups = [set(SLOPES), FLAT, {"neg"}, set(WHOLE_UNARY)]
    assert set.union(*groups) == UNARY_FUNCTIONS
    assert sum(map(len, groups)) == len(UNARY_FUNCTIONS)
    assert set(WHOLE_BINARY) < BINARY_FUNCTIONS


NEAR = (-0.9, 0.9)
DOMAINS = {
    **dict.fromkeys(FLAT | set(SLOPES) | {"neg"}, NEAR),
    **dict.fromkeys(("log", "sqrt", "reciprocal"), (0.4, 2.0)),
    "acosh": (1.2, 3.0),
}
"""Where each function is smooth, or constant but for a few jumps."""


def in_float64(op, types):
    """The application with float64 in place of its floats, and padding by a finite number."""
    wide = [TensorType(DType.F64, x.dims) if x.dtype.is_float else x for x in types]
    if isinstance(op, ops.Cast):
        op = ops.Cast(DType.F64)
    return dataclasses.replace(op, value=1.0) if isinstance(op, ops.Pad) else op, wide


def feeds_of(op, graph, seed):
    """Floats where ``op`` is smooth, all of them different; indices in and out of range."""
    rng = np.random.default_rng(seed)
    fn = getattr(op, "fn", "")
    low, high = DOMAINS.get(fn, NEAR) if isinstance(op, ops.Unary) else (0.3, 2.5)
    feeds = {}
    for node in graph.inputs:
        count, dtype = node.type.elems, node.type.dtype
        if dtype.is_float:
            steps = (rng.permutation(count) + rng.uniform(0.2, 0.8)) / max(count, 1)
            values = low + (high - low) * steps
        else:
            values = rng.integers(0, 2 if dtype is DType.BOOL else 5, count)
        feeds[node.op.name] = np.asarray(values, dtype.numpy).reshape(node.shape)
    return feeds


def application(op, types):
    s = Sketch()
    operands = [s.x(*x.dims, dtype=x.dtype) for x in types]
    return s.graph(s.b.apply(op, *operands))


DRAWN = sorted(set(RULES), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("cases", [3, pytest.param(40, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", DRAWN, ids=lambda kind: kind.__name__)
def test_drawn_applications(kind, cases):
    @settings(max_examples=cases, deadline=None, suppress_health_check=list(HealthCheck))
    @given(APPLICATIONS[kind](), st.integers(0, 9))
    def run(drawn, seed):
        op, types = in_float64(*drawn)
        assume(any(x.dtype.is_float for x in types))
        graph = application(op, types)
        assume(graph.outputs[0][1].type.dtype.is_float)
        feeds = feeds_of(op, graph, seed)
        # a window that sees nothing but padding has no finite maximum
        assume(all(np.isfinite(value).all() for value in evaluate(graph, feeds).values()))
        check(graph, feeds, seed)
        mask = [bool(seed >> at & 1) for at in range(len(types))]
        axes = [0 if batched or not any(mask) else None for batched in mask]
        check_batch(graph, axes, lambda graph, more: feeds_of(op, graph, seed + more))

    run()
