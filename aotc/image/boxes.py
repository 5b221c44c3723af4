"""Boxes of detectors in, boxes in another form, their overlaps and the best of them out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from aotc.graph.types import DType
from aotc.tracing.control import while_loop
from aotc.tracing.core import lift
from aotc.tracing.eager import eager
from aotc.tracing.indexing import updated
from aotc.tracing.places import misuse
from aotc.tracing.tensor import Tensor, tnp

FORMS = ("xyxy", "xywh", "cxcywh")


def _boxes(value: Any) -> Tensor:
    x = lift(value)
    if not x.ndim or x.shape[-1] != 4 or not x.type.dtype.is_float:
        raise misuse(f"boxes are floats [..., 4], not {x.type}", "convert with astype or reshape")
    return x


@eager
def convert_boxes(boxes: Any, source: str, target: str) -> Tensor:
    """Boxes [..., 4] in another form: ``xyxy`` (two corners), ``xywh`` (the upper left corner,
    width and height) or ``cxcywh`` (the centre, width and height).

    >>> import aotc, numpy as np
    >>> aotc.image.convert_boxes(np.float32([2, 3, 4, 2]), "cxcywh", "xyxy").tolist()
    [0.0, 2.0, 4.0, 4.0]
    """
    x = _boxes(boxes)
    for form in (source, target):
        if form not in FORMS:
            raise misuse(f"there are no boxes {form!r}", f"use {', '.join(FORMS)}")
    if source == target:
        return x
    half = x.dtype.type(0.5)
    first, second = x[..., :2], x[..., 2:]
    if source == "xyxy":
        low, size = first, second - first
    else:
        low, size = (first - second * half if source == "cxcywh" else first), second
    if target == "xyxy":
        parts = [low, second if source == "xyxy" else low + size]
    else:
        parts = [low + size * half if target == "cxcywh" else low, size]
    return lift(tnp.concatenate(parts, -1))


def _area(boxes: Any) -> Any:
    """Of boxes of two corners; empty ones have none."""
    size = tnp.maximum(boxes[..., 2:] - boxes[..., :2], boxes.dtype.type(0))
    return size[..., 0] * size[..., 1]


def _overlap(a: Any, b: Any, area_a: Any, area_b: Any) -> Any:
    """Intersection over union, 0 where nothing is shared."""
    zero, one = a.dtype.type(0), a.dtype.type(1)
    low, high = tnp.maximum(a[..., :2], b[..., :2]), tnp.minimum(a[..., 2:], b[..., 2:])
    size = tnp.maximum(high - low, zero)
    shared = size[..., 0] * size[..., 1]
    joint = area_a + area_b - shared
    return tnp.where(shared > zero, shared / tnp.where(joint > zero, joint, one), zero)


@eager
def iou(a: Any, b: Any) -> Tensor:
    """Intersection over union of each of the boxes [N, 4] with each of [M, 4] (two corners each):
    [N, M]; 0 where nothing is shared. UsageError when the types differ."""
    x, y = _boxes(a), _boxes(b)
    if x.ndim != 2 or y.ndim != 2 or x.type.dtype is not y.type.dtype:
        raise misuse(f"iou takes [N, 4] and [M, 4] of one type, not {x.type} and {y.type}")
    return lift(_overlap(x[:, None], y[None], _area(x)[:, None], _area(y)[None]))


@eager
def non_max_suppression(
    boxes: Any,
    scores: Any,
    capacity: int,
    iou_threshold: float = 0.5,
    score_threshold: float = -math.inf,
    classes: Any = None,
) -> tuple[Tensor, Tensor]:
    """The boxes by falling score without those that overlap a better one by more than
    ``iou_threshold``: their places (int64[capacity], -1 behind the last) and their number (int64).

    ``boxes`` are [N, 4] (two corners), ``scores`` [N]; only scores above ``score_threshold`` count,
    equal ones in their order. With ``classes`` (integers [N]) only boxes of one class suppress each
    other. UsageError when the sizes do not fit together.

    >>> import aotc, numpy as np
    >>> boxes = np.float32([[0, 0, 2, 2], [0, 0, 2, 1.9], [5, 5, 6, 6]])
    >>> places, count = aotc.image.non_max_suppression(boxes, np.float32([0.5, 0.9, 0.8]), 3)
    >>> places.tolist(), int(count)
    ([1, 2, -1], 2)
    """
    x, score = _boxes(boxes), lift(scores)
    group = None if classes is None else lift(classes)
    count = (x.shape[0],)
    if x.ndim != 2 or score.shape != count or (group is not None and group.shape != count):
        raise misuse(f"boxes {x.type} and scores {score.type} do not fit together")
    if not score.type.dtype.is_float or not isinstance(capacity, int) or capacity < 1:
        raise misuse("scores are floats, the capacity a Python integer of 1 or more")
    if not x.size:
        return lift(np.full(capacity, -1, np.int64)), lift(np.int64(0))
    area, limit = _area(x), x.dtype.type(iou_threshold)
    least = score.dtype.type(-math.inf)

    def left(state: Any) -> Any:
        alive, _, found = state
        return (found < capacity) & tnp.any(alive)

    def step(state: Any) -> Any:
        alive, places, found = state
        best = tnp.argmax(tnp.where(alive, score, least))
        near = _overlap(x[best], x, area[best], area) > limit
        if group is not None:
            near = near & (group == group[best])
        near = near | (np.arange(count[0]) == best)
        return alive & ~near, updated(places, found, best), found + 1

    first = score > score.dtype.type(score_threshold), np.full(capacity, -1, np.int64), np.int64(0)
    _, places, found = while_loop(left, step, first)
    return places, found.astype(DType.I64.numpy)
