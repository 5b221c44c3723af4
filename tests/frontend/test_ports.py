"""Values into parameters and back: sequences, optionals and strings on the way through a graph."""

import numpy as np
import pytest

from aotc.errors import UsageError
from aotc.frontend.folding import FoldingBuilder
from aotc.frontend.ports import (
    OptionalPort,
    SequencePort,
    TensorPort,
    TextPort,
    input_value,
    output_port,
    pack,
    parameters,
    unpack,
)
from aotc.graph.eval import evaluate
from aotc.graph.types import DType, TensorType

PAIR = TensorType(DType.F32, (2,))
X = np.float32([1, 2])
ITEMS = (TensorPort("s_0", PAIR), TensorPort("s_1", PAIR), TensorPort("s_2", PAIR))
OPEN = SequencePort("s", ITEMS, "s_length")
FIXED = SequencePort("s", ITEMS)
MAYBE = OptionalPort("o", TensorPort("o", PAIR), "o_present")
LIST = OptionalPort("s", OPEN, "s_present")
WORDS = TextPort("w", TensorType(DType.U8, (2, 5)))


def same(found, wanted):
    if isinstance(wanted, list):
        assert len(found) == len(wanted)
        for pair in zip(found, wanted, strict=True):
            same(*pair)
    elif wanted is None:
        assert found is None
    else:
        assert found.tolist() == wanted.tolist()


@pytest.mark.parametrize(
    ("port", "value"),
    [
        (TensorPort("x", PAIR), X),
        (OPEN, []),
        (OPEN, [X, X + 1]),
        (OPEN, [X, X + 1, X + 2]),
        (FIXED, [X, X, X + 5]),
        (MAYBE, X),
        (MAYBE, None),
        (OptionalPort("o", TensorPort("o", PAIR)), X),
        (OptionalPort("o", None), None),
        (LIST, [X]),
        (LIST, None),
        (WORDS, np.array(["", "é\u20ac"], object)),
    ],
)
def test_a_value_comes_through_a_graph_that_gives_it_back(port, value):
    builder = FoldingBuilder()
    inside = input_value(builder, port, {})
    back, outputs = output_port(builder, port.name, inside)
    arrays = pack(port, value)
    assert sorted(arrays) == sorted(parameters(port))
    if outputs:
        results = evaluate(builder.finish("g", outputs), arrays)
        same(unpack(back, results), value)


@pytest.mark.parametrize(
    ("port", "value", "words"),
    [
        (OPEN, [X] * 4, "has 4 elements, the model takes 3"),
        (FIXED, [X], "has 1 elements, the model takes 3"),
        (OptionalPort("o", None), X, "is given, but"),
        (OptionalPort("o", TensorPort("o", PAIR)), None, "is missing, but"),
        (WORDS, np.array(["", "longer"], object), "a string of 6 bytes, the bound is 5"),
        (WORDS, np.array(["one"], object), "has shape"),
    ],
)
def test_values_that_do_not_fit(port, value, words):
    with pytest.raises(UsageError, match=words):
        pack(port, value)


@pytest.mark.parametrize("count", [-1, 4])
def test_a_length_outside_the_capacity_fails_at_run_time(count):
    builder = FoldingBuilder()
    value = input_value(builder, OPEN, {})
    graph = builder.finish("g", [("n", value.length)])
    arrays = {**pack(OPEN, [X]), "s_length": np.asarray(count)}
    with pytest.raises(UsageError, match="'s_length' is more than 3, or negative"):
        evaluate(graph, arrays)
