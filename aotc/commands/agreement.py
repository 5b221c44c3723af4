"""Two models and samples in, a table of how far they agree out: `aotc verify --against`, and the
arguments about samples and decisions that it shares with `aotc quantize`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from aotc.commands.arguments import read_pairs
from aotc.commands.console import print_table, progress_line
from aotc.errors import UsageError
from aotc.frontend.onnx_reader import parse_model
from aotc.quantize.decisions import Rule, read_rules
from aotc.quantize.errors import Closeness
from aotc.quantize.images import LAYOUTS, ImageOptions
from aotc.quantize.report import OutputReport, Report
from aotc.quantize.samples import Samples, find_samples

DEFAULT_DROP = "0.5%"


def add_sample_arguments(parser: argparse.ArgumentParser) -> None:
    """How to read samples and what their outputs decide."""
    parser.add_argument(
        "--samples", type=int, metavar="N", help="use the first N samples only (default: all)"
    )
    parser.add_argument(
        "--decide",
        action="append",
        default=[],
        metavar="OUTPUT=RULE",
        help="what counts as a decision: argmax[:AXIS], threshold[:NUMBER], equal or none "
        "(default: the largest along the last axis, axis 1 of maps; more than 0.5 for single "
        "numbers); may be repeated",
    )
    images = parser.add_argument_group("samples that are images (needs Pillow)")
    images.add_argument(
        "--image-size", metavar="H,W", help="resize to this where the model leaves it open"
    )
    images.add_argument("--image-layout", choices=LAYOUTS, help="if the shape does not tell")
    images.add_argument(
        "--image-scale", type=float, default=255.0, help="what pixels are divided by (default: 255)"
    )
    images.add_argument(
        "--image-mean", default="0", metavar="M,M,M", help="then subtracted (default: 0)"
    )
    images.add_argument(
        "--image-std", default="1", metavar="S,S,S", help="then divided by (default: 1)"
    )
    images.add_argument("--image-bgr", action="store_true", help="blue first instead of red")


def read_samples(args: argparse.Namespace, folder: Path, flag: str) -> Samples:
    """The samples in ``folder``, which ``flag`` gave, for the model of ``args``."""
    if args.samples is not None and args.samples < 1:
        raise UsageError(f"--samples {args.samples} leaves none", remedy="give 1 or more")
    images = ImageOptions(
        size=None if args.image_size is None else _size(args.image_size),
        layout=args.image_layout,
        scale=args.image_scale,
        mean=_numbers(args.image_mean, "--image-mean"),
        std=_numbers(args.image_std, "--image-std"),
        bgr=args.image_bgr,
    )
    if not folder.is_dir():
        raise UsageError(
            "this is not a folder",
            where=str(folder),
            remedy=f"give a folder of samples with {flag}",
        )
    return find_samples(folder, parse_model(args.model), images, args.samples)


def read_decisions(args: argparse.Namespace) -> dict[str, Rule]:
    """The rules of --decide."""
    return read_rules(dict(read_pairs(args.decide, "--decide")))


def read_share(text: str, flag: str) -> float:
    """A share as in 0.5% or 0.005; 0 to 1."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise UsageError(
            f"'{text}' is not a share", where=flag, remedy=f"write {flag} 0.5% or {flag} 0.005"
        )
    return value


def run_against(args: argparse.Namespace) -> int:
    """0 when at most a share --max-drop of the decisions differs, else 1."""
    from aotc.quantize.agreement import compare
    from aotc.quantize.runner import Runner

    limit = read_share(args.max_drop, "--max-drop")
    if args.data is None:
        raise UsageError(
            "--against needs samples to compare the models on", remedy="give --data FOLDER"
        )
    if args.stages or args.input:
        raise UsageError(
            "--stages and --input do not go with --against", remedy="leave them out"
        )
    samples = read_samples(args, args.data, "--data")
    names = [output.name for output in parse_model(args.model).graph.output]
    with progress_line(args.model.name) as bar:
        outputs = compare(
            Runner(args.model),
            Runner(args.against),
            samples,
            read_decisions(args),
            names,
            progress_of(bar.update, bar.task_ids[0], args.model.name),
        )
    print_outputs(outputs)
    report = Report((), outputs, len(samples), (0, 0))
    agrees = report.drop <= limit
    print(
        f"{'agrees' if agrees else 'DIFFERS'}: {summary(report)}; the limit is {limit:.2%}"
    )
    return 0 if agrees else 1


def progress_of(
    update: Callable[..., None], task: int, label: str
) -> Callable[[str, int, int], None]:
    """Feeds the quantiser's progress calls to a progress line."""

    def show(what: str, done: int, total: int) -> None:
        count = f" {done}" if done else ""
        update(task, description=f"{label}: {what}{count}", completed=done, total=total or None)

    return show


def print_outputs(outputs: Sequence[OutputReport]) -> None:
    """One line for each output."""
    rows = [
        (
            output.name,
            output.rule,
            str(output.count.total),
            str(output.count.changed),
            *closeness_cells(output.closeness),
            f"{output.closeness.largest:.2e}",
        )
        for output in outputs
    ]
    headings = ("output", "rule", "decisions", "changed", "SQNR dB", "cosine", "largest error")
    print_table(headings, rows, right=2)


def closeness_cells(closeness: Closeness) -> tuple[str, str]:
    """The two measures as text."""
    sqnr = "equal" if closeness.sqnr == math.inf else f"{closeness.sqnr:.1f}"
    return sqnr, f"{closeness.cosine:.5f}"


def summary(report: Report) -> str:
    """The decisions in one sentence."""
    count = report.overall
    return (
        f"{count.changed} of {count.total} decisions changed ({report.drop:.2%}) on "
        f"{report.samples} samples"
    )


def _size(text: str) -> tuple[int, int]:
    sizes = [int(part) for part in text.split(",") if part.isascii() and part.isdigit()]
    if len(sizes) != 2 or min(sizes) < 1 or text.count(",") != 1:
        raise UsageError(
            f"'{text}' is not a height and a width", remedy="write --image-size 224,224"
        )
    return sizes[0], sizes[1]


def _numbers(text: str, flag: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = (math.nan,)
    if not all(math.isfinite(value) for value in values):
        raise UsageError(
            f"'{text}' is not a list of numbers", where=flag, remedy=f"write {flag} 0.5,0.5,0.5"
        )
    return values
