"""One primitive as a whole program: lowered, verified, run, and compared with the reference."""

import numpy as np
from handmade import compile_program
from hypothesis import strategies as st

from aotc.fuse.groups import fuse
from aotc.graph.build import Builder
from aotc.graph.eval import evaluate
from aotc.graph.types import DType, TensorType
from aotc.loop.eval import run_program
from aotc.loop.verify import verify_program
from aotc.lower.program import lower
from aotc.target import resolve_target

TARGET = resolve_target("x86_64")


class Fixed:
    """An operand that is a graph constant."""

    def __init__(self, values):
        self.values = np.asarray(values)


class Swapped:
    """An operand that reaches the primitive through a transposing view."""

    def __init__(self, values):
        self.values = np.asarray(values)


def build(op, *operands):
    """(graph, inputs) of ``op`` on arrays, `Fixed` constants and `Swapped` views."""
    builder, inputs, nodes = Builder(), {}, []
    for number, operand in enumerate(operands):
        if isinstance(operand, Fixed):
            nodes.append(builder.constant(operand.values))
            continue
        values = operand.values.T if isinstance(operand, Swapped) else operand
        values = np.ascontiguousarray(values).reshape(values.shape)
        inputs[f"x{number}"] = values
        node = builder.parameter(f"x{number}", TensorType(DType.of(values), values.shape))
        if isinstance(operand, Swapped):
            node = builder.transpose(node, tuple(reversed(range(values.ndim))))
        nodes.append(node)
    return builder.finish("case", [("y", builder.apply(op, *nodes))]), inputs


def lowered(graph):
    """The verified program of a graph."""
    program = lower(fuse(graph), TARGET, "case")
    verify_program(program)
    return program


def check(op, *operands, native=False, interpreted=True):
    """Run the lowered primitive and demand the reference's values exactly."""
    graph, inputs = build(op, *operands)
    program = lowered(graph)
    wanted = evaluate(graph, inputs)["y"]
    if interpreted:
        np.testing.assert_array_equal(run_program(program, inputs)["y"], wanted)
    if native:
        found = compile_program(program, target=TARGET).run_dict(inputs)["y"]
        np.testing.assert_array_equal(found, wanted)
    return program


def numbers(dtype, shape, seed, special=False):
    """Small values with many ties; ``special`` adds NaN, infinities and both zeros to floats."""
    random = np.random.default_rng(seed)
    low = 0 if np.dtype(dtype).kind == "u" else -4
    values = random.integers(low, 5, shape).astype(dtype)
    if special and np.dtype(dtype).kind == "f":
        odd = random.choice([np.nan, np.inf, -np.inf, 0.0, -0.0], shape)
        values = np.where(random.random(shape) < 0.4, odd, values).astype(dtype)
    return values


@st.composite
def tensors(draw, special=True):
    """(operand, axis): a small tensor of any number type, maybe behind a transposing view."""
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=3)))
    dtypes = ["float32", "float64", "int32", "int64", "uint8", "int8", "float16"]
    values = numbers(draw(st.sampled_from(dtypes)), shape, draw(st.integers(0, 999)), special)
    axis = draw(st.integers(0, len(shape) - 1))
    return (Swapped(values) if draw(st.booleans()) else values), axis
