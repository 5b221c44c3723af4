"""Quantised operators with drawn shapes for tests: a seed goes in, an ONNX model with an output for
each operator comes out, the inputs for it, and what kind of arithmetic each output is."""

import numpy as np
from onnx import helper, numpy_helper

#: Integer arithmetic to the end: equal to the reference. The others may be off by one code.
EXACT, ONE_STEP = "exact", "one step"


class _Operators:
    """A model under construction: each operator has inputs and an output of its own."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.nodes, self.constants, self.ports, self.outputs = [], [], [], []
        self.inputs, self.kinds = {}, {}

    def extent(self, low=1, high=9):
        return int(self.random.integers(low, high + 1))

    def codes(self, dtype, shape):
        limits = np.iinfo(dtype)
        return self.random.integers(limits.min, limits.max + 1, shape).astype(dtype)

    def weights(self, shape):
        return self.constant(self.random.integers(-127, 128, shape).astype(np.int8))

    def scale(self, *count):
        return self.constant(self.random.uniform(0.003, 0.02, count).astype(np.float32))

    def zero(self, dtype):
        least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
        return self.constant(np.array(self.random.integers(least // 2, most // 2 + 9), dtype))

    def constant(self, values):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def x(self, values):
        name = f"x{len(self.inputs)}"
        self.inputs[name] = values
        kind = helper.np_dtype_to_tensor_dtype(values.dtype)
        self.ports.append(helper.make_tensor_value_info(name, kind, values.shape))
        return name

    def real(self, *shape):
        return self.x(self.random.normal(0, 1, shape).astype(np.float32))

    def node(self, kind, *operands, outputs=1, **attributes):
        names = [f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, operands, names, **attributes))
        return names[0] if outputs == 1 else names

    def out(self, name, dtype, kind):
        element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self.outputs.append(helper.make_tensor_value_info(name, element, None))
        self.kinds[name] = kind

    def through_codes(self, x, dtype=np.uint8, scale=None):
        """``x`` rounded to codes and back."""
        grid = scale or self.scale(), self.zero(dtype)
        return self.node("DequantizeLinear", self.node("QuantizeLinear", x, *grid), *grid)

    def to_codes(self, x, dtype, scale=0.05):
        grid = self.constant(np.float32(scale)), self.zero(dtype)
        self.out(self.node("QuantizeLinear", x, *grid), dtype, ONE_STEP)

    def window(self):
        """Attributes of a convolution over an image of the size that comes with them."""
        taps = (self.extent(1, 3), self.extent(1, 3))
        attributes = {
            "kernel_shape": taps,
            "pads": [self.extent(0, tap - 1) for tap in (*taps, *taps)],
            "strides": [self.extent(1, 2), self.extent(1, 2)],
            "dilations": [self.extent(1, 2), self.extent(1, 2)],
        }
        size = (self.extent(5, 9), self.extent(5, 9))
        return size, attributes


def _matrices(net):
    for a, b in ((np.uint8, np.int8), (np.int8, np.int8), (np.uint8, np.uint8)):
        rows, depth, columns = net.extent(), net.extent(1, 40), net.extent(1, 40)
        left = net.x(net.codes(a, (rows, depth)))
        right = net.constant(net.codes(b, (depth, columns)))
        sums = net.node("MatMulInteger", left, right, net.zero(a), net.zero(b))
        net.out(sums, np.int32, EXACT)
        grid = net.scale(), net.zero(a)
        scales = net.scale(columns)
        zeros = net.constant(np.zeros(columns, np.int8))
        operands = [left, *grid, net.weights((depth, columns)), scales, zeros]
        net.out(net.node("QLinearMatMul", *operands, net.scale(), net.zero(a)), a, EXACT)
        other = net.x(net.codes(b, (2, depth, columns)))  # known at run time only
        left = net.x(net.codes(a, (2, rows, depth)))
        operands = [left, *grid, other, net.scale(), net.zero(b), net.scale(), net.zero(a)]
        net.out(net.node("QLinearMatMul", *operands), a, EXACT)


def _convolutions(net):
    for dtype, grouped in ((np.uint8, False), (np.int8, False), (np.uint8, True)):
        size, attributes = net.window()
        inputs, outputs = (4, 4) if grouped else (net.extent(1, 9), net.extent(1, 20))
        group = inputs if grouped else 1
        x = net.x(net.codes(dtype, (1, inputs, *size)))
        shape = (outputs, inputs // group, *attributes["kernel_shape"])
        w, zero = net.weights(shape), net.zero(dtype)
        sums = net.node("ConvInteger", x, w, zero, group=group, **attributes)
        net.out(sums, np.int32, EXACT)
        bias = net.constant(net.random.integers(-5000, 5000, outputs).astype(np.int32))
        scales, none = net.scale(outputs), net.constant(np.zeros(outputs, np.int8))
        operands = [x, net.scale(), zero, w, scales, none, net.scale(), net.zero(dtype), bias]
        net.out(net.node("QLinearConv", *operands, group=group, **attributes), dtype, EXACT)


def _dynamic(net):
    rows, depth, columns = net.extent(), net.extent(4, 20), net.extent(1, 20)
    codes, scale, zero = net.node("DynamicQuantizeLinear", net.real(rows, depth), outputs=3)
    sums = net.node("MatMulInteger", codes, net.weights((depth, columns)), zero)
    net.out(sums, np.int32, EXACT)
    size, attributes = net.window()
    x = net.real(1, 3, *size)
    codes, scale, zero = net.node("DynamicQuantizeLinear", x, outputs=3)
    w = net.weights((5, 3, *attributes["kernel_shape"]))
    net.out(net.node("ConvInteger", codes, w, zero, **attributes), np.int32, EXACT)


def _islands(net):
    """What quantisers write around operators on floats."""
    for dtype in (np.uint8, np.int8, np.int16):
        x = net.through_codes(net.real(3, 12), dtype)
        w = net.node("DequantizeLinear", net.weights((12, 7)), net.scale(7), axis=1)
        net.to_codes(net.node("MatMul", x, w), dtype)
        y = net.through_codes(net.real(3, 12), dtype)
        net.to_codes(net.node("Add", x, y), dtype)
        net.to_codes(net.node("MatMul", x, net.node("Transpose", y, perm=[1, 0])), dtype)
    size, attributes = net.window()
    x = net.through_codes(net.real(1, 3, *size))
    w = net.weights((6, 3, *attributes["kernel_shape"]))
    w = net.node("DequantizeLinear", w, net.scale(6), axis=0)
    net.to_codes(net.node("Relu", net.node("Conv", x, w, **attributes)), np.uint8)
    net.to_codes(net.node("MaxPool", x, kernel_shape=[2, 2]), np.uint8)
    net.to_codes(net.node("AveragePool", x, kernel_shape=[3, 2]), np.uint8)
    x = net.through_codes(net.real(4, 33))
    net.to_codes(net.node("Mul", x, net.node("Sigmoid", x)), np.int8)
    table = net.node("DequantizeLinear", net.weights((40, 6)), net.scale(40), axis=0)
    ids = net.x(net.random.integers(-40, 40, (2, 3)))
    net.to_codes(net.node("Gather", table, ids), np.uint8)


def quantized_operators(seed):
    """(model, inputs by name, EXACT or ONE_STEP by output)."""
    net = _Operators(seed)
    for part in (_matrices, _convolutions, _dynamic, _islands):
        part(net)
    graph = helper.make_graph(net.nodes, "operators", net.ports, net.outputs, net.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])
    model.ir_version = 10
    return model, net.inputs, net.kinds


