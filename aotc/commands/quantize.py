"""Quantises a float ONNX model with the help of samples; a QDQ model that any engine reads, and a
report of what that does to its results, come out.

Weights become int8 with a scale for each channel, activations codes of one scale a tensor, chosen
from what the samples show. The samples are files in a folder: .npz with an array for each input,
.npy or images for models with one input; a file is one sample.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from aotc.commands.agreement import (
    add_sample_arguments,
    closeness_cells,
    print_outputs,
    progress_of,
    read_decisions,
    read_samples,
    read_share,
    summary,
)
from aotc.commands.console import format_bytes, print_table, progress_line
from aotc.commands.files import write_file
from aotc.quantize.codes import CODE_TYPES
from aotc.quantize.ranges import METHODS
from aotc.quantize.report import Report

NAME = "quantize"
HELP = "make an int8 model of a float model and samples"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``aotc quantize``."""
    parser.add_argument("model", type=Path, help="the ONNX file, in float32")
    parser.add_argument(
        "--calibrate", type=Path, required=True, metavar="FOLDER", help="the samples"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="the quantised model (default: MODEL.int8.onnx here)",
    )
    parser.add_argument(
        "--activations",
        choices=tuple(CODE_TYPES),
        default="uint8",
        help="the type of activations (default: uint8; int16 needs opset 21)",
    )
    parser.add_argument(
        "--method",
        choices=METHODS,
        default="mse",
        help="how the range of an activation is chosen (default: mse, the least squared error)",
    )
    parser.add_argument(
        "--percentile",
        type=float,
        default=99.99,
        help="for --method percentile: how many of 100 values the range covers (default: 99.99)",
    )
    parser.add_argument(
        "--no-bias-correction",
        action="store_true",
        help="leave biases as they are, instead of making up for the mean error of the weights",
    )
    parser.add_argument(
        "--no-equalize",
        action="store_true",
        help="leave channels as they are, instead of making those in front of a layer equally "
        "large where that costs nothing",
    )
    parser.add_argument(
        "--products",
        action="store_true",
        help="quantise products of two computed matrices (attention) too",
    )
    parser.add_argument(
        "--keep-float",
        action="append",
        default=[],
        metavar="NODE",
        help="leave this node in float; may be repeated",
    )
    parser.add_argument(
        "--max-drop",
        metavar="SHARE",
        help="give the fewest, most sensitive layers data of 16 bits, or keep them in float, with "
        "which at most this share of the decisions changes, on the samples and on others like "
        "them, e.g. 0.5%%",
    )
    parser.add_argument(
        "--no-int16",
        action="store_true",
        help="with --max-drop: no data of 16 bits, which need opset 21; layers stay in float",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON too")
    add_sample_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Writes the model and prints the report."""
    from aotc.quantize.pipeline import QuantizeOptions, quantize_model

    options = QuantizeOptions(
        activations=args.activations,
        method=args.method,
        percentile=args.percentile,
        correct_bias=not args.no_bias_correction,
        equalize=not args.no_equalize,
        products=args.products,
        keep_float=tuple(args.keep_float),
        max_drop=None if args.max_drop is None else read_share(args.max_drop, "--max-drop"),
        widen=not args.no_int16,
        rules=read_decisions(args),
    )
    samples = read_samples(args, args.calibrate, "--calibrate")
    with progress_line(args.model.name) as bar:
        show = progress_of(bar.update, bar.task_ids[0], args.model.name)
        quantized = quantize_model(args.model, samples, options, show)
    output = args.output or Path(f"{args.model.stem}.int8.onnx")
    write_file(output, quantized.model.SerializeToString(), "-o FILE")
    if args.json is not None:
        write_file(args.json, quantized.report.to_json().encode(), "--json FILE")
    _print_report(quantized.report, output)
    return 0


def _print_report(report: Report, output: Path) -> None:
    rows = [
        (
            layer.name,
            layer.kind,
            "float" if layer.in_float else f"int8 x {layer.data}",
            *closeness_cells(layer.closeness),
        )
        for layer in report.layers
    ]
    print_table(("layer", "operator", "", "SQNR dB", "cosine"), rows, right=3)
    print()
    print_outputs(report.outputs)
    print()
    print(summary(report))
    expected = report.overall.share
    if expected > report.drop:
        print(f"by how close the decisions are, {expected:.2%} will change on samples like these")
    before, after = report.weight_bytes
    print(f"weights: {format_bytes(before)} -> {format_bytes(after)}")
    print(output)
