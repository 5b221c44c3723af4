"""TFLite operators that move data against LiteRT's reference kernels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tflite_files import Net, check

SCALE = {"scale": 0.05, "zero": 7}
TYPES = ["float32", "int8", "int32"]


def details(dtype, values=None):
    return (SCALE if values is None else values) if dtype in ("int8", "uint8") else {}


def one(name, dtype, shape, operands, outputs, kind="", **options):
    """A model of one operator on data of ``shape`` and int32 constants. ``operands`` has None where
    the data stands, ``outputs`` are shapes."""
    net = Net()
    places = [
        net.input(shape, dtype, **details(dtype)) if each is None else net.constant(each, "int32")
        for each in operands
    ]
    net.outputs = [net.add(each, dtype, **details(dtype)) for each in outputs]
    net.operator(name, places, net.outputs, kind, **options)
    return net


CASES = [
    ("RESHAPE", (2, 3, 4), [None, [4, -1]], [(4, 6)], "ReshapeOptions", {}),
    ("RESHAPE", (2, 3, 4), [None], [(6, 4)], "ReshapeOptions", {"NewShape": [6, 4]}),
    ("SQUEEZE", (1, 3, 1, 4), [None], [(3, 1, 4)], "SqueezeOptions", {"SqueezeDims": [0]}),
    ("SQUEEZE", (1, 3, 1, 4), [None], [(3, 4)], "SqueezeOptions", {}),
    ("EXPAND_DIMS", (2, 3), [None, 1], [(2, 1, 3)], "ExpandDimsOptions", {}),
    ("EXPAND_DIMS", (2, 3), [None, -1], [(2, 3, 1)], "ExpandDimsOptions", {}),
    ("TRANSPOSE", (2, 3, 4), [None, [2, 0, 1]], [(4, 2, 3)], "TransposeOptions", {}),
    ("SPLIT", (2, 6), [1, None], [(2, 2)] * 3, "SplitOptions", {"NumSplits": 3}),
    ("SPLIT_V", (2, 7), [None, [1, -1, 2], 1], [(2, 1), (2, 4), (2, 2)], "SplitVOptions",
     {"NumSplits": 3}),
    ("SLICE", (3, 5), [None, [1, 0], [-1, 3]], [(2, 3)], "SliceOptions", {}),
    ("UNPACK", (3, 4), [None], [(3,)] * 4, "UnpackOptions", {"Axis": -1, "Num": 4}),
    ("TILE", (2, 3), [None, [2, 3]], [(4, 9)], "TileOptions", {}),
    ("BROADCAST_TO", (3, 1), [None, [2, 3, 4]], [(2, 3, 4)], "BroadcastToOptions", {}),
    ("REVERSE_V2", (2, 3, 4), [None, [1]], [(2, 3, 4)], "ReverseV2Options", {}),
    ("GATHER", (4, 3), [None, [[2, 0], [1, 3]]], [(2, 2, 3)], "GatherOptions", {"Axis": 0}),
    ("GATHER", (4, 3), [None, [2, 0]], [(4, 2)], "GatherOptions", {"Axis": 1}),
    ("GATHER", (2, 4, 3), [None, [[3, 0, 1], [2, 2, 0]]], [(2, 3, 3)], "GatherOptions",
     {"Axis": 1, "BatchDims": 1}),
    ("GATHER_ND", (4, 3), [None, [[2, 0], [1, 2]]], [(2,)], "GatherNdOptions", {}),
    ("PAD", (2, 3), [None, [[1, 2], [0, 1]]], [(5, 4)], "PadOptions", {}),
    ("MIRROR_PAD", (3, 4), [None, [[1, 2], [3, 1]]], [(6, 8)], "MirrorPadOptions", {"Mode": 0}),
    ("MIRROR_PAD", (3, 4), [None, [[3, 2], [4, 1]]], [(8, 9)], "MirrorPadOptions", {"Mode": 1}),
    ("DEPTH_TO_SPACE", (2, 2, 3, 8), [None], [(2, 4, 6, 2)], "DepthToSpaceOptions",
     {"BlockSize": 2}),
    ("SPACE_TO_DEPTH", (2, 4, 6, 3), [None], [(2, 2, 3, 12)], "SpaceToDepthOptions",
     {"BlockSize": 2}),
    ("SPACE_TO_BATCH_ND", (2, 3, 4, 2), [None, [2, 3], [[1, 0], [1, 1]]], [(12, 2, 2, 2)],
     "SpaceToBatchNDOptions", {}),
    ("BATCH_TO_SPACE_ND", (12, 2, 2, 2), [None, [2, 3], [[1, 0], [1, 1]]], [(2, 3, 4, 2)],
     "BatchToSpaceNDOptions", {}),
]  # fmt: skip


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[2]}")
def test_movement(case, dtype, tmp_path):
    name, shape, operands, outputs, kind, options = case
    if (name, dtype, options.get("BatchDims")) == ("GATHER", "int32", 1):
        dtype = "float32"
    net = one(name, dtype, shape, operands, outputs, kind, **options)
    assert check(net, tmp_path, steps=0) == 0


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8"])
def test_pad_with_a_value(dtype, tmp_path):
    net = Net()
    x = net.input((2, 3), dtype, **details(dtype))
    amounts = net.constant([[1, 0], [2, 1]], "int32")
    value = net.constant(np.asarray([11]), dtype, **details(dtype))
    net.outputs = [net.add((3, 6), dtype, **details(dtype))]
    net.operator("PADV2", [x, amounts, value], net.outputs, "PadV2Options")
    check(net, tmp_path, steps=0)


@pytest.mark.parametrize("dtype", TYPES)
def test_joining(dtype, tmp_path):
    net = Net()
    places = [net.input((2, n, 3), dtype, **details(dtype)) for n in (1, 4, 2)]
    net.outputs = [net.add((2, 7, 3), dtype, **details(dtype))]
    net.operator("CONCATENATION", places, net.outputs, "ConcatenationOptions", Axis=-2)
    check(net, tmp_path, steps=0)
    for axis, shape in ((0, (3, 2, 4)), (-1, (2, 4, 3))):
        net = Net()
        places = [net.input((2, 4), dtype, **details(dtype)) for _ in range(3)]
        net.outputs = [net.add(shape, dtype, **details(dtype))]
        net.operator("PACK", places, net.outputs, "PackOptions", Axis=axis, ValuesCount=3)
        check(net, tmp_path, steps=0)


def test_joining_of_several_scales(tmp_path):
    net = Net()
    scales = ((0.05, 7), (0.02, 200))
    places = [net.input((2, 20), "uint8", scale=scale, zero=zero) for scale, zero in scales]
    net.outputs = [net.add((2, 40), "uint8", scale=0.04, zero=100)]
    net.operator("CONCATENATION", places, net.outputs, "ConcatenationOptions", Axis=1)
    check(net, tmp_path)


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_strided_slices(tmp_path_factory, data):
    """Against numpy: the reference knows new axes and ellipses from version 6 on, but not all."""
    shape = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    begin, end, steps, shrink, key = [], [], [], 0, []
    masks = [0, 0]
    for axis, size in enumerate(shape):
        step = data.draw(st.sampled_from([1, 1, 2, -1]))
        start, stop = sorted(data.draw(st.tuples(st.integers(0, size), st.integers(0, size))))
        if step < 0:
            start, stop = stop - 1 if stop else 0, start - 1 if start else -size - 1
        open_ = [data.draw(st.booleans()) for _ in masks]
        masks = [mask | flag << axis for mask, flag in zip(masks, open_, strict=True)]
        if data.draw(st.integers(0, 3)) == 0:
            start, step = data.draw(st.integers(-size, size - 1)), 1
            shrink |= 1 << axis
            masks = [mask & ~(1 << axis) for mask in masks]
            key.append(start)
        else:
            chosen = [None if flag else at for flag, at in zip(open_, (start, stop), strict=True)]
            key.append(slice(*chosen, step))
        begin.append(start)
        end.append(stop)
        steps.append(step)
    expected = np.empty(shape)[tuple(key)].shape
    if 0 in expected:
        return
    net = one(
        "STRIDED_SLICE", "float32", shape, [None, begin, end, steps], [expected],
        "StridedSliceOptions", BeginMask=masks[0], EndMask=masks[1], ShrinkAxisMask=shrink,
    )  # fmt: skip
    check(net, tmp_path_factory.mktemp("slice"))


@pytest.mark.parametrize(
    ("masks", "begin", "end", "expected"),
    [
        ({"EllipsisMask": 1}, [0, 1], [0, 3], (2, 3, 2)),
        ({"EllipsisMask": 2}, [1, 0, 1], [2, 0, 3], (1, 3, 2)),
        ({"NewAxisMask": 2}, [0, 0, 1], [2, 0, 3], (2, 1, 2, 4)),
        ({"EllipsisMask": 1, "NewAxisMask": 2, "ShrinkAxisMask": 4}, [0, 0, 2], [0, 0, 3],
         (2, 3, 1)),
        ({"Offset": True}, [0, 1, 2], [2, 1, 2], (2, 1, 2)),
    ],
)  # fmt: skip
def test_strided_slices_with_masks(masks, begin, end, expected, tmp_path):
    net = one(
        "STRIDED_SLICE", "float32", (2, 3, 4), [None, begin, end, [1] * len(begin)], [expected],
        "StridedSliceOptions", **masks,
    )  # fmt: skip
    check(net, tmp_path)


def test_reverse_sequence(tmp_path):
    net = one(
        "REVERSE_SEQUENCE", "float32", (4, 3, 2), [None, [1, 4, 2]], [(4, 3, 2)],
        "ReverseSequenceOptions", SeqDim=0, BatchDim=1,
    )  # fmt: skip
    check(net, tmp_path)


def test_scatter(tmp_path):
    net = Net()
    index = net.constant([[1], [3], [1]], "int32")
    updates = net.input((3, 2))
    shape = net.constant([5, 2], "int32")
    net.outputs = [net.add((5, 2))]
    net.operator("SCATTER_ND", [index, updates, shape], net.outputs, "ScatterNdOptions")
    check(net, tmp_path)


def test_shapes_are_constants(tmp_path):
    """SHAPE, RANK, PACK and RESHAPE with a shape that the model computes."""
    net = Net()
    x = net.input((2, 3, 4))
    shape, first, packed = net.add((3,), "int32"), net.add((), "int32"), net.add((2,), "int32")
    edges = [net.constant([value], "int32") for value in (0, 1, 1)]
    rest, y, rank = net.constant(-1, "int32"), net.add((2, 12)), net.add((), "int32")
    net.operator("SHAPE", [x], [shape], "ShapeOptions", OutType=2)
    net.operator(
        "STRIDED_SLICE", [shape, *edges], [first], "StridedSliceOptions", ShrinkAxisMask=1
    )
    net.operator("PACK", [first, rest], [packed], "PackOptions", ValuesCount=2)
    net.operator("RESHAPE", [x, packed], [y], "ReshapeOptions")
    net.operator("RANK", [x], [rank], "RankOptions")
    net.outputs = [y, rank]
    check(net, tmp_path)


def test_made_values(tmp_path):
    net = Net()
    x = net.input((), "float32")
    y, zeros, steps = net.add((2, 3)), net.add((2, 3)), net.add((4,), "int32")
    net.operator("FILL", [net.constant([2, 3], "int32"), x], [y], "FillOptions")
    net.operator("ZEROS_LIKE", [y], [zeros], "ZerosLikeOptions")
    ends = [net.constant(value, "int32") for value in (1, 9, 2)]
    net.operator("RANGE", ends, [steps], "RangeOptions")
    net.outputs = [y, zeros, steps]
    check(net, tmp_path)


@pytest.mark.parametrize("axis", [-1, 0])
def test_one_hot(axis, tmp_path):
    net = Net()
    index = net.input((3,), "int32")
    rest = [net.constant(5, "int32"), net.constant(2.5, "float32"), net.constant(-1.0, "float32")]
    net.outputs = [net.add((5, 3) if axis == 0 else (3, 5))]
    net.operator("ONE_HOT", [index, *rest], net.outputs, "OneHotOptions", Axis=axis)
    check(net, tmp_path, inputs=[np.asarray([4, -1, 7], np.int32)])
