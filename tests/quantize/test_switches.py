"""The model with switches: all off it is the float model, all on the quantised one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_nets import draw, make, quiet, residual_net, run, saved

from aotc.quantize.calibrate import calibrate
from aotc.quantize.codes import CODE_TYPES
from aotc.quantize.layers import find_layer
from aotc.quantize.net import Net
from aotc.quantize.placement import place
from aotc.quantize.prepare import prepare
from aotc.quantize.runner import Probe, Scratch
from aotc.quantize.switches import add_switches
from aotc.quantize.weights import code_layer
from aotc.quantize.write import write


@pytest.mark.slow
def test_switches_choose_between_both_models(tmp_path):
    path, samples = saved(residual_net(), tmp_path)
    net = prepare(path, 13)
    placement = place(net)
    with Scratch() as scratch:
        probe = Probe(scratch.save(net.to_model()), [placement.tensors])
        calibration = calibrate(probe, placement, samples, quiet)
    codings = calibration.codings(placement, "minmax", CODE_TYPES["uint8"], 100)
    switched = add_switches(net, placement, codings, {})
    inputs = next(iter(samples))
    count = len(switched.units)
    assert [unit.name for unit in switched.units] == ["c1", "c2", "s", "c3", "g", "y"]

    def at(*on):
        flags = np.isin(np.arange(count), on)
        return run(switched.model, {**inputs, switched.switches: flags})

    exact = run(net.to_model(), inputs)
    coded = run(write(net, placement, codings, {}).model, inputs)
    np.testing.assert_allclose(at(*range(count)), coded, atol=1e-5)
    np.testing.assert_allclose(at(), exact, atol=1e-4)
    last = at(count - 1)
    assert 0 < np.abs(last - exact).max() < 0.05


@pytest.mark.slow
def test_switches_choose_between_8_and_16_bits(tmp_path):
    path, samples = saved(residual_net(), tmp_path)
    net = prepare(path, 21)
    placement = place(net)
    with Scratch() as scratch:
        probe = Probe(scratch.save(net.to_model()), [placement.tensors])
        calibration = calibrate(probe, placement, samples, quiet)
    names = [unit.name for unit in placement.units]
    narrow, wide = (
        calibration.codings(placement, "minmax", CODE_TYPES["uint8"], 100, chosen)
        for chosen in ((), names)
    )
    switched = add_switches(net, placement, narrow, {}, wide)
    inputs = next(iter(samples))
    for on, codings in ((True, narrow), (False, wide)):
        flags = np.full(len(switched.units), on)
        found = run(switched.model, {**inputs, switched.switches: flags})
        np.testing.assert_allclose(
            found, run(write(net, placement, codings, {}).model, inputs), atol=1e-5
        )


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 1000), st.floats(1e-6, 1e3), st.floats(0, 1e6, width=32), st.booleans()
)  # fmt: skip
def test_codes_are_within_half_a_step(seed, input_scale, bias, transposed):
    weights = draw(seed, 4, 3, 2, 2)
    kind, channels = ("ConvTranspose", 6) if transposed else ("Conv", 4)
    biases = np.full(channels, bias, np.float32)
    extra = {"group": 2} if transposed else {}
    nodes = [(kind, "x,w,b", "y", extra)]
    shape = [1, 4 if transposed else 3, 5, 5]
    net = Net(make(nodes, {"w": weights, "b": biases}, {"x": shape}, {"y": 4}))
    layer = find_layer(net, net.nodes[0])
    codes = code_layer(net, layer, np.float32(input_scale))
    scales = np.expand_dims(codes.scales, [a for a in range(4) if a != layer.out_axis])
    assert np.abs(codes.weights).max() <= 127
    assert np.abs(codes.weights * scales - weights).max() <= scales.max() * 0.501
    restored = codes.bias * codes.bias_scales.astype(np.float64)
    assert np.abs(restored - biases).max() <= codes.bias_scales.max() * 0.501 + bias * 1e-6
