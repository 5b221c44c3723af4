"""Operators on tensors whose size is known at run time only: the rule for plain tensors and a
`Call` with boxes go in, the rule's result on the boxes comes out, with its extents.

Elementwise operators work on the whole box. Whoever combines elements sees what does nothing (0 in
a sum) beyond the extents. Operators that move data are in runtime_shapes.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.onnx_ops.call import Call, Result, Rule
from aotc.frontend.onnx_ops.extents import (
    Size,
    as_node,
    box_mask,
    boxed,
    compute,
    data_of,
    elements,
    holds,
    iota,
    product,
    require,
    settle,
)
from aotc.frontend.onnx_ops.runtime_shapes import prefix, relayout
from aotc.frontend.values import Ragged, Value
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType

Form = Callable[[Call, Rule], Result]
"""How to apply the rule of an operator to operands of which some are boxes."""


def with_ragged_operands(rules: Mapping[str, Rule]) -> dict[str, Rule]:
    """``rules`` with those that have a form extended to operands of run-time size."""
    return {name: _extended(rule, FORMS.get(name)) for name, rule in rules.items()}


def _extended(rule: Rule, form: Form | None) -> Rule:
    if form is None:
        return rule

    def extended(call: Call) -> Result:
        if any(isinstance(value, Ragged) for value in call.inputs):
            return form(call, rule)
        return rule(call)

    return extended


def _on(call: Call, rule: Rule, inputs: Sequence[Value | None]) -> list[Node]:
    """The results of ``rule`` on other operands, which are plain tensors."""
    result = rule(replace(call, inputs=tuple(inputs)))
    values = result if isinstance(result, Sequence) else [result]
    nodes = [value for value in values if isinstance(value, Node)]
    if len(nodes) < len(values):
        raise call.unsupported("one of its results is not a tensor of fixed shape")
    return nodes


def _filled(call: Call, nodes: Sequence[Node], sizes: Sequence[Size]) -> list[Value]:
    """The boxes ``nodes``, each filled to ``sizes``, as the results of the call."""
    return [_fill(call, node, sizes, output) for output, node in enumerate(nodes)]


def _fill(call: Call, node: Node, sizes: Sequence[Size], output: int) -> Value:
    box, extents = settle(call, sizes, node.shape, output)
    for axis, most in enumerate(box):
        node = prefix(call, node, axis, most)
    return boxed(node, extents)


def masked(call: Call, x: Node, sizes: Sequence[Size], axes: Sequence[int], fill: float) -> Node:
    """``x`` with ``fill`` beyond ``sizes`` along ``axes``."""
    chosen = [size if at in axes else x.shape[at] for at, size in enumerate(sizes)]
    mask = box_mask(call, x.shape, chosen)
    return x if mask is None else call.select(mask, x, call.scalar(fill, x))


def _joined(call: Call, sizes: Sequence[Size], boxes: Sequence[int]) -> tuple[Size, int]:
    """The size that axes of ``sizes`` share, none of them known to be 1, and its box. The run
    checks that they are equal: an axis of run-time size does not stretch."""
    known = [size for size in sizes if isinstance(size, int)]
    shared: Size = known[0] if known else sizes[0]
    for size in sizes:
        if size is not shared:
            require(call, holds(call, "eq", size, shared), "its operands do not fit together")
    return shared, shared if isinstance(shared, int) else min(boxes)


def joint_sizes(
    call: Call, shapes: Sequence[tuple[Size, ...]], boxes: Sequence[tuple[int, ...]]
) -> tuple[list[Size], list[int]]:
    """numpy's broadcast of ``shapes``: the sizes and their box."""
    rank = max(len(shape) for shape in shapes)
    sizes: list[Size] = []
    most: list[int] = []
    for axis in range(-rank, 0):
        pairs = [
            (shape[axis], box[axis])
            for shape, box in zip(shapes, boxes, strict=True)
            if len(shape) >= -axis and shape[axis] != 1
        ]
        size, box_size = _joined(call, *zip(*pairs, strict=True)) if pairs else (1, 1)
        sizes.append(size)
        most.append(box_size)
    return sizes, most


def _cut(call: Call, x: Node, box: Sequence[int]) -> Node:
    """``x`` without what lies beyond ``box`` (which may have more axes in front)."""
    for axis in range(x.type.rank):
        most = box[len(box) - x.type.rank + axis]
        if x.shape[axis] != 1:
            x = prefix(call, x, axis, most)
    return x


