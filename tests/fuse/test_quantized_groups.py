"""Where groups of quantised models end: tensors between kernels are codes."""

import re

import onnx
import pytest
from quantized_nets import QuantizedNet

import aotc


@pytest.mark.slow
def test_both_sides_of_a_residual_sum_are_codes(tmp_path):
    net = QuantizedNet()
    x = net.requantized("x", 0.1)
    side = net.conv(x, 16, 32, size=1, relu=False)
    main = net.conv(net.conv(x, 16, 16), 16, 32, size=1, relu=False)
    y = net.requantized(net.node("Relu", net.node("Add", main, side)), 0.2)
    last = net.conv(y, 32, 16)
    onnx.save(net.model({"x": [1, 16, 8, 8]}, last, [1, 16, 8, 8]), tmp_path / "net.onnx")
    text = aotc.compile(tmp_path / "net.onnx").as_text("loops")
    results = re.findall(r"^kernel \w*conv\w*\(.*out out\d+: (\w+)\[", text, re.MULTILINE)
    assert len(results) >= 4 and set(results) == {"u8"}, results
