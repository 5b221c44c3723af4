#!/usr/bin/env python3
"""Nothing in, speed of quantised models out: against other engines here, and on a Cortex-M.

bench/eight_bits.py [MODEL ...] [--against onnxruntime,openvino] [--threads N] [--dynamic]
bench/eight_bits.py [MODEL ...] --cortex-m4 | --cortex-m55

The models are quantised by ONNX Runtime's own quantiser (QDQ, int8 weights by channel, uint8
activations), on normally distributed samples, or with --dynamic by its quantiser of weights alone,
which leaves the scales of activations to each run. Engines are timed in one interleaved run. With
--cortex-m4 or --cortex-m55 the instructions of one run are counted under QEMU instead, as
bench/instructions.py does. Markdown on stdout, progress on stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import math
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import aotc
from aotc.debug.count import count_flop
from aotc.graph.types import TensorType
from aotc.reference.engines import load_engine
from aotc.reference.inputs import make_inputs
from aotc.reference.measure import measure
from bench.instructions import GOALS, instructions_of, plugin_in
from bench.models import find_model, get_model

TINY = ("tiny_kws_dscnn", "tiny_ic_resnet8", "tiny_vww_mbv1", "tiny_ad_ae")
MODELS = (*TINY, "mobilenet_v2", "resnet50", "minilm_l6_128")
SAMPLES = 4


def quantise(name: str, folder: Path, dynamic: bool = False) -> Path:
    """The model of that name, quantised by ONNX Runtime."""
    from onnxruntime import quantization
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as quantize
    from onnxruntime.quantization.shape_inference import quant_pre_process

    model = find_model(name)
    types = aotc.load_onnx(get_model(name), input_shapes=model.shapes).inputs
    ports = [(node.op.name, node.type) for node in types]

    class Samples(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._samples: Iterator[dict[str, np.ndarray]] = iter(
                [_sample(ports, seed) for seed in range(SAMPLES)]
            )

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._samples, None)

    prepared, output = folder / f"{name}.float.onnx", folder / f"{name}.onnx"
    logging.disable(logging.WARNING)  # of axes that vectors do not have
    with contextlib.redirect_stdout(io.StringIO()):
        quant_pre_process(str(get_model(name)), str(prepared), skip_symbolic_shape=True)
        if dynamic:
            quantization.quantize_dynamic(
                str(prepared), str(output), per_channel=True, weight_type=QuantType.QInt8
            )
            return output
        quantize(
            str(prepared),
            str(output),
            Samples(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    return output


def _sample(ports: list[tuple[str, TensorType]], seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {
        name: random.standard_normal(type_.dims).astype(np.float32)
        if type_.dtype.is_float
        else np.ones(type_.dims, type_.dtype.numpy)
        for name, type_ in ports
    }


def time_one(
    name: str, engines: list[str], threads: int, seconds: float, dynamic: bool
) -> dict[str, float]:
    """Milliseconds of aotc and the engines."""
    shapes = find_model(name).shapes
    with tempfile.TemporaryDirectory() as temporary:
        path = quantise(name, Path(temporary), dynamic)
        ours = aotc.compile(path, cpu="native", input_shapes=shapes, threads=threads > 1)
        if threads > 1:
            ours = ours.with_threads(threads)
        inputs = make_inputs(ours.signature.inputs, 0, {})
        functions = {"aotc": ours.bind(**inputs)}
        outputs = [port.name for port in ours.signature.outputs]
        dims = {port.name: port.type.dims for port in ours.signature.inputs}
        for engine in engines:
            loaded = load_engine(engine, path, outputs, dims, threads)
            functions[engine] = loaded.bind(inputs)
        return dict(measure(functions, budget_seconds=seconds, min_rounds=11).ms)


def count_one(name: str, target: str) -> tuple[float, int]:
    """Instructions per multiply-add on a Cortex-M, and bytes of the arena."""
    plain = aotc.compile(get_model(name), opt="size")  # the multiply-adds of the float model
    work = sum(count_flop(call.kernel) for call in plain.program.calls) // 2
    (goal,) = (goal for goal in GOALS if goal.name == target)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = aotc.compile(quantise(name, folder), target=target, name="model")
        count = instructions_of(model, goal, folder, plugin_in(folder))
    return count / work, model.plan.arena_bytes


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--against", default="onnxruntime", metavar="ENGINES")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0, help="of timing per engine and model")
    parser.add_argument("--dynamic", action="store_true", help="scales of activations in each run")
    for board in ("cortex-m4", "cortex-m55"):
        parser.add_argument(f"--{board}", dest="board", action="store_const", const=board)
    args = parser.parse_args()
    if args.board:
        print("| model | instructions per multiply-add | arena bytes |\n| --- | ---: | ---: |")
        for name in args.models or TINY:
            per_step, arena = count_one(name, args.board)
            print(f"| {name} | {per_step:.3f} | {arena} |", flush=True)
        return 0
    engines = args.against.split(",")
    print(f"| model | aotc ms | {' | '.join(f'{e} ms' for e in engines)} | ratio |")
    print(f"| --- | ---: |{' ---: |' * len(engines)} ---: |")
    ratios = []
    for name in args.models or MODELS:
        print(name, file=sys.stderr)
        ms = time_one(name, engines, args.threads, args.seconds, args.dynamic)
        ratios.append(min(ms[engine] for engine in engines) / ms["aotc"])
        times = " | ".join(f"{ms[engine]:.4f}" for engine in ("aotc", *engines))
        print(f"| {name} | {times} | {ratios[-1]:.2f} |", flush=True)
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    print(f"\nleast {min(ratios):.2f}, geometric mean {mean:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
