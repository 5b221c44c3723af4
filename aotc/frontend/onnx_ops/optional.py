"""ONNX optionals: a `Call` goes in, the value, an absent one, or whether it is there comes out."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from aotc.errors import ModelError
from aotc.frontend.layouts import flag_of
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.values import OptionalValue, Value
from aotc.graph.ir import Node
from aotc.graph.types import DType


def optional(call: Call) -> OptionalValue:
    """The input, or an optional without a value."""
    value = call.value(0)
    if value is None:
        return OptionalValue(None, present=False)
    return value if isinstance(value, OptionalValue) else OptionalValue(value, present=True)


def has_element(call: Call) -> Node:
    """Whether there is a value; a tensor or a sequence always is one."""
    value = call.value(0)
    if isinstance(value, OptionalValue):
        return flag_of(call.builder, value)
    return call.builder.constant(value is not None, DType.BOOL)


def get_element(call: Call) -> Value:
    """The value, which must be there: that is checked, now or at run time."""
    value = call.value(0)
    if value is not None and not isinstance(value, OptionalValue):
        return value
    if value is None or value.value is None:
        raise ModelError(
            "it takes the value of an optional that has none",
            remedy="compile the model for the case that the value is there",
        )
    there = flag_of(call.builder, value)
    call.builder.check(there, f"node '{call.origin}' needs an optional value that is absent")
    return value.value


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "Optional": optional,
        "OptionalGetElement": get_element,
        "OptionalHasElement": has_element,
    }
)
