"""ONNX control flow: an `If` whose condition is known becomes its branch; the rest is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from aotc.errors import ModelError, UnsupportedError
from aotc.frontend.folding import known_value
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.values import Value


def if_(call: Call) -> Sequence[Value]:
    """The outputs of the branch that the constant condition takes."""
    condition = known_value(call[0])
    if condition is None:
        raise UnsupportedError(
            "its condition is computed at run time",
            remedy="export the model for one case, so that the condition is a constant",
        )
    if condition.size != 1:
        raise ModelError(f"its condition must be one bool, is {call[0].type}")
    taken = "then_branch" if condition.reshape(-1)[0] else "else_branch"
    return call.subgraph(call.attrs.graph(taken))


def loop(call: Call) -> Sequence[Value]:
    """Loops are not compiled."""
    raise UnsupportedError(
        "loops are not supported", remedy="export the model with the loop unrolled"
    )


RULES: Mapping[str, Rule] = MappingProxyType({"If": if_, "Loop": loop, "Scan": loop})
