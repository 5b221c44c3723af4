"""A graph taken all the way: lowered, verified, planned, evaluated and run as machine code."""

import contextlib
import platform

import llvmlite.binding as llvm
import numpy as np
import pytest
from handmade import compile_program
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import aotc.lower.program
from aotc.fuse.groups import VIEW_OPS, fuse
from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.eval import evaluate
from aotc.graph.ir import Constant, Parameter
from aotc.graph.types import DType, TensorType
from aotc.loop.eval import run_program
from aotc.loop.verify import verify_program
from aotc.lower.program import lower
from aotc.memory.arena import plan_memory
from aotc.memory.check import check_plan
from aotc.passes.explicit_pad import explicit_pad
from aotc.passes.runner import pipeline, run_passes
from aotc.permission import may_use_tiles
from aotc.target import resolve_target

BASE = resolve_target("x86_64")
WIDE = resolve_target("x86_64", "x86-64-v4")
NEON = resolve_target("aarch64")


def for_all(strategy, quick, slow):
    """Makes a property of drawn cases a test of ``quick`` cases, if any, and a slow one of
    ``slow``."""
    numbers = [*([quick] if quick else []), pytest.param(slow, marks=pytest.mark.slow)]

    def decorate(body):
        @pytest.mark.parametrize("cases", numbers)
        def run(cases):
            profile = settings(
                max_examples=cases, deadline=None, suppress_health_check=[HealthCheck.too_slow]
            )
            profile(given(strategy)(body))()

        run.__name__, run.__doc__ = body.__name__, body.__doc__
        return run

    return decorate


def runs_here(target):
    """Whether this machine can execute code for ``target``."""
    if target.name != "x86_64" or platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    features = llvm.get_host_cpu_features()
    needed = ["avx2", "fma"] if target is BASE else ["avx512f", "avx512bw", "avx512dq", "avx512vl"]
    if target.tiles and not may_use_tiles():
        return False
    needed += ["amx-int8"] * target.tiles
    return all(features.get(feature) for feature in needed)


def values_of(type_, seed):
    """Values that no chain of a few operators takes out of range: floats near 1, small integers."""
    random = np.random.default_rng(seed)
    dtype = type_.dtype.numpy
    if type_.dtype.is_float:
        return random.uniform(-1.5, 1.5, type_.dims).astype(dtype)
    low = 0 if dtype.kind in "bu" else -9
    return random.integers(low, 2 if dtype.kind == "b" else 10, type_.dims).astype(dtype)


def inputs_of(graph, seed=0):
    return {x.op.name: values_of(x.type, seed + i) for i, x in enumerate(graph.inputs)}


class Net:
    """A graph under construction with numbered inputs and constants of drawn values."""

    def __init__(self, seed=0):
        self.b = Builder()
        self.seed = seed
        self.outputs = []

    def _next(self):
        self.seed += 1
        return self.seed

    def x(self, *shape, dtype=DType.F32):
        return self.b.parameter(f"x{self._next()}", TensorType(dtype, shape))

    def c(self, *shape, dtype=DType.F32):
        return self.b.constant(values_of(TensorType(dtype, shape), self._next()))

    def out(self, node):
        self.outputs.append((f"y{len(self.outputs)}", node))
        return node

    def viewed(self, draw, shape, dtype=DType.F32, made=False):
        """A tensor of ``shape`` that is an input, a constant or (``made``) a result, seen through a
        drawn view: transposed, stretched, cut out, or read backwards."""
        make = draw(st.sampled_from([self.x, self.x, self.c]))
        view = draw(st.sampled_from(["plain", "transposed", "stretched", "cut", "reversed"]))
        rank = len(shape)
        perm = tuple(draw(st.permutations(range(rank)))) if view == "transposed" else ()
        stored = tuple(shape)
        if view == "transposed":
            stored = tuple(shape[perm.index(axis)] for axis in range(rank))
        elif view == "stretched":
            stored = tuple(draw(st.sampled_from([dim, 1])) for dim in shape)
        elif view == "cut":
            stored = tuple(2 * dim + 1 for dim in shape)
        node = make(*stored, dtype=dtype)
        if made and dtype is not DType.BOOL:
            node = self.b.unary("abs", node)
        if view == "transposed":
            return self.b.transpose(node, perm)
        if view == "stretched":
            return self.b.broadcast(node, tuple(shape))
        if view == "cut":
            steps = tuple(draw(st.sampled_from([1, 2])) for _ in shape)
            starts = (1,) * rank
            return self.b.apply(ops.Slice(starts, tuple(shape), steps), node) if rank else node
        if view == "reversed" and rank:
            starts = tuple(dim - 1 for dim in shape)
            return self.b.apply(ops.Slice(starts, tuple(shape), (-1,) * rank), node)
        return node

    def graph(self, *nodes):
        for node in nodes:
            self.out(node)
        return self.b.finish("net", self.outputs)


