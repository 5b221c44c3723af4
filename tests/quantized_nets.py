"""Small quantised ONNX models for tests: a seed goes in, a QDQ model (as quantisers write them)
comes out."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class QuantizedNet:
    """A QDQ model under construction: every tensor has a scale and a zero point."""

    def __init__(self, seed=0, activation=np.uint8):
        self.random = np.random.default_rng(seed)
        self.activation = activation
        self.nodes, self.constants = [], []

    def constant(self, values):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, kind, *operands, **attributes):
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, operands, [name], name=name, **attributes))
        return name

    def requantized(self, x, scale, zero=None):
        """``x`` through codes and back."""
        if zero is None:
            zero = 7 if self.activation is np.int8 else 121
        grid = self.constant(np.float32(scale)), self.constant(self.activation(zero))
        return self.node("DequantizeLinear", self.node("QuantizeLinear", x, *grid), *grid)

    def weights(self, *shape, axis=0):
        """Weights with one scale for each index along ``axis``."""
        codes = self.random.integers(-127, 128, shape).astype(np.int8)
        scales = self.random.uniform(0.002, 0.01, shape[axis]).astype(np.float32)
        zeros = np.zeros(shape[axis], np.int8)
        grid = self.constant(codes), self.constant(scales), self.constant(zeros)
        return self.node("DequantizeLinear", *grid, axis=axis)

    def conv(self, x, inputs, outputs, size=3, groups=1, relu=True, scale=0.05, **attributes):
        kernel = self.weights(outputs, inputs // groups, size, size)
        bias = self.constant(self.random.normal(0, 0.5, outputs).astype(np.float32))
        attributes.setdefault("pads", [size // 2] * 4)
        y = self.node("Conv", x, kernel, bias, group=groups, **attributes)
        return self.requantized(self.node("Relu", y) if relu else y, scale)

    def model(self, inputs, output, shape):
        """``inputs`` by name with shapes, all float32."""
        make = helper.make_tensor_value_info
        values = [make(name, TensorProto.FLOAT, dims) for name, dims in inputs.items()]
        result = [make(output, TensorProto.FLOAT, shape)]
        graph = helper.make_graph(self.nodes, "quantized", values, result, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
        model.ir_version = 9
        onnx.checker.check_model(model)
        return model


def image_net(seed=0, activation=np.uint8, channels=3):
    """Convolutions (padded, strided, depthwise, pointwise), a residual, pools and a classifier."""
    net = QuantizedNet(seed, activation)
    x = net.requantized("x", 0.02)
    x = net.conv(x, channels, 8)
    wide = net.conv(x, 8, 24, size=1)
    wide = net.conv(wide, 24, 24, groups=24)
    narrow = net.conv(wide, 24, 8, size=1, relu=False)
    x = net.requantized(net.node("Relu", net.node("Add", x, narrow)), 0.06)
    x = net.node("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = net.conv(x, 8, 20, strides=[2, 2])
    x = net.requantized(net.node("GlobalAveragePool", x), 0.04)
    x = net.node("Flatten", x)
    bias = net.constant(net.random.normal(0, 0.5, 5).astype(np.float32))
    x = net.node("Gemm", x, net.weights(5, 20), bias, transB=1)
    return net.model({"x": (1, channels, 9, 11)}, net.requantized(x, 0.05), (1, 5))


def matrix_net(seed=0):
    """Two products of a few rows, with a bias each."""
    net = QuantizedNet(seed)
    x = net.requantized("x", 0.02)
    x = net.node("MatMul", x, net.weights(13, 33, axis=1))
    x = net.node("Add", x, net.constant(net.random.normal(0, 0.5, 33).astype(np.float32)))
    x = net.requantized(x, 0.05)
    x = net.node("MatMul", x, net.weights(33, 6, axis=1))
    return net.model({"x": (5, 13)}, net.requantized(x, 0.2), (5, 6))