def pointwise(call: Call, rule: Rule) -> Result:
    """Operators with numpy's broadcasting over all inputs."""
    places = [place for place, value in enumerate(call.inputs) if value is not None]
    operands = [data_of(call, place) for place in places]
    shapes = [sizes for _, sizes in operands]
    sizes, box = joint_sizes(call, shapes, [node.shape for node, _ in operands])
    inputs: list[Value | None] = list(call.inputs)
    for place, (node, _) in zip(places, operands, strict=True):
        inputs[place] = _cut(call, node, box)
    return _filled(call, _on(call, rule, inputs), sizes)


def like_first(call: Call, rule: Rule) -> Result:
    """Operators whose results have the shape of input 0 and treat its elements alike; of other
    inputs only the type counts when they are boxes."""
    _, sizes = data_of(call, 0)
    inputs = [value.node if isinstance(value, Ragged) else value for value in call.inputs]
    return _filled(call, _on(call, rule, inputs), sizes)


def rows(axes: int) -> Form:
    """Operators that treat what lies along the first ``axes`` axes of input 0 apart, and whose
    result keeps these axes."""

    def form(call: Call, rule: Rule) -> Result:
        x, sizes = data_of(call, 0)
        if any(isinstance(size, Node) for size in sizes[axes:]):
            raise call.unsupported(
                f"its operand's axes from {axes} on must have fixed sizes, {x.type} has not",
                "give one size to the dimension: --dim NAME=N",
            )
        nodes = _on(call, rule, [x, *(call.optional(at) for at in range(1, len(call.inputs)))])
        return [
            _fill(call, node, [*sizes[:axes], *node.shape[axes:]], output)
            for output, node in enumerate(nodes)
        ]

    return form


def before_axis(call: Call, rule: Rule) -> Result:
    """Normalisation over the axes from ``axis`` on, which must have fixed sizes."""
    axis = call.axis(call.attrs.integer("axis", -1), len(data_of(call, 0)[1]))
    return rows(axis)(call, rule)


def shape(call: Call, rule: Rule) -> Result:
    """Shape: a vector of the sizes."""
    _, sizes = data_of(call, 0)
    start, end = call.attrs.integer("start", 0), call.attrs.integer("end", len(sizes))
    chosen = [call.reshape(as_node(call, size), (1,)) for size in sizes[start:end]]
    return call.concat(chosen, 0) if chosen else call.constant(np.zeros(0, np.int64))


def size(call: Call, rule: Rule) -> Result:
    """Size: the product of the sizes."""
    return as_node(call, product(call, data_of(call, 0)[1]))


def transpose(call: Call, rule: Rule) -> Result:
    """Transpose: the sizes move with the axes."""
    x, sizes = data_of(call, 0)
    perm = call.attrs.integers("perm", tuple(reversed(range(len(sizes))))) or ()
    return _filled(call, _on(call, rule, [x]), [sizes[axis] for axis in perm])


def flatten(call: Call, rule: Rule) -> Result:
    """Flatten: two axes, of the products of the sizes."""
    x, sizes = data_of(call, 0)
    axis = call.attrs.integer("axis", 1)
    axis = axis + len(sizes) if axis < 0 else axis
    parts = [product(call, sizes[:axis]), product(call, sizes[axis:])]
    most = [math.prod(x.shape[:axis]), math.prod(x.shape[axis:])]
    box, extents = settle(call, parts, most)
    return relayout(call, x, sizes, box, extents)


def _from_front(call: Call, index: Node, size: Size) -> Node:
    """Indices that count from the end of an axis of ``size`` as ones that count from its front."""
    if not isinstance(size, Node):
        return index
    wide = call.cast(index, DType.I64)
    return call.select(call.compare("lt", wide, 0), call.binary("add", wide, size), wide)


def gather(call: Call, rule: Rule) -> Result:
    """Gather: negative indices count from the end of what is filled."""
    (x, sizes), (index, counts) = data_of(call, 0), data_of(call, 1)
    axis = call.axis(call.attrs.integer("axis", 0), len(sizes))
    nodes = _on(call, rule, [x, _from_front(call, index, sizes[axis])])
    return _filled(call, nodes, [*sizes[:axis], *counts, *sizes[axis + 1 :]])


def gather_elements(call: Call, rule: Rule) -> Result:
    """GatherElements: as large as the indices."""
    (x, sizes), (index, counts) = data_of(call, 0), data_of(call, 1)
    axis = call.axis(call.attrs.integer("axis", 0), len(sizes))
    for at in range(len(sizes)):
        if at != axis:
            index = prefix(call, index, at, min(index.shape[at], x.shape[at]))
    return _filled(call, _on(call, rule, [x, _from_front(call, index, sizes[axis])]), counts)


