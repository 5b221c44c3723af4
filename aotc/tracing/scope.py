"""What is being traced: the builder of the function, or of the body of a branch or loop inside it,
and how values of the graph around a body get in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace

from aotc.graph.build import Builder
from aotc.graph.ir import Graph, Node
from aotc.graph.types import TensorType
from aotc.tracing.places import misuse

_CURRENT: ContextVar[Scope | None] = ContextVar("scope", default=None)


class Scope:
    """The graph under way; ``around`` is that of the graph around a body, whose builder is of the
    same kind."""

    def __init__(self, around: Scope | None = None, builder: Builder | None = None) -> None:
        self.builder: Builder = builder or (type(around.builder)() if around else Builder())
        self.around = around
        self._fetched: dict[Node, Node] = {}
        self._parameters = 0

    def parameter(self, type: TensorType, name: str = "") -> Node:
        """One more input; without a name in a body, where inputs go by their position."""
        self._parameters += 1
        return self.builder.parameter(name or f"p{self._parameters - 1}", type)

    def fetch(self, node: Node, home: Scope) -> Node:
        """``node`` of ``home``, this scope or one around it, as it appears here; UsageError when
        the value belongs to a trace that is over."""
        if home is self:
            return node
        if self.around is None:
            raise misuse(
                f"a traced {node.type} is used outside of the function or body that made it",
                "return it, or carry it through the loop or branch",
            )
        return self.fetch_outer(self.around.fetch(node, home))

    def fetch_outer(self, node: Node) -> Node:
        """A node of the scope around this one: constants are made again, the rest are inputs."""
        if node.data is not None:
            return self.builder.reuse_constant(node)
        if node not in self._fetched:
            self._fetched[node] = self.parameter(node.type)
        return self._fetched[node]

    @property
    def captured(self) -> tuple[Node, ...]:
        """The nodes of the scope around this one that it takes as inputs."""
        return tuple(self._fetched)

    def finish(
        self, name: str, own: Sequence[Node], captured: Sequence[Node], outputs: Sequence[Node]
    ) -> Graph:
        """A body from its ``own`` inputs and ``captured`` ones, in that order, to ``outputs``."""
        inputs = (*own, *(self.fetch_outer(node) for node in captured))
        named = [(f"r{place}", node) for place, node in enumerate(outputs)]
        return replace(self.builder.finish(name, named), inputs=inputs)


@contextmanager
def entered(scope: Scope | None) -> Iterator[Scope | None]:
    """What is traced inside goes to ``scope``; with None nothing is traced inside."""
    token = _CURRENT.set(scope)
    try:
        yield scope
    finally:
        _CURRENT.reset(token)


def is_tracing() -> bool:
    """Whether a function is being traced right now."""
    return _CURRENT.get() is not None


def current() -> Scope:
    """The scope that is being traced; UsageError when none is."""
    scope = _CURRENT.get()
    if scope is None:
        raise misuse(
            "a traced value is used after its function was traced",
            "return it from the function: its numbers exist only when the compiled code runs",
        )
    return scope
