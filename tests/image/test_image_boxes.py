"""Boxes: forms, overlaps and suppression against loops in plain Python."""

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import aotc
from aotc.image import boxes as boxes_module
from aotc.image import colour, geometry


def drawn(seed, count):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 8, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(0, 6, (count, 2))], 1).astype(np.float32)


def plain_iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return shared / (sum(areas) - shared) if shared else 0.0


def plain_nms(boxes, scores, limit, least, classes):
    kept = []
    for place in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        rivals = [i for i in kept if classes[i] == classes[place]]
        near = any(plain_iou(boxes[i], boxes[place]) > limit for i in rivals)
        if scores[place] > least and not near:
            kept.append(place)
    return kept


def test_forms_of_boxes():
    corners = drawn(0, 5)
    middle = (corners[:, :2] + corners[:, 2:]) / 2
    size = corners[:, 2:] - corners[:, :2]
    forms = {
        "xyxy": corners,
        "xywh": np.concatenate([corners[:, :2], size], 1),
        "cxcywh": np.concatenate([middle, size], 1),
    }
    for source, given_boxes in forms.items():
        for target, expected in forms.items():
            found = aotc.image.convert_boxes(given_boxes, source, target)
            np.testing.assert_allclose(found, expected, atol=2e-6)


def test_overlaps():
    a, b = drawn(1, 4), drawn(2, 3)
    b[0] = a[0]
    b[1, 2:] = b[1, :2]  # without area
    expected = [[plain_iou(x, y) for y in b.astype(float)] for x in a.astype(float)]
    np.testing.assert_allclose(aotc.image.iou(a, b), expected, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.integers(1, 12), st.integers(1, 6), st.booleans())
def test_suppression(seed, count, capacity, grouped):
    boxes = drawn(seed, count)
    rng = np.random.default_rng(seed)
    scores = (rng.integers(0, 10, count) / 10).astype(np.float32)
    classes = rng.integers(0, 2, count) if grouped else np.zeros(count, np.int64)
    expected = plain_nms(boxes.astype(float), scores, 0.3, 0.15, classes)[:capacity]
    places, found = aotc.image.non_max_suppression(
        boxes, scores, capacity, 0.3, 0.15, classes if grouped else None
    )
    assert int(found) == len(expected)
    assert places.tolist() == expected + [-1] * (capacity - len(expected))


def test_suppression_compiled():
    boxes, scores = drawn(5, 40), np.linspace(0, 1, 40, dtype=np.float32)

    def best(boxes, scores):
        return aotc.image.non_max_suppression(boxes, scores, 8)

    compiled = aotc.compile(aotc.trace(best, boxes, scores))
    places, count = compiled(boxes, scores)
    assert places.tolist()[: int(count)] == plain_nms(boxes, scores, 0.5, -1, np.zeros(40))[:8]


def test_what_does_not_fit():
    boxes, scores = drawn(0, 4), np.zeros(4, np.float32)
    for wrong in (
        lambda: aotc.image.convert_boxes(boxes, "xyxy", "yxyx"),
        lambda: aotc.image.iou(boxes, boxes.astype(np.float64)),
        lambda: aotc.image.iou(boxes[:, :3], boxes),
        lambda: aotc.image.non_max_suppression(boxes, scores[:3], 4),
        lambda: aotc.image.non_max_suppression(boxes, scores, 0),
    ):
        with pytest.raises(aotc.UsageError):
            wrong()


def test_the_examples_of_docstrings_run():
    for module in (geometry, colour, boxes_module):
        result = doctest.testmod(module)
        assert result.attempted and not result.failed
