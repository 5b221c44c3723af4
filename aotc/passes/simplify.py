"""Algebraic simplification: a graph goes in, an equal graph with less to compute comes out."""

from __future__ import annotations

from aotc.graph import ops
from aotc.graph.ir import Graph, Op
from aotc.passes import rules_arithmetic as arithmetic
from aotc.passes import rules_movement as movement
from aotc.passes.rewrite import Rule, rewrite


def simplify(graph: Graph) -> Graph:
    """Apply the rules below, each of which keeps the values: exactly, or within one rounding where
    it joins two constants."""
    return rewrite(graph, RULES)


RULES: dict[type[Op], tuple[Rule, ...]] = {
    ops.Unary: (
        arithmetic.sink_below_broadcast,
        arithmetic.drop_double_unary,
        arithmetic.reciprocal_to_sigmoid,
    ),
    ops.Binary: (
        arithmetic.constant_to_the_right,
        arithmetic.subtract_to_add,
        arithmetic.divide_to_multiply,
        arithmetic.drop_identity_operand,
        arithmetic.drop_repeated_operand,
        arithmetic.expand_power,
        arithmetic.join_constants,
        arithmetic.join_factors,
        arithmetic.add_negated,
        arithmetic.quotient_to_sigmoid,
        arithmetic.sink_below_broadcast,
    ),
    ops.Compare: (arithmetic.sink_below_broadcast,),
    ops.Select: (arithmetic.decide_select, arithmetic.sink_below_broadcast),
    ops.Cast: (arithmetic.drop_cast, arithmetic.sink_below_broadcast),
    ops.Bitcast: (arithmetic.join_bitcasts,),
    ops.Broadcast: (movement.join_broadcasts,),
    ops.Reshape: (movement.join_reshapes, movement.sink_reshape_below_broadcast),
    ops.Transpose: (movement.join_transposes, movement.transpose_to_reshape),
    ops.Slice: (movement.join_slices,),
    ops.Pad: (movement.join_pads,),
    ops.Concat: (movement.join_concat,),
    ops.Gather: (movement.gather_to_slice,),
    ops.Reduce: (movement.drop_reduce,),
}
