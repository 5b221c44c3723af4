"""Fusion: which operators share a kernel, as text, and that groups always partition the graph."""

import pytest
from graph_runs import Net, check_partition
from hypothesis import given, settings
from random_nets import nets

from aotc.fuse.groups import GroupKind, fuse, is_depthwise
from aotc.graph import ops
from aotc.graph.types import DType
from aotc.passes.runner import run_passes


def conv(net, data, outputs, inputs, kernel=3, groups=1):
    op = ops.Conv((1, 1), (0, 0), (0, 0), (1, 1), groups, True)
    return net.b.apply(op, data, net.c(outputs, inputs // groups, kernel, kernel))


def scalar(net, value):
    return net.b.constant(value, DType.F32)


def text(graph):
    groups = fuse(graph)
    check_partition(groups)
    return groups.as_text()


def test_convolution_takes_bias_relu_and_residual():
    net = Net()
    b = net.b
    y = b.binary("add", conv(net, net.x(1, 8, 8, 16), 32, 16), net.c(32))
    y = b.binary("max", b.binary("add", y, net.x(1, 6, 6, 32)), scalar(net, 0))
    assert text(net.graph(y)) == "g000 contract  float32[1,6,6,32]  conv add add max\n"


def softmax(net, x):
    shifted = net.b.binary("sub", x, net.b.reduce("max", x, [-1], True))
    powers = net.b.unary("exp", shifted)
    return net.b.binary("div", powers, net.b.reduce("sum", powers, [-1], True))


def test_softmax_is_one_group_of_rows():
    net = Net()
    y = softmax(net, net.x(2, 4, 10))
    assert text(net.graph(y)) == (
        "g000 rows      float32[2,4,10]  "
        "max reshape broadcast sub exp sum reshape broadcast div\n"
    )


def test_softmax_takes_the_pointwise_operators_around_it():
    net = Net()
    scaled = net.b.binary("mul", net.x(4, 10), scalar(net, 0.25))
    y = net.b.binary("mul", softmax(net, scaled), net.x(4, 10))
    (line,) = text(net.graph(y)).splitlines()
    assert line.startswith("g000 rows      float32[4,10]  mul max") and line.endswith("div mul")


def layer_norm(net, x):
    b, size = net.b, x.shape[-1]
    mean = b.binary("div", b.reduce("sum", x, [-1], True), scalar(net, size))
    centred = b.binary("sub", x, mean)
    square = b.reduce("sum", b.binary("mul", centred, centred), [-1], True)
    variance = b.binary("div", square, scalar(net, size))
    spread = b.unary("sqrt", b.binary("add", variance, scalar(net, 1e-5)))
    scaled = b.binary("mul", b.binary("div", centred, spread), net.c(size))
    return b.binary("add", scaled, net.c(size))


def test_layer_norm_is_one_group_of_rows():
    net = Net()
    graph = net.graph(layer_norm(net, net.x(2, 5, 16)))
    assert text(graph) == (
        "g000 rows      float32[2,5,16]  sum reshape div broadcast sub mul sum reshape div add "
        "sqrt broadcast div mul add\n"
    )
    assert len(fuse(run_passes(graph)).groups) == 1


def test_gelu_goes_into_the_product_before_it():
    net = Net()
    b = net.b
    y = b.binary("add", b.apply(ops.Dot(), net.x(4, 8), net.c(8, 16)), net.c(16))
    inner = b.unary("erf", b.binary("mul", y, scalar(net, 0.7071)))
    y = b.binary("mul", y, b.binary("add", inner, scalar(net, 1)))
    y = b.binary("mul", y, scalar(net, 0.5))
    assert text(net.graph(y)) == "g000 contract  float32[4,16]  dot add mul erf add mul mul\n"


def test_a_value_times_its_own_sigmoid_stays_with_the_convolution():
    net = Net()
    y = conv(net, net.x(1, 5, 5, 8), 8, 8)
    y = net.b.binary("mul", y, net.b.unary("sigmoid", y))
    assert text(net.graph(y)) == "g000 contract  float32[1,3,3,8]  conv sigmoid mul\n"


def test_squeeze_and_excite():
    net = Net()
    b = net.b
    x = net.b.binary("max", conv(net, net.x(1, 8, 8, 8), 8, 8), scalar(net, 0))
    squeezed = b.binary("div", b.reduce("sum", x, [1, 2], True), scalar(net, 36))
    small = b.binary("max", conv(net, squeezed, 4, 8, kernel=1), scalar(net, 0))
    gate = b.unary("sigmoid", conv(net, small, 8, 4, kernel=1))
    y = b.binary("mul", x, gate)
    assert text(net.graph(y)) == (
        "g000 contract  float32[1,6,6,8]  conv max\n"
        "g001 reduce    float32[1,8]  sum\n"
        "g002 map       float32[1,1,1,8]  div\n"
        "g003 contract  float32[1,1,1,4]  conv max\n"
        "g004 contract  float32[1,1,1,8]  conv sigmoid\n"
        "g005 map       float32[1,6,6,8]  mul\n"
    )


def test_an_output_in_the_middle_ends_the_group():
    net = Net()
    y = net.out(net.b.apply(ops.Dot(), net.x(4, 8), net.c(8, 16)))
    assert text(net.graph(net.b.unary("neg", y))) == (
        "g000 contract  float32[4,16]  dot\ng001 map       float32[4,16]  neg\n"
    )


def test_a_result_that_is_read_through_a_view_ends_the_group():
    net = Net()
    y = net.b.apply(ops.Dot(), net.x(4, 8), net.c(8, 4))
    y = net.b.binary("add", y, net.b.transpose(y, (1, 0)))
    assert text(net.graph(y)) == (
        "g000 contract  float32[4,4]  dot\ng001 map       float32[4,4]  add\n"
    )


def test_an_epilogue_never_waits_for_what_needs_its_own_product():
    net = Net()
    b = net.b
    y = b.apply(ops.Dot(), net.x(4, 4), net.c(4, 4))
    z = b.apply(ops.Dot(), y, net.c(4, 4))
    assert text(net.graph(b.binary("add", y, z))) == (
        "g000 contract  float32[4,4]  dot\ng001 contract  float32[4,4]  dot add\n"
    )


def test_two_products_that_are_added_are_two_groups():
    net = Net()
    b = net.b
    y = b.binary("add", *(b.apply(ops.Dot(), net.x(4, 4), net.c(4, 4)) for _ in range(2)))
    lines = text(net.graph(y)).splitlines()
    assert [line.split()[1] for line in lines] == ["contract", "contract"]
    assert sum("add" in line for line in lines) == 1


def test_a_window_takes_what_follows():
    net = Net()
    one = (1, 1, 1, 1)
    op = ops.ReduceWindow("max", (1, 2, 2, 1), (1, 2, 2, 1), (0,) * 4, (0,) * 4, one)
    y = net.b.binary("add", net.b.apply(op, net.x(1, 6, 6, 4)), net.c(4))
    assert text(net.graph(y)) == "g000 window    float32[1,3,3,4]  max add\n"


def test_pointwise_operators_before_a_reduction_join_it():
    net = Net()
    b = net.b
    y = b.reduce("sum", b.unary("abs", b.binary("mul", net.x(3, 4, 5), net.x(3, 4, 5))), [1], False)
    assert text(net.graph(b.unary("sqrt", y))) == "g000 reduce    float32[3,5]  mul abs sum sqrt\n"


def test_views_and_data_movement():
    net = Net()
    b = net.b
    x = b.unary("abs", net.x(4, 6))
    y = b.apply(ops.Concat(0), b.transpose(x, (1, 0)), b.reshape(net.x(24), (6, 4)))
    assert text(net.graph(b.apply(ops.Pad((1, 0), (0, 1), 0.0), y))) == (
        "g000 map       float32[4,6]  abs\n"
        "g001 move      float32[12,4]  concat\n"
        "g002 move      float32[13,5]  pad\n"
    )


def test_a_reduction_of_single_elements_joins_nothing():
    net = Net()
    y = net.b.unary("neg", net.b.reduce("sum", net.b.unary("abs", net.x(4, 1)), [1], True))
    kinds = [group.kind for group in fuse(net.graph(y)).groups]
    assert kinds == [GroupKind.MAP, GroupKind.ROWS, GroupKind.MAP]


def test_a_broadcast_is_never_stored():
    net = Net()
    b = net.b
    mean = b.reduce("sum", net.x(6, 4), [1], True)
    wide = b.broadcast(mean, (6, 4))
    y = b.binary("add", b.transpose(wide, (1, 0)), net.x(4, 6))
    assert text(net.graph(y)).splitlines()[0].split()[:3] == ["g000", "rows", "float32[6,1]"]


@pytest.mark.parametrize(
    ("shape", "weights", "groups", "last", "expected"),
    [
        ((1, 5, 5, 8), (8, 1, 3, 3), 8, True, True),
        ((1, 5, 5, 8), (16, 1, 3, 3), 8, True, False),
        ((1, 8, 5, 5), (8, 1, 3, 3), 8, False, False),
        ((1, 5, 5, 1), (1, 1, 3, 3), 1, True, False),
        ((1, 5, 5, 8), (8, 4, 3, 3), 2, True, False),
    ],
)
def test_depthwise_is_one_filter_a_channel(shape, weights, groups, last, expected):
    net = Net()
    op = ops.Conv((1, 1), (0, 0), (0, 0), (1, 1), groups, last)
    node = net.b.apply(op, net.x(*shape), net.c(*weights))
    assert is_depthwise(node) is expected
    kind = fuse(net.graph(node)).groups[0].kind
    assert kind is (GroupKind.DEPTHWISE if expected else GroupKind.CONTRACT)


def test_labels_say_what_the_kernel_computes():
    net = Net()
    y = net.b.binary("max", conv(net, net.x(1, 8, 8, 4), 8, 4), scalar(net, 0))
    net.out(y)
    net.out(net.b.binary("mul", net.x(1, 1), net.b.unary("exp", net.x(1, 1))))
    net.out(softmax(net, net.x(4, 10)))
    labels = [group.label for group in fuse(net.graph()).groups]
    assert sorted(labels) == ["conv_max_6x6x8", "exp_mul", "reduce_sub_exp_sum_4x10"]


@settings(max_examples=25, deadline=None)
@given(nets())
def test_groups_partition_every_graph(graph):
    check_partition(fuse(graph))
    check_partition(fuse(run_passes(graph)))


def test_codes_are_stored_rather_than_what_is_rounded_to_them():
    net = Net()
    b = net.b

    def quantised(y):
        y = b.unary("round", y)
        y = b.binary("min", b.binary("max", y, scalar(net, 0)), scalar(net, 255))
        return b.cast(b.cast(y, DType.U8), DType.F32)

    first = conv(net, net.x(1, 8, 8, 16), 32, 16)
    second = conv(net, net.x(1, 8, 8, 16), 32, 16)
    y = b.binary("add", quantised(first), quantised(second))
    assert sorted(line.split("  ")[1] for line in text(net.graph(y)).splitlines()) == [
        "float32[1,6,6,32]",
        "uint8[1,6,6,32]",
    ]


def test_a_window_is_no_light_operand_of_another():
    net = Net()
    x = net.x(1, 2)
    first, second = (
        net.b.apply(ops.ReduceWindow("max", (1, size), (1, 2), (0, 0), (0, 0), (1, 1)), x)
        for size in (1, 2)
    )
    groups = fuse(net.graph(net.b.binary("add", first, second))).groups
    assert [len(group.nodes) for group in groups] in ([1, 2], [2, 1])
