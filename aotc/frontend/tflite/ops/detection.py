"""TFLite_Detection_PostProcess: the boxes, classes and anchors of a detection net go in, the best
boxes come out."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.onnx_ops.choosing import suppress
from aotc.frontend.tflite.use import Rule, Use
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType

MAX_BOXES = 10_000
"""More boxes than this are never asked for."""


@dataclass(frozen=True)
class _Settings:
    """The attributes. ``per_anchor`` classes are given for each box by the fast way, ``per_class``
    boxes are kept of each class by the regular one."""

    most: int
    per_anchor: int
    per_class: int
    regular: bool
    score: float
    overlap: float
    classes: int
    scales: tuple[float, float, float, float]


def _settings(use: Use) -> _Settings:
    """The attributes, a map in FlexBuffers."""
    flexbuffers = importlib.import_module("flatbuffers.flexbuffers")
    held = flexbuffers.GetRoot(bytearray(use.operator.custom_options)).AsMap

    def read(name: str, default: float | None = None) -> float:
        try:
            found = held[name]
        except KeyError:
            if default is None:
                raise ModelError(f"its attribute '{name}' is missing") from None
            return default
        return float(found.AsFloat) if found.IsNumeric else float(found.AsBool)

    settings = _Settings(
        most=int(read("max_detections")),
        per_anchor=int(read("max_classes_per_detection")),
        per_class=int(read("detections_per_class", 100)),
        regular=bool(read("use_regular_nms", 0)),
        score=read("nms_score_threshold"),
        overlap=read("nms_iou_threshold"),
        classes=int(read("num_classes")),
        scales=(read("y_scale"), read("x_scale"), read("h_scale"), read("w_scale")),
    )
    counts = (settings.most, settings.per_anchor, settings.per_class, settings.classes)
    if min(counts) < 1 or settings.most * settings.per_anchor > MAX_BOXES:
        raise ModelError(f"its numbers of boxes and classes {counts} are nonsense")
    if settings.per_class > MAX_BOXES or min(settings.scales) <= 0:
        raise ModelError(f"its scales {settings.scales} or {settings.per_class} boxes are nonsense")
    return settings


def detection(use: Use) -> Sequence[Node]:
    """Boxes [1, size, 4] as ymin, xmin, ymax, xmax, their classes and scores [1, size], and how
    many there are [1], all float32; zeros behind the last. ``size`` is the most boxes times the
    classes of each."""
    settings = _settings(use)
    encoded, scores, anchors = (use.real(index) for index in range(3))
    if encoded.type.rank != 3 or encoded.shape[0] != 1 or encoded.shape[2] < 4:
        raise ModelError(f"needs boxes of one image, got {encoded.type}")
    count = encoded.shape[1]
    if scores.type.rank != 3 or scores.shape[:2] != (1, count) or anchors.shape != (count, 4):
        raise ModelError(f"boxes {encoded.type}, scores {scores.type} and anchors {anchors.type}")
    # the first classes may stand for the background
    background = scores.shape[2] - settings.classes
    if background < 0:
        raise ModelError(f"{settings.classes} classes are not in {scores.type}")
    scores = use.call.slice_axis(scores, 2, background, settings.classes)
    boxes = _decoded(use, encoded, anchors, settings.scales)
    choose = _regular if settings.regular else _fast
    size = settings.most * settings.per_anchor
    return _results(use, boxes, size, choose(use, boxes, scores, settings))


def _decoded(
    use: Use, encoded: Node, anchors: Node, scales: tuple[float, float, float, float]
) -> Node:
    """Corners [1, count, 4] of boxes that are encoded against anchors, both y, x, height, width."""
    call, count = use.call, encoded.shape[1]

    def column(x: Node, at: int) -> Node:
        axis = x.type.rank - 1
        return call.reshape(call.slice_axis(x, axis, at, 1), (1, count, 1))

    low, high = [], []
    for at in range(2):
        size = column(anchors, 2 + at)
        moved = call.binary("mul", call.binary("div", column(encoded, at), scales[at]), size)
        centre = call.binary("add", moved, column(anchors, at))
        grown = call.unary("exp", call.binary("div", column(encoded, 2 + at), scales[2 + at]))
        half = call.binary("mul", call.binary("mul", grown, 0.5), size)
        low.append(call.binary("sub", centre, half))
        high.append(call.binary("add", centre, half))
    return call.concat([*low, *high], 2)


def _suppressed(
    use: Use, boxes: Node, scores: Node, settings: _Settings, most: int
) -> tuple[Node, Node]:
    """The box of each round in each class, and whether there is one: i64 and bool
    [rounds, classes]; scores are [1, classes, count]."""
    # a score that equals the threshold counts here, but not in ONNX
    least = np.nextafter(np.float32(settings.score), np.float32(-math.inf))
    limits = [np.asarray(value, np.float32) for value in (settings.overlap, least)]
    call = use.onnx_call(
        "NonMaxSuppression", boxes, scores, None, *(use.call.constant(limit) for limit in limits)
    )
    rounds = min(most, boxes.shape[1])
    chosen, valid = suppress(call, boxes, scores, call.constant(np.asarray(rounds)), rounds)
    shape = (rounds, scores.shape[1])
    return call.reshape(chosen, shape), call.reshape(valid, shape)


_Chosen = tuple[Node, Node, Node, Node, Node]
"""The places of boxes, their classes, their scores and whether they count, [n] each; the number of
boxes, float32[1]."""


def _fast(use: Use, boxes: Node, scores: Node, settings: _Settings) -> _Chosen:
    """Boxes by their best class alone, then the best classes of each, which count as one box."""
    call = use.call
    best = call.reduce("max", scores, (2,), keep=False)
    best = call.reshape(best, (1, 1, boxes.shape[1]))
    places, valid = _suppressed(use, boxes, best, settings, settings.most)
    rounds, each = places.shape[0], min(settings.per_anchor, settings.classes)
    places, valid = call.reshape(places, (rounds,)), call.reshape(valid, (rounds,))
    rows = call.reshape(scores, scores.shape[1:])
    rows = call.apply(ops.Gather(0), rows, places)
    classes = call.apply(ops.TopK(each, 1, True), rows)
    found = call.apply(ops.GatherElements(1), rows, classes)
    wide = (rounds, each)
    flat = (rounds * each,)
    return (
        call.reshape(call.broadcast(call.reshape(places, (rounds, 1)), wide), flat),
        call.reshape(classes, flat),
        call.reshape(found, flat),
        call.reshape(call.broadcast(call.reshape(valid, (rounds, 1)), wide), flat),
        _count(use, valid),
    )


def _regular(use: Use, boxes: Node, scores: Node, settings: _Settings) -> _Chosen:
    """Boxes of each class by themselves, then the best of all."""
    call = use.call
    by_class = call.transpose(scores, (0, 2, 1))
    places, valid = _suppressed(use, boxes, by_class, settings, settings.per_class)
    rounds, classes = places.shape
    total = rounds * classes
    table = call.reshape(by_class, by_class.shape[1:])
    order = call.transpose(places, (1, 0))
    found = call.apply(ops.GatherElements(1), table, order)
    alive = call.transpose(valid, (1, 0))
    found = call.select(alive, found, call.scalar(-math.inf, found))
    flat = call.reshape(found, (total,))
    best = call.apply(ops.TopK(min(settings.most, total), 0, True), flat)

    def picked(x: Node) -> Node:
        return call.apply(ops.Gather(0), call.reshape(x, (total,)), best)

    numbers = call.apply(ops.Iota((classes, rounds), 0, DType.I64))
    valid = picked(alive)
    return picked(order), picked(numbers), picked(found), valid, _count(use, valid)


def _count(use: Use, valid: Node) -> Node:
    return use.call.reduce("sum", use.call.cast(valid, DType.F32), (0,), keep=True)


def _results(use: Use, boxes: Node, size: int, chosen: _Chosen) -> list[Node]:
    """The four results, padded with zeros to ``size`` boxes."""
    call = use.call
    places, classes, found, valid, number = chosen
    count = places.shape[0]
    corners = call.apply(ops.Gather(0), call.reshape(boxes, boxes.shape[1:]), places)
    zero = call.scalar(0.0, corners)
    corners = call.select(call.reshape(valid, (count, 1)), corners, zero)
    lists = [call.select(valid, call.cast(x, DType.F32), zero) for x in (classes, found)]
    extra = size - count
    corners = call.pad(corners, (0, 0), (extra, 0))
    lists = [call.reshape(call.pad(x, (0,), (extra,)), (1, size)) for x in lists]
    return [call.reshape(corners, (1, size, 4)), *lists, number]


RULES: Mapping[str, Rule] = MappingProxyType({"TFLite_Detection_PostProcess": detection})
