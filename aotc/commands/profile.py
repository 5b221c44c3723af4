"""Times every kernel of a model on this machine, against its measured peak and bandwidth."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from aotc.codegen.signature import describe_signature
from aotc.commands.arguments import add_model_arguments, load_arrays, read_files, read_options
from aotc.commands.console import StageProgress, print_table, progress_line
from aotc.commands.files import write_file
from aotc.compiled import fit_input
from aotc.debug.profile import Profile, profile_program
from aotc.debug.roofline import roofline_svg
from aotc.driver import plan_stages
from aotc.errors import UsageError
from aotc.reference.inputs import make_inputs
from aotc.reference.machine import describe_machine

NAME = "profile"
HELP = "time every kernel of a model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``aotc profile``."""
    add_model_arguments(parser, default_cpu="native")
    parser.add_argument(
        "--input", action="append", default=[], metavar="NAME=FILE", help="an input's .npy file"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random inputs (default: 0)")
    parser.add_argument("--top", type=int, metavar="N", help="show only the N slowest kernels")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="also draw a roofline")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Prints a table or JSON, slowest kernel first; the totals are always of all kernels."""
    if args.top is not None and args.top < 1:
        raise UsageError(f"--top {args.top} shows nothing", remedy="use --top 10")
    if args.svg is not None and args.svg.is_dir():
        raise UsageError(
            f"--svg {args.svg} is a folder", remedy="give the name of a file: --svg roofline.svg"
        )
    given = load_arrays(read_files(args.input, "--input"))
    with progress_line(args.model.name) as progress:
        show = StageProgress(progress, args.model.name)
        build = plan_stages(args.model, read_options(args), on_progress=show)
        assert build.program is not None and build.plan is not None
        params = describe_signature(build.program, False, False).inputs
        arrays = make_inputs(params, args.seed, given)
        inputs = {param.name: fit_input(param, arrays[param.name]) for param in params}
        show("timing", 1, 1)
        profile = profile_program(build.program, build.plan, build.target, inputs)
    report = _report(args, profile, str(build.target))
    if args.svg is not None:
        write_file(args.svg, roofline_svg(profile, args.model.name).encode(), "--svg")
    if args.json:
        print(json.dumps(report, indent=1))
    else:
        _print(report)
    return 0


def _report(args: argparse.Namespace, profile: Profile, target: str) -> dict[str, Any]:
    total = sum(kernel.seconds for kernel in profile.kernels)

    def row(seconds: float, flop: int, touched: int) -> dict[str, Any]:
        return {
            "us": round(seconds * 1e6, 3),
            "share": round(seconds / total, 4) if total else 0.0,
            "flop": flop,
            "bytes": touched,
            "gflops": round(flop / seconds / 1e9, 2) if seconds else 0.0,
            "gbs": round(touched / seconds / 1e9, 2) if seconds else 0.0,
            "share_of_peak": round(flop / seconds / profile.peak_flops, 4) if seconds else 0.0,
        }

    everything = profile.kernels
    return {
        "model": args.model.name,
        "target": target,
        "machine": describe_machine(),
        "rounds": profile.rounds,
        "peak_gflops": round(profile.peak_flops / 1e9, 1),
        "bandwidth_gbs": round(profile.bandwidth / 1e9, 1),
        "total": {
            "kernels": len(everything),
            "calls": sum(k.calls for k in everything),
            **row(total, sum(k.flop for k in everything), sum(k.bytes_touched for k in everything)),
        },
        "kernels": [
            {"name": k.name, "calls": k.calls, "recipe": k.recipe}
            | row(k.seconds, k.flop, k.bytes_touched)
            for k in everything[: args.top]
        ],
    }


def _print(report: dict[str, Any]) -> None:
    rows = []
    for found in (*report["kernels"], {"name": "total", **report["total"]}):
        rows.append(
            (
                found["name"],
                str(found["calls"]),
                f"{found['us']:.2f}",
                f"{found['share']:.1%}",
                f"{found['flop'] / 1e6:.3f}",
                f"{found['bytes'] / 1e3:.1f}",
                f"{found['gflops']:.1f}",
                f"{found['share_of_peak']:.0%}",
                f"{found['gbs']:.1f}",
            )
        )
    headings = ("kernel", "calls", "us", "share", "MFLOP", "kB", "GFLOP/s", "of peak", "GB/s")
    print_table(headings, rows, right=1)
    print(
        f"one core reaches {report['peak_gflops']} GFLOP/s and reads {report['bandwidth_gbs']} GB/s"
        f" from memory; least of {report['rounds']} rounds; code for {report['target']}"
    )
