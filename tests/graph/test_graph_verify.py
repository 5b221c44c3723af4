"""The verifier accepts what the builder makes and names what is wrong with doctored graphs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from graph_cases import graphs
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aotc.errors import VerifyError
from aotc.graph import ops
from aotc.graph.ir import Constant, Graph, Node, Op, Parameter
from aotc.graph.types import DType, TensorType
from aotc.graph.verify import verify_graph

F32_2 = TensorType(DType.F32, (2,))
X = Node(Parameter("x"), (), F32_2)
EXP = Node(ops.Unary("exp"), (X,), F32_2, origin="layer")


def frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def constant(data: np.ndarray | None, type_: TensorType = F32_2) -> Node:
    return Node(Constant("00"), (), type_, data=data)


def graph_of(*nodes: Node, inputs: tuple[Node, ...] = (X,)) -> Graph:
    return Graph("g", inputs, tuple((f"y{i}", node) for i, node in enumerate(nodes)))


@settings(max_examples=40, deadline=None)
@given(graphs())
def test_built_graphs_pass(graph: Graph) -> None:
    verify_graph(graph)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(graphs(), st.data())
def test_a_wrong_type_anywhere_is_found(graph: Graph, data: st.DataObject) -> None:
    computed = [n for n in graph.nodes() if not isinstance(n.op, Parameter)]
    assume(computed)
    victim = data.draw(st.sampled_from(computed))
    wrong = TensorType(victim.type.dtype, (*victim.type.shape, 1))
    object.__setattr__(victim, "type", wrong)
    with pytest.raises(VerifyError):
        verify_graph(graph)


@dataclass(frozen=True)
class Foreign(Op):
    """An operator that is no primitive, although it has a type rule."""

    def infer(self, *operands: TensorType) -> TensorType:
        return operands[0]


WRITEABLE = np.zeros(2, np.float32)
STRIDED = frozen(np.zeros(4, np.float32)[::2])
SWAPPED = frozen(np.zeros(2, ">f4"))
Y = Node(Parameter("y"), (), F32_2)


@pytest.mark.parametrize(
    ("graph", "sentence"),
    [
        (graph_of(replace(EXP, type=TensorType(DType.F32, (3,)))), "its rule gives float32[2]"),
        (graph_of(replace(EXP, type=TensorType(DType.F64, (2,)))), "its type is float64[2]"),
        (graph_of(replace(EXP, inputs=())), "takes 1 operands, got 0"),
        (graph_of(replace(EXP, op=ops.Unary("cube"))), "no function 'cube'"),
        (graph_of(replace(EXP, op=Foreign())), "Foreign is not a primitive"),
        (graph_of(replace(EXP, data=frozen(np.zeros(2)))), "only a constant may carry values"),
        (graph_of(Y), "parameter 'y' is not an input"),
        (graph_of(X, inputs=(EXP,)), "the input unary is not a parameter"),
        (graph_of(X, inputs=(X, X)), "two inputs are named 'x'"),
        (graph_of(X, inputs=(X, replace(Y, op=Parameter("x")))), "two inputs are named 'x'"),
        (Graph("g", (X,), (("y", X), ("y", EXP))), "two outputs are named 'y'"),
        (graph_of(constant(None)), "has no values"),
        (graph_of(constant(WRITEABLE)), "are writeable"),
        (graph_of(constant(STRIDED)), "C-contiguous"),
        (graph_of(constant(SWAPPED)), "native"),
        (graph_of(constant(frozen(np.zeros(3, np.float32)))), "its values are float32(3,)"),
        (graph_of(constant(frozen(np.zeros(2, np.int32)))), "its values are int32(2,)"),
        (graph_of(constant(frozen(np.array(["a", "b"])))), "not a valid DType"),
        (
            graph_of(replace(constant(frozen(np.zeros(2, np.float32))), inputs=(X,))),
            "a constant takes no operands",
        ),
    ],
)
def test_doctored_graphs_are_rejected(graph: Graph, sentence: str) -> None:
    with pytest.raises(VerifyError) as caught:
        verify_graph(graph)
    assert sentence in str(caught.value)
    assert "graph 'g'" in str(caught.value)


def test_a_parameter_with_operands_is_rejected() -> None:
    odd = replace(Y, inputs=(X,))
    with pytest.raises(VerifyError, match="a parameter takes no operands"):
        verify_graph(graph_of(odd, inputs=(X, odd)))


def test_a_cycle_is_rejected() -> None:
    first = replace(EXP)
    second = Node(ops.Unary("neg"), (first,), F32_2)
    object.__setattr__(first, "inputs", (second,))
    with pytest.raises(VerifyError, match="cycle"):
        verify_graph(graph_of(second))
    itself = replace(EXP)
    object.__setattr__(itself, "inputs", (itself,))
    with pytest.raises(VerifyError, match="cycle"):
        verify_graph(graph_of(itself))


def test_the_message_names_the_node_of_the_model() -> None:
    with pytest.raises(VerifyError, match=r"node 1 \(unary from 'layer'\)"):
        verify_graph(graph_of(replace(EXP, inputs=())))
