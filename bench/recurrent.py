#!/usr/bin/env python3
"""Nothing in, the speed of recurrent layers against ONNX Runtime out, as a markdown table.

bench/recurrent.py [--seconds 2]

Each layer is compiled for this machine and measured beside ONNX Runtime on one thread, samples
interleaved; the figures are medians. An error of more than 1e-4 of the largest magnitude stops it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import onnx
from recurrent_models import Layer, layer_model

LAYERS = (
    *(Layer("LSTM", 32, 32, 100), Layer("LSTM", 64, 128, 50), Layer("LSTM", 256, 256, 100)),
    *(Layer("LSTM", 128, 128, 50, sides=2), Layer("LSTM", 64, 128, 50, batch=8)),
    *(Layer("LSTM", 40, 64, 98), Layer("LSTM", 128, 128, 1), Layer("LSTM", 64, 128, 2000)),
    *(Layer("GRU", 64, 128, 50), Layer("GRU", 256, 256, 100), Layer("GRU", 64, 128, 50, batch=8)),
    *(Layer("GRU", 128, 128, 1), Layer("RNN", 64, 128, 50)),
)


def measure_layer(layer: Layer, seconds: float) -> tuple[float, float]:
    """Microseconds of aotc and of ONNX Runtime."""
    import aotc
    from aotc.reference.against import run_reference
    from aotc.reference.compare import compare_outputs
    from aotc.reference.measure import measure

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layer.onnx"
        onnx.save(layer_model(layer), path)
        compiled = aotc.compile(path, cpu="native")
        reference = run_reference(path, compiled.signature)
        found = compiled.run_dict(reference.inputs)
        for difference in compare_outputs(found, reference.outputs, 1e-4):
            if not difference.passed:
                sys.exit(f"{layer}: {difference}")
        functions = {
            "aotc": compiled.bind(**reference.inputs),
            "ort": reference.engine.bind(reference.inputs),
        }
        found_ms = measure(functions, budget_seconds=seconds, min_rounds=11).ms
    return found_ms["aotc"] * 1e3, found_ms["ort"] * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description="Recurrent layers against ONNX Runtime.")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each layer and engine")
    args = parser.parse_args()
    print("| layer | steps | batch | aotc, us | ONNX Runtime, us | ratio |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for layer in LAYERS:
        own, other = measure_layer(layer, args.seconds)
        row = f"| {layer} | {layer.steps} | {layer.batch} | {own:.1f} | {other:.1f} |"
        print(f"{row} {other / own:.2f} |", flush=True)


if __name__ == "__main__":
    main()