def gather_nd(call: Call, rule: Rule) -> Result:
    """GatherND: the last axis of the indices addresses leading axes of the data."""
    (x, sizes), (index, counts) = data_of(call, 0), data_of(call, 1)
    batch, depth = call.attrs.integer("batch_dims", 0), index.shape[-1]
    if batch or isinstance(counts[-1], Node):
        raise call.unsupported("batches, or how many axes it addresses, are known at run time only")
    columns = []
    for at in range(depth):
        column = call.slice_axis(index, index.type.rank - 1, at, 1)
        columns.append(_from_front(call, column, sizes[at]))
    index = call.concat(columns, index.type.rank - 1)
    return _filled(call, _on(call, rule, [x, index]), [*counts[:-1], *sizes[depth:]])


def concat(call: Call, rule: Rule) -> Result:
    """Concat: each operand starts where the one before it ends."""
    operands = [data_of(call, place) for place in range(len(call.inputs))]
    rank = len(operands[0][1])
    if any(len(sizes) != rank for _, sizes in operands):
        raise ModelError("its operands have different ranks")
    axis = call.axis(call.attrs.integer("axis", 1 if call.version < 4 else None), rank)
    pieces = [node for node, _ in operands]
    wanted: list[Size] = []
    for at in range(rank):
        if at == axis:
            wanted.append(0)
            continue
        columns = [sizes[at] for _, sizes in operands]
        shared, most = _joined(call, columns, [piece.shape[at] for piece in pieces])
        pieces = [prefix(call, piece, at, most) for piece in pieces]
        wanted.append(shared)
    total: Size = 0
    joined = 0
    count = sum(piece.shape[axis] for piece in pieces)
    place = iota(call, count)
    source = place
    for piece, (_, sizes) in zip(pieces, operands, strict=True):
        # what comes from this operand on; later operands overwrite the rest
        own = call.binary("add", call.binary("sub", place, as_node(call, total)), joined)
        behind = call.compare("ge", place, as_node(call, total))
        source = call.select(behind, own, source)
        joined += piece.shape[axis]
        total = compute(call, "add", total, sizes[axis])
    wanted[axis] = total
    node = call.concat(pieces, axis)
    return _filled(call, [call.apply(ops.Gather(axis), node, source)], wanted)


FILLS: Mapping[str, float] = MappingProxyType(
    {
        "ReduceL1": 0.0,
        "ReduceL2": 0.0,
        "ReduceLogSum": 0.0,
        "ReduceLogSumExp": -math.inf,
        "ReduceMax": -math.inf,
        "ReduceMean": 0.0,
        "ReduceMin": math.inf,
        "ReduceProd": 1.0,
        "ReduceSum": 0.0,
        "ReduceSumSquare": 0.0,
    }
)
"""What does nothing in each reduction."""


def _extreme(x: Node, fill: float) -> float:
    """``fill``, or the nearest value that the type of ``x`` has."""
    dtype = x.type.dtype
    if dtype.is_float or math.isfinite(fill):
        return fill
    if dtype is DType.BOOL:
        return fill > 0
    low, high = dtype.int_range
    return high if fill > 0 else low


def reduction(call: Call, rule: Rule) -> Result:
    """Reductions over axes that are constants."""
    x, sizes = data_of(call, 0)
    rank = len(sizes)
    since = 13 if call.operator == "ReduceSum" else 18
    if call.version < since:
        given = call.attrs.integers("axes")
    else:
        given = None if call.optional(1) is None else call.known_ints(1, "axes")
    if given:
        axes = call.axes(given, rank)
    else:
        axes = () if call.attrs.flag("noop_with_empty_axes") else tuple(range(rank))
    fill = _extreme(x, FILLS[call.operator])
    x = masked(call, x, sizes, axes, fill)
    keep = call.attrs.flag("keepdims", True)
    kept = [1 if at in axes else n for at, n in enumerate(sizes) if keep or at not in axes]
    if call.operator == "ReduceMean" and any(isinstance(sizes[at], Node) for at in axes):
        count = call.cast(as_node(call, product(call, [sizes[at] for at in axes])), x.type.dtype)
        nodes = [call.binary("div", call.reduce("sum", x, axes, keep), count)]
    else:
        nodes = _on(call, rule, [x, *(call.optional(at) for at in range(1, len(call.inputs)))])
    return _filled(call, nodes, kept)


