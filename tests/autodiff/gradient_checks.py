"""What the tests of derivatives share: float64 graphs, and differences along directions."""

import numpy as np

from aotc.autodiff.transform import jvp, vjp
from aotc.graph.build import Builder
from aotc.graph.eval import evaluate
from aotc.graph.types import DType, TensorType
from aotc.graph.verify import verify_graph


class Sketch:
    """A float64 graph under construction."""

    def __init__(self):
        self.b = Builder()

    def x(self, *shape, dtype=DType.F64):
        name = f"x{len(self.b._inputs)}"
        return self.b.parameter(name, TensorType(dtype, shape))

    def graph(self, *outputs):
        return self.b.finish("sketch", [(f"y{i}", node) for i, node in enumerate(outputs)])


def drawn(graph, seed=0, low=-1.5, high=1.5):
    """Values for every input."""
    random = np.random.default_rng(seed)
    result = {}
    for node in graph.inputs:
        dtype = node.type.dtype.numpy
        if node.type.dtype.is_float:
            result[node.op.name] = random.uniform(low, high, node.shape).astype(dtype)
        else:
            result[node.op.name] = random.integers(0, 2, node.shape).astype(dtype)
    return result


def floats_of(values):
    return {name: value for name, value in values.items() if value.dtype.kind == "f"}


def directions(values, seed):
    random = np.random.default_rng(seed)
    return {name: np.asarray(random.normal(size=x.shape)) for name, x in floats_of(values).items()}


def difference(graph, feeds, tangents, step=1e-6):
    """The derivative of each float output along ``tangents``, by central differences."""
    ends = []
    for sign in (1, -1):
        moved = {**feeds, **{name: feeds[name] + sign * step * t for name, t in tangents.items()}}
        ends.append(floats_of(evaluate(graph, moved)))
    return {name: (ends[0][name] - ends[1][name]) / (2 * step) for name in ends[0]}


def added(graph, derived, given):
    """``given``, by the floats of ``graph`` in order, under the names of the further inputs of
    ``derived``."""
    names = [node.op.name for node in derived.inputs[len(graph.inputs) :]]
    return dict(zip(names, given, strict=True))


def further(graph, found):
    """The results of a derivative after those of ``graph`` itself."""
    return list(found.values())[len(graph.outputs) :]


def ordered(graph, values):
    """What belongs to the float inputs of ``graph``, in their order."""
    return [values[node.op.name] for node in graph.inputs if node.op.name in values]


def check(graph, feeds=None, seed=0, rtol=2e-5, numerical=True, reverse=True):
    """Forward mode agrees with differences, and reverse mode with forward mode."""
    feeds = drawn(graph, seed) if feeds is None else feeds
    tangents = directions(feeds, seed + 1)
    forward = jvp(graph)
    verify_graph(forward)
    plain = evaluate(graph, feeds)
    found = evaluate(forward, {**feeds, **added(graph, forward, ordered(graph, tangents))})
    for name, value in plain.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-12)
    moved = further(graph, found)
    if numerical:
        rights = difference(graph, feeds, tangents).values()
        for tangent, right in zip(moved, rights, strict=True):
            scale = max(float(np.abs(right).max(initial=0)), 1.0)
            np.testing.assert_allclose(tangent, right, rtol=rtol, atol=rtol * scale)
    if reverse:
        check_transposed(graph, feeds, tangents, moved, seed, rtol)


def check_transposed(graph, feeds, tangents, moved, seed, rtol):
    """<cotangents, J tangents> = <J^T cotangents, tangents>."""
    backward = vjp(graph)
    verify_graph(backward)
    outers = list(directions(evaluate(graph, feeds), seed + 2).values())
    found = evaluate(backward, {**feeds, **added(graph, backward, outers)})
    gradients = zip(ordered(graph, tangents), further(graph, found), strict=True)
    left = sum(np.vdot(u, t) for u, t in zip(outers, moved, strict=True))
    right = sum(np.vdot(t, gradient) for t, gradient in gradients)
    np.testing.assert_allclose(right, left, rtol=rtol / 100, atol=rtol / 100 * max(abs(left), 1))
