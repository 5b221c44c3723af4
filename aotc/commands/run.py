"""Compiles a model and runs it once on arrays from .npy files."""

from __future__ import annotations

import argparse
import io

import numpy as np

from aotc.commands.arguments import add_model_arguments, load_arrays, read_files, read_options
from aotc.commands.console import StageProgress, print_table, progress_line
from aotc.commands.files import write_file
from aotc.driver import run_stages
from aotc.errors import UsageError
from aotc.graph.types import DType

NAME = "run"
HELP = "run a model on numpy files"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``aotc run``."""
    add_model_arguments(parser, default_cpu="native")
    parser.add_argument(
        "--input", action="append", default=[], metavar="NAME=FILE", help="an input's .npy file"
    )
    parser.add_argument(
        "--output",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="where to write an output; without any, their statistics are printed",
    )


def run(args: argparse.Namespace) -> int:
    """Runs, then writes the asked-for outputs."""
    inputs = load_arrays(read_files(args.input, "--input"))
    destinations = read_files(args.output, "--output")
    with progress_line(args.model.name) as progress:
        model = run_stages(
            args.model, read_options(args), on_progress=StageProgress(progress, args.model.name)
        )
    names = [param.name for param in model.signature.outputs]
    for name in destinations:
        if name not in names:
            raise UsageError(
                f"there is no output '{name}'", remedy=f"the outputs are: {', '.join(names)}"
            )
    results = model.run_dict(inputs)
    for name, path in destinations.items():
        write_file(path, _npy(results[name]), "--output NAME=FILE")
    if not destinations:
        rows = [
            (name, f"{array.dtype}{list(array.shape)}", *_statistics(array))
            for name, array in results.items()
        ]
        print_table(("output", "type", "min", "max", "mean"), rows, right=2)
    return 0


def _statistics(array: np.ndarray) -> tuple[str, str, str]:
    if not array.size:
        return "", "", ""
    if DType.of(array).is_narrow:
        array = array.astype(np.float32)
    return f"{array.min():.6g}", f"{array.max():.6g}", f"{array.mean(dtype=np.float64):.6g}"


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