def lowered(graph, target=BASE):
    """The verified program of ``graph`` as it is, its memory plan proved free of conflicts."""
    groups = fuse(graph)
    check_partition(groups)
    program = lower(groups, target, "net")
    verify_program(program)
    check_plan(program, plan_memory(program))
    return program


def check_partition(groups):
    """Every node is in exactly one group, or is a leaf, or is a view; groups come in order."""
    member_of = {}
    for position, group in enumerate(groups.groups):
        for node in group.nodes:
            assert node not in member_of, node
            member_of[node] = position
        assert {group.anchor, *group.results} <= set(group.nodes)
    leaves = (Parameter, Constant, ops.Item, ops.Widen, *VIEW_OPS)
    for node in groups.graph.nodes():
        apart = node in groups.widened or isinstance(node.op, leaves)
        assert node in member_of or apart, node
    outputs = {node for _, node in groups.graph.outputs}
    for node in groups.graph.nodes():
        for operand in node.inputs:
            made, read = member_of.get(operand), member_of.get(node)
            if made is not None and made != read:
                assert operand in groups.groups[made].results
    for position, group in enumerate(groups.groups):
        assert not any(node in outputs for node in group.nodes if node not in group.results)
        seen, work = set(), [operand for node in group.nodes for operand in node.inputs]
        while work:
            node = work.pop()
            made = member_of.get(node)
            assert made is None or made <= position
            if made is None and node not in seen:
                seen.add(node)
                work.extend(node.inputs)


def assert_close(found, wanted, rtol):
    """Equal types; floats within ``rtol`` of the largest magnitude, everything else exactly."""
    assert found.dtype == wanted.dtype and found.shape == wanted.shape
    if wanted.dtype.kind != "f":
        np.testing.assert_array_equal(found, wanted)
        return
    finite = np.abs(wanted[np.isfinite(wanted)].astype(np.float64))
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(
            found.astype(np.float64),
            wanted.astype(np.float64),
            rtol=rtol,
            atol=rtol * max(float(finite.max(initial=0)), 1.0),  # inputs are near 1, and may cancel
        )


def assert_same_bytes(found, wanted):
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(
            found[name].reshape(-1).view(np.uint8), array.reshape(-1).view(np.uint8), name
        )


def tolerance(graph):
    half = any(node.type.dtype is DType.F16 for node in graph.nodes())
    return 1e-2 if half else 1e-5


def check(graph, seed=0, native=True, passes=True, targets=(BASE,), inputs=None):
    """Lower ``graph`` for every target and demand: the evaluator of the loop IR agrees with the
    reference, and every target and the machine code agree with it bit for bit. Without ``passes``
    only the padding is made explicit, which the lowering needs. Returns the last program."""
    inputs = inputs_of(graph, seed) if inputs is None else inputs
    wanted = evaluate(graph, inputs)
    made = {
        signed: run_passes(graph, pipeline(DType.I8 if signed else DType.U8))
        if passes
        else explicit_pad(graph)
        for signed in {target.signed_codes for target in targets}
    }
    first = None
    for target in targets:
        program = lowered(made[target.signed_codes], target)
        found = run_program(program, inputs)
        if first is None:
            first = found
            for name, array in wanted.items():
                assert_close(found[name], array, tolerance(graph))
        assert_same_bytes(found, first)
        if native and runs_here(target):
            assert_same_bytes(compile_program(program, target=target).run_dict(inputs), first)
    return program


@contextlib.contextmanager
def forced_recipe(choose):
    """Contractions are tiled as ``choose(sizes, target)`` says."""
    original = aotc.lower.program.choose_contract
    aotc.lower.program.choose_contract = choose
    try:
        yield
    finally:
        aotc.lower.program.choose_contract = original
