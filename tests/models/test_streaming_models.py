"""Models with a state run a thousand steps on their own results and stay with ONNX Runtime."""

import numpy as np
import onnx
import pytest

import aotc
from bench.models import Unavailable, find_model, get_model
from bench.recurrent_models import HIDDEN, VOCABULARY, text_model

onnxruntime = pytest.importorskip("onnxruntime")

STEPS = 1000


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class Comparison:
    """Differences over a whole run, against the largest magnitude that an output ever had."""

    def __init__(self):
        self.apart, self.reach = {}, {}

    def add(self, name, found, wanted):
        apart = float(np.abs(found.reshape(wanted.shape) - wanted).max())
        self.apart[name] = max(self.apart.get(name, 0.0), apart)
        self.reach[name] = max(self.reach.get(name, 0.0), float(np.abs(wanted).max()))

    def passes(self):
        return all(self.apart[name] <= 1e-4 * self.reach[name] for name in self.apart)


def run_text(op, folder, steps):
    """Each engine carries its own state; the tokens are those that ONNX Runtime finds likeliest,
    moved on by the step so that they do not settle."""
    path = folder / "text.onnx"
    onnx.save(text_model(op), path)
    compiled, other = aotc.compile(path), session(path)
    states = ["h", "c"] if op == "LSTM" else ["h"]
    names = ["logits", *(f"{name}_next" for name in states)]
    own = {name: np.zeros((1, 1, HIDDEN), np.float32) for name in states}
    theirs = dict(own)
    token, seen, comparison = 1, set(), Comparison()
    for step in range(steps):
        fed = np.full((1, 1), token, np.int64)
        found = compiled.run_dict({"token": fed, **own})
        wanted = other.run(names, {"token": fed, **theirs})
        for name, right in zip(names, wanted, strict=True):
            comparison.add(name, found[name], right)
        own = {name: found[f"{name}_next"] for name in states}
        theirs = dict(zip(states, wanted[1:], strict=True))
        token = (int(wanted[0].argmax()) + step) % VOCABULARY
        seen.add(token)
    assert comparison.passes(), comparison.apart
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("op", ["GRU", "LSTM"])
def test_text_models_agree_over_a_few_steps(op, tmp_path):
    run_text(op, tmp_path, 20)


@pytest.mark.slow
@pytest.mark.parametrize("op", ["GRU", "LSTM"])
def test_text_models_agree_over_a_long_run(op, tmp_path):
    assert len(run_text(op, tmp_path, STEPS)) > VOCABULARY // 2


def voice(step, count, rate):
    """Samples of something like a vowel, louder and softer, in noise."""
    time = (step * count + np.arange(count)) / rate
    tone = sum(np.sin(2 * np.pi * 140 * k * time) / k for k in range(1, 12))
    loud = max(0.0, np.sin(step / 15)) * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * time))
    noise = np.random.default_rng(step).standard_normal(count)
    return (0.3 * loud * tone + 0.01 * noise).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("rate", [16000, 8000])
def test_voice_detection_agrees_over_a_long_run(rate):
    """silero_vad: two branches by the sampling rate, an LSTM and a state of its own."""
    try:
        path = get_model("silero_vad_16k")
    except Unavailable as error:
        pytest.skip(str(error))
    model = find_model("silero_vad_16k")
    compiled, other = aotc.compile(path, input_shapes=model.shapes), session(path)
    own = theirs = np.zeros(model.shapes["state"], np.float32)
    comparison = Comparison()
    for step in range(STEPS):
        x = voice(step, model.shapes["input"][1], rate).reshape(model.shapes["input"])
        feeds = {"input": x, "sr": np.array(rate, np.int64)}
        found = compiled.run_dict({**feeds, "state": own})
        output, state = other.run(["output", "stateN"], {**feeds, "state": theirs})
        comparison.add("output", found["output"], output)
        comparison.add("state", found["stateN"], state)
        own, theirs = found["stateN"].reshape(state.shape), state
    assert comparison.passes(), comparison.apart
    assert comparison.reach["output"] > 0.1
