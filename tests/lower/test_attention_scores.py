"""What stands between a product and a softmax: scales, triangles, and what has to be computed."""

import numpy as np
import pytest
from graph_runs import Net

from aotc.graph import ops
from aotc.graph.types import DType
from aotc.lower.gpu.attention_scores import scores_of

ROWS, KEYS = 4, 6


class Chain:
    """A product, and nodes after it one by one."""

    def __init__(self):
        self.net = Net()
        self.product = self.net.b.apply(ops.Dot(), self.net.x(ROWS, 8), self.net.x(8, KEYS))
        self.nodes = []

    @property
    def last(self):
        return self.nodes[-1] if self.nodes else self.product

    def then(self, fn, other):
        if not hasattr(other, "op"):
            other = self.net.b.constant(np.float32(other))
        other = self.net.b.broadcast(other, (ROWS, KEYS)) if other.shape == () else other
        self.nodes.append(self.net.b.binary(fn, self.last, other))
        return self

    def hiding(self, seen, value):
        """With ``value`` in place of what is not ``seen``."""
        other = self.net.b.broadcast(self.net.b.constant(np.float32(value)), (ROWS, KEYS))
        self.nodes.append(self.net.b.select(self.net.b.constant(seen), self.last, other))
        return self

    def tanh(self):
        self.nodes.append(self.net.b.unary("tanh", self.last))
        return self

    def scores(self, factor=1.0):
        return scores_of(self.product, self.nodes, factor)


def triangle(offset, value=-np.inf):
    return Net().b.constant(np.where(np.tri(ROWS, KEYS, offset), 0, value).astype(np.float32))


def test_scales_need_no_instruction():
    found = Chain().then("mul", 0.5).then("div", 4.0).scores(factor=2.0)
    assert (found.scale, found.nodes, found.causal) == (0.25, (), None)


@pytest.mark.parametrize("factor", [-1.0, 0.0, 1e-30])
def test_scales_that_turn_the_order_or_have_no_room_are_computed(factor):
    chain = Chain().then("mul", factor)
    assert chain.scores().nodes == tuple(chain.nodes) and chain.scores().scale == 1


@pytest.mark.parametrize("offset", [0, 2])
def test_triangles_are_seen(offset):
    added = Chain().then("mul", 0.5).then("add", triangle(offset, -1e9)).scores()
    chosen = Chain().hiding(np.tri(ROWS, KEYS, offset, dtype=bool), -np.inf).scores()
    assert (added.scale, added.causal, added.nodes) == (0.5, offset, ())
    assert (chosen.scale, chosen.causal, chosen.nodes) == (1.0, offset, ())


def test_other_masks_beside_a_triangle_are_computed_alone():
    chain = Chain()
    mask = chain.net.x(1, KEYS)
    chain.then("mul", 0.5).then("add", triangle(1)).then(
        "add", chain.net.b.broadcast(mask, (ROWS, KEYS))
    )
    found = chain.scores()
    assert found.causal == 1 and found.nodes == (chain.nodes[0], chain.nodes[2])


@pytest.mark.parametrize(
    "mask",
    [
        np.where(np.tri(ROWS, KEYS, 0), 0, -1e4),  # scores might be as low
        np.where(np.tri(ROWS, KEYS, -1), 0, -np.inf),  # a row that sees nothing
        np.where(np.tri(ROWS, KEYS, 0)[::-1], 0, -np.inf),
        np.where(np.tri(ROWS, KEYS, 0), 1.0, -np.inf),
    ],
)
def test_what_is_no_triangle_is_computed(mask):
    chain = Chain().then("add", Net().b.constant(mask.astype(np.float32)))
    assert chain.scores().causal is None and chain.scores().nodes == tuple(chain.nodes)


def test_what_might_show_the_hidden_again_keeps_it_from_being_left_out():
    chain = Chain().then("add", triangle(0)).tanh()
    assert chain.scores().causal is None
    assert Chain().then("add", triangle(0)).then("mul", -1.0).scores().causal is None


def test_constants_of_other_axes_are_no_masks():
    chain = Chain()
    wide = chain.net.b.constant(np.zeros((1, KEYS), np.float32))
    chain.then("add", chain.net.b.broadcast(wide, (ROWS, KEYS)))
    assert chain.scores().causal is None and chain.product.type.dtype is DType.F32