def softmax(call: Call, rule: Rule) -> Result:
    """Softmax and its kin: nothing has a share beyond the extents."""
    x, sizes = data_of(call, 0)
    rank = len(sizes)
    axis = call.axis(call.attrs.integer("axis", -1 if call.version >= 13 else 1), rank)
    if call.version < 13 and axis != rank - 1:
        raise call.unsupported("before opset 13 it joins axes, of which one has a run-time size")
    lowest = _extreme(x, -math.inf)
    return _filled(call, _on(call, rule, [masked(call, x, sizes, (axis,), lowest)]), sizes)


def arg_reduce(call: Call, rule: Rule) -> Result:
    """ArgMax and ArgMin: nothing wins beyond the extents."""
    x, sizes = data_of(call, 0)
    axis = call.axis(call.attrs.integer("axis", 0), len(sizes))
    fill = _extreme(x, -math.inf if call.operator == "ArgMax" else math.inf)
    (found,) = _on(call, rule, [masked(call, x, sizes, (axis,), fill)])
    # among equals the last one may lie beyond
    last = compute(call, "sub", sizes[axis], 1)
    found = call.binary("min", found, as_node(call, last))
    keep = call.attrs.flag("keepdims", True)
    kept = [1 if at == axis else n for at, n in enumerate(sizes) if keep or at != axis]
    return _filled(call, [found], kept)


def top_k(call: Call, rule: Rule) -> Result:
    """TopK: nothing is chosen beyond the extents."""
    x, sizes = data_of(call, 0)
    axis = call.axis(call.attrs.integer("axis", -1), len(sizes))
    k = call.attrs.integer("k") if call.version < 10 else call.known_int(1, "count k")
    require(call, holds(call, "le", k, sizes[axis]), f"its operand must have {k} elements or more")
    worst = _extreme(x, -math.inf if call.attrs.flag("largest", True) else math.inf)
    x = masked(call, x, sizes, (axis,), worst)
    nodes = _on(call, rule, [x, *(call.optional(at) for at in range(1, len(call.inputs)))])
    return _filled(call, nodes, [k if at == axis else size for at, size in enumerate(sizes)])


def running(call: Call, rule: Rule) -> Result:
    """CumSum: from the end, nothing is added beyond the extents."""
    x, sizes = data_of(call, 0)
    axis = call.axis(call.known_int(1, "axis"), len(sizes))
    if call.attrs.flag("reverse"):
        x = masked(call, x, sizes, (axis,), 0.0)
    return _filled(call, _on(call, rule, [x, call.optional(1)]), sizes)


def matmul(call: Call, rule: Rule) -> Result:
    """MatMul of matrices and batches of them: products beyond the extents are 0."""
    (a, rows_of), (b, columns_of) = data_of(call, 0), data_of(call, 1)
    if a.type.rank < 2 or b.type.rank < 2:
        raise call.unsupported("a product with a vector of run-time size")
    _, depth = _joined(call, [rows_of[-1], columns_of[-2]], [a.shape[-1], b.shape[-2]])
    a = masked(call, a, rows_of, (a.type.rank - 1,), 0.0)
    b = masked(call, b, columns_of, (b.type.rank - 2,), 0.0)
    a = prefix(call, a, a.type.rank - 1, depth)
    b = prefix(call, b, b.type.rank - 2, depth)
    batch: list[Size] = []
    box: list[int] = []
    if a.type.rank > 2 or b.type.rank > 2:
        shapes = [rows_of[:-2] or (1,), columns_of[:-2] or (1,)]
        batch, box = joint_sizes(call, shapes, [a.shape[:-2] or (1,), b.shape[:-2] or (1,)])
    a = _cut(call, a, [*box, *a.shape[-2:]])
    b = _cut(call, b, [*box, *b.shape[-2:]])
    return _filled(call, _on(call, rule, [a, b]), [*batch, rows_of[-2], columns_of[-1]])


def gemm(call: Call, rule: Rule) -> Result:
    """Gemm: products beyond the extents are 0; the summand has a fixed size."""
    (a, sizes_a), (b, sizes_b) = data_of(call, 0), data_of(call, 1)
    across, down = call.attrs.flag("transA"), call.attrs.flag("transB")
    depth_a, depth_b = (0 if across else 1), (1 if down else 0)
    _, depth = _joined(
        call, [sizes_a[depth_a], sizes_b[depth_b]], [a.shape[depth_a], b.shape[depth_b]]
    )
    a = prefix(call, masked(call, a, sizes_a, (depth_a,), 0.0), depth_a, depth)
    b = prefix(call, masked(call, b, sizes_b, (depth_b,), 0.0), depth_b, depth)
    wanted = [sizes_a[1 - depth_a], sizes_b[1 - depth_b]]
    summand = call.optional(2)
    if summand is not None:
        aligned = (1,) * (2 - summand.type.rank) + summand.shape
        for size, own in zip(wanted, aligned, strict=True):
            if own != 1 and isinstance(size, Node):
                raise call.unsupported("a summand along an axis of run-time size")
    inputs = [a, b] if summand is None else [a, b, summand]
    return _filled(call, _on(call, rule, inputs), wanted)


