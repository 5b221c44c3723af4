"""Products of one matrix: a graph in which several products share their left-hand side goes in, one
with a single product, sliced by columns, comes out.

For targets on which a launch costs as much as a small product: the queries, keys and values of an
attention are one kernel then, with more blocks. A product that is followed by arithmetic stays as
it is, because that would no longer be part of its kernel; but for vectors of constants that are
added, which are joined as the weights are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Graph, Node
from aotc.passes.rewrite import reemit


@dataclass(frozen=True)
class _Product:
    """``value`` is the product ``dot`` by constants, with the constant vector ``added`` to each row
    if there is one."""

    dot: Node
    value: Node
    added: np.ndarray | None


def join_products(graph: Graph) -> Graph:
    """``graph`` with joined products. Each of its sums keeps its terms and their order. Nested
    graphs stay as they are."""
    joined = {
        product.value: (number, tuple(products))
        for products in _found(graph)
        for number, product in enumerate(products)
    }
    made: dict[Node, Node] = {}

    def emit(builder: Builder, node: Node, new: Mapping[Node, Node]) -> Node | None:
        if node not in joined:
            return None
        number, products = joined[node]
        first = products[0].value
        if first not in made:
            made[first] = _join(builder, products, new)
        begin = sum(product.value.shape[1] for product in products[:number])
        part = ops.Slice((0, begin), node.shape, (1, 1))
        return builder.apply(part, made[first], origin=node.origin)

    return reemit(graph, emit)


def _found(graph: Graph) -> list[list[_Product]]:
    """Products that become one: of one left-hand side, all with an added vector or none."""
    users, outputs = graph.users(), {node for _, node in graph.outputs}
    by_operand: dict[tuple[Node, bool], list[_Product]] = {}
    for node in graph.nodes():
        if not isinstance(node.op, ops.Dot) or node.type.rank != 2 or node in outputs:
            continue
        rows, weights = node.inputs
        if weights.data is None or rows.data is not None or 0 in node.shape:
            continue
        product = _with_vector(node, users[node])
        arithmetic = any(isinstance(user.op, ops.ELEMENTWISE) for user in users[product.value])
        if product.value not in outputs and users[product.value] and not arithmetic:
            by_operand.setdefault((rows, product.added is None), []).append(product)
    return [products for products in by_operand.values() if len(products) > 1]


def _with_vector(dot: Node, users: Sequence[Node]) -> _Product:
    """The product with the constants that its only user adds to each row, if it does."""
    if len(users) == 1 and isinstance(users[0].op, ops.Binary) and users[0].op.fn == "add":
        (add,) = users
        source = add.inputs[1] if add.inputs[0] is dot else add.inputs[0]
        while isinstance(source.op, (ops.Broadcast, ops.Reshape)):
            source = source.inputs[0]
        columns = dot.shape[1]
        if source.data is not None and source.shape in ((1, columns), (columns,)):
            return _Product(dot, add, source.data.reshape(columns))
    return _Product(dot, dot, None)


def _join(builder: Builder, products: Sequence[_Product], new: Mapping[Node, Node]) -> Node:
    """One product for all of ``products``."""
    weights = [product.dot.inputs[1].data for product in products]
    origin = products[0].dot.origin
    every = builder.constant(np.concatenate([w for w in weights if w is not None], axis=1))
    joined = builder.apply(ops.Dot(), new[products[0].dot.inputs[0]], every, origin=origin)
    added = [product.added for product in products if product.added is not None]
    if not added:
        return joined
    vector = builder.constant(np.concatenate(added))
    return builder.binary("add", joined, vector, origin=products[0].value.origin)
