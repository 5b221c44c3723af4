"""A function of one sample in, a function of a batch of them out: `vmap`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from aotc.autodiff.batch import run
from aotc.autodiff.batch_rules import Batch
from aotc.graph.ir import Node
from aotc.graph.types import TensorType
from aotc.tracing.core import lift, node_of, transpose
from aotc.tracing.nested import blamed, emitter, spread, trace_nested, transformed
from aotc.tracing.places import misuse
from aotc.tracing.scope import current
from aotc.tracing.tensor import Tensor
from aotc.tracing.trees import flatten

_AXES = (int, type(None))


def vmap(
    function: Callable[..., Any], in_axes: Any = 0, out_axes: Any = 0, axis_size: int | None = None
) -> Callable[..., Any]:
    """``function`` on each sample of a batch, as one computation of the whole batch.

    ``in_axes`` says which axis of an argument counts the samples, None for one that is the same
    for all of them (it arrives as it was given): one for all arguments, or a tuple with one for
    each, which may be a tuple, list or dictionary with one for each part. ``out_axes`` says the
    same of the results; None there is for what does not depend on the sample. ``axis_size`` is the
    number of samples, needed only when no argument has them. What the function takes from outside
    of itself is the same for all samples, and computed once.

    A loop that samples leave at iterations of their own runs until the last one leaves. UsageError
    when axes do not fit or arguments differ in their number of samples; UnsupportedError for a
    branch or loop that may fail and that samples would take differently.

    >>> import numpy as np
    >>> rows = np.arange(6.0).reshape(2, 3)
    >>> vmap(np.dot, (0, None))(rows, np.array([1.0, 0.0, 2.0])).tolist()
    [4.0, 13.0]
    """

    def call(*inputs: Any, **named: Any) -> Any:
        leaves, rebuild = flatten(list(inputs))
        whole = list(in_axes) if isinstance(in_axes, tuple | list) else in_axes
        axes = spread(whole, list(inputs), _AXES, "in_axes")
        mapped = [place for place, axis in enumerate(axes) if axis is not None]
        values = [_in_front(lift(leaves[place]), axes[place]) for place in mapped]
        size = _samples(values, axis_size)

        def sample(*own: Tensor) -> Any:
            filled = list(leaves)
            for place, x in zip(mapped, own, strict=True):
                filled[place] = x
            return function(*rebuild(filled), **named)

        types = [TensorType(x.type.dtype, x.shape[1:]) for x in values]
        traced = trace_nested(sample, types)
        operands = traced.operands(values)
        flags = [place < len(values) for place in range(len(operands))]
        batch = Batch(emitter(), size)
        outputs, batched = blamed(lambda: run(batch, traced.graph, operands, flags))
        results = traced.rebuild([Tensor(current(), node) for node in outputs])
        places = spread(out_axes, results, _AXES, "out_axes")
        ends = zip(outputs, batched, places, strict=True)
        return traced.rebuild([_placed(batch, *end) for end in ends])

    return transformed(function, "vmap", call, same_inputs=False)


def _in_front(x: Tensor, axis: int) -> Tensor:
    """``x`` with the axis that counts the samples as its first."""
    if not -x.ndim <= axis < x.ndim:
        raise misuse(f"an argument of type {x.type} has no axis {axis} for aotc.vmap")
    rest = [at for at in range(x.ndim) if at != axis % x.ndim]
    return transpose(x, (axis % x.ndim, *rest))


def _samples(values: Sequence[Tensor], given: int | None) -> int:
    sizes = sorted({x.shape[0] for x in values} | (set() if given is None else {given}))
    if len(sizes) != 1 or sizes[0] < 1:
        raise misuse(
            f"aotc.vmap finds {' and '.join(map(str, sizes)) or 'no'} samples in its arguments",
            "give each argument as many, at least one, and None in in_axes for what has none",
        )
    return sizes[0]


def _placed(batch: Batch, node: Node, batched: bool, axis: int | None) -> Tensor:
    """A result with its samples along ``axis``."""
    x = Tensor(current(), node)
    if axis is None:
        if batched:
            raise misuse(f"a result of type {x.type} differs between samples", "give its out_axes")
        return x
    whole = Tensor(current(), batch.spread(node_of(x), batched))
    if not -whole.ndim <= axis < whole.ndim:
        raise misuse(f"a result of type {x.type} has no place {axis} for the samples")
    order = list(range(1, whole.ndim))
    order.insert(axis % whole.ndim, 0)
    return transpose(whole, order)