def resize(call: Call, rule: Rule) -> Result:
    """Resize that leaves the axes of run-time size as they are: the rest is as on plain tensors."""
    x, sizes = data_of(call, 0)
    rank = len(sizes)
    axes = list(call.axes(call.attrs.integers("axes") or range(rank), rank))
    inputs: list[Value | None] = [x, *call.inputs[1:]]
    given = call.optional(3) if call.version >= 11 else None
    if given is None or given.type.elems == 0:
        at = 1 if call.version < 11 else 2
        if not call.is_known(at) or call[at].type.elems != len(axes):
            return rule(call)
        kept = [scale == 1 for scale in call.known(at, "scales").reshape(-1).tolist()]
    else:
        wanted = elements(call, 3, "sizes")
        kept = [size is sizes[axis] for size, axis in zip(wanted, axes, strict=False)]
        box = [x.shape[axis] if same else size
               for same, size, axis in zip(kept, wanted, axes, strict=False)]  # fmt: skip
        if len(kept) < len(axes) or not all(isinstance(size, int) for size in box):
            return rule(call)
        inputs[3] = call.constant(np.asarray(box, dtype=np.int64))
    open_axes = [axis for axis, size in enumerate(sizes) if isinstance(size, Node)]
    policy = call.attrs.string("keep_aspect_ratio_policy", "stretch")
    crops = call.attrs.string("coordinate_transformation_mode", "") == "tf_crop_and_resize"
    if crops or policy != "stretch" or any(not kept[axes.index(a)] for a in open_axes if a in axes):
        return rule(call)
    (y,) = _on(call, rule, inputs)
    return _filled(call, [y], [sizes[a] if a in open_axes else n for a, n in enumerate(y.shape)])


def one_hot(call: Call, rule: Rule) -> Result:
    """OneHot: one more axis, of ``depth`` elements."""
    index, sizes = data_of(call, 0)
    (y,) = _on(call, rule, [index, call[1], call[2]])
    axis = call.axis(call.attrs.integer("axis", -1), len(sizes) + 1)
    return _filled(call, [y], [*sizes[:axis], y.shape[axis], *sizes[axis:]])


def identity(call: Call, rule: Rule) -> Result:
    """Identity: the value itself."""
    value = call.value(0)
    assert value is not None
    return value


POINTWISE = (
    *("Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal"),
    *("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul"),
    *("Or", "Pow", "PRelu", "Sub", "Sum", "Where", "Xor"),
)
LIKE_FIRST = (
    *("Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitCast", "BitwiseNot", "Cast"),
    *("CastLike", "Ceil", "Celu", "Clip", "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor", "Gelu"),
    *("HardSigmoid", "HardSwish", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not"),
    *("Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh"),
    *("Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu"),
)
FORMS: Mapping[str, Form] = MappingProxyType(
    {
        **dict.fromkeys(POINTWISE, pointwise),
        **dict.fromkeys(LIKE_FIRST, like_first),
        **dict.fromkeys(FILLS, reduction),
        **dict.fromkeys(("ArgMax", "ArgMin"), arg_reduce),
        **dict.fromkeys(("AveragePool", "BatchNormalization", "Conv", "ConvTranspose"), rows(1)),
        **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GroupNormalization"), rows(1)),
        **dict.fromkeys(("InstanceNormalization", "LRN", "LpPool", "MaxPool"), rows(1)),
        **dict.fromkeys(("LayerNormalization", "RMSNormalization"), before_axis),
        **dict.fromkeys(("Hardmax", "LogSoftmax", "Softmax"), softmax),
        "Concat": concat,
        "CumSum": running,
        "Flatten": flatten,
        "Gather": gather,
        "GatherElements": gather_elements,
        "GatherND": gather_nd,
        "Gemm": gemm,
        "Identity": identity,
        "MatMul": matmul,
        "OneHot": one_hot,
        "Resize": resize,
        "Shape": shape,
        "Size": size,
        "TopK": top_k,
        "Transpose": transpose,
    }
)
