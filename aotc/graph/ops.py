"""The primitives: for each, its attributes, its type rule and its meaning in numpy.

Elementwise primitives take operands of one exact shape: broadcasting is always explicit, by
`Broadcast`. This module is the full list; the rows themselves are in one module per family. Type
rules raise ValueError with a sentence; `evaluate` gives exactly the inferred type and may return a
view of an operand.
"""

from __future__ import annotations

from aotc.graph.ir import Constant, Op, Parameter
from aotc.graph.ops_control import UNLIMITED, Branch, Item, Repeat, nested_graphs
from aotc.graph.ops_elementwise import (
    TRANSCENDENTAL,
    Binary,
    Bitcast,
    Cast,
    Compare,
    Relabel,
    Select,
    Unary,
)
from aotc.graph.ops_movement import (
    Broadcast,
    Concat,
    Gather,
    GatherElements,
    GatherND,
    Iota,
    Pad,
    Reshape,
    ScatterElements,
    ScatterND,
    Slice,
    Transpose,
)
from aotc.graph.ops_reduce import (
    ArgReduce,
    Conv,
    CumSum,
    Dot,
    Reduce,
    ReduceWindow,
    TopK,
)
from aotc.graph.ops_trees import Trees
from aotc.graph.ops_weights import Widen

LEAVES: tuple[type[Op], ...] = (Parameter, Constant)
ELEMENTWISE: tuple[type[Op], ...] = (Unary, Binary, Compare, Select, Cast, Bitcast)
PRIMITIVES: tuple[type[Op], ...] = (
    *(*ELEMENTWISE, Relabel),
    *(Broadcast, Reshape, Transpose, Slice, Pad, Concat),
    *(Gather, GatherElements, GatherND, ScatterND, ScatterElements, Iota),
    *(Reduce, ArgReduce, CumSum, ReduceWindow, Dot, Conv, TopK),
    *(Branch, Repeat, Item),
    Trees,
    Widen,
)

__all__ = [
    "TRANSCENDENTAL",
    "ELEMENTWISE",
    "LEAVES",
    "PRIMITIVES",
    "UNLIMITED",
    "ArgReduce",
    "Binary",
    "Bitcast",
    "Branch",
    "Broadcast",
    "Cast",
    "Compare",
    "Concat",
    "Constant",
    "Conv",
    "CumSum",
    "Dot",
    "Gather",
    "GatherElements",
    "GatherND",
    "Iota",
    "Item",
    "Op",
    "Pad",
    "Parameter",
    "Reduce",
    "ReduceWindow",
    "Relabel",
    "Repeat",
    "Reshape",
    "ScatterElements",
    "ScatterND",
    "Select",
    "Slice",
    "TopK",
    "Transpose",
    "Trees",
    "Unary",
    "Widen",
    "nested_graphs",
]
