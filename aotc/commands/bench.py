"""Times a compiled model against other engines: medians of samples interleaved in one run."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import math
from collections.abc import Callable
from typing import Any

from aotc.commands.arguments import add_model_arguments, load_arrays, read_files, read_options
from aotc.commands.console import StageProgress, print_table, progress_line
from aotc.compiled import CompiledModel
from aotc.config import VERSION
from aotc.driver import run_stages
from aotc.errors import UsageError
from aotc.reference.against import run_reference
from aotc.reference.engines import Engine, default_engine, load_engine
from aotc.reference.machine import describe_machine
from aotc.reference.measure import Measurement, measure

NAME = "bench"
HELP = "time a compiled model against other engines"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``aotc bench``."""
    add_model_arguments(parser, default_cpu="native")
    parser.add_argument(
        "--against",
        metavar="ENGINES",
        help="onnxruntime, openvino, litert or several, separated by commas (default: onnxruntime, "
        "litert for a TFLite model)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="threads of every engine (default: 1)",
    )
    parser.add_argument(
        "--input", action="append", default=[], metavar="NAME=FILE", help="an input's .npy file"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random inputs (default: 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Prints a table, or JSON with ``ms`` by engine and ``ratio_to_best``."""
    against = default_engine(args.model) if args.against is None else args.against
    names = list(dict.fromkeys(filter(None, against.split(","))))
    if not names:
        raise UsageError("no engine to compare with", remedy="use --against onnxruntime")
    if args.threads < 1:
        raise UsageError(f"{args.threads} threads cannot run", remedy="use --threads 1")
    given = load_arrays(read_files(args.input, "--input"))
    with progress_line(args.model.name) as progress:
        show = StageProgress(progress, args.model.name)
        options = dataclasses.replace(read_options(args), threads=args.threads > 1)
        model = run_stages(args.model, options, on_progress=show)
        if args.threads > 1:
            model = model.with_threads(args.threads)
        show("loading the other engines", 1, 1)
        first = run_reference(
            args.model,
            model.signature,
            seed=args.seed,
            given=given,
            engine=names[0],
            threads=args.threads,
            ports=model.ports,
        )
        assert model.ports is not None
        engines: dict[str, Engine] = {names[0]: first.engine}
        for name in names[1:]:
            engines[name] = load_engine(
                name,
                args.model,
                [port.name for port in model.ports.outputs],
                {key: value.shape for key, value in first.inputs.items()},
                args.threads,
            )
        ours = model.bind(**model.pack(first.inputs))
        functions: dict[str, Callable[[], object]] = {"aotc": ours}
        functions.update((name, engine.bind(first.inputs)) for name, engine in engines.items())
        result = measure(functions, on_round=lambda number: show(f"round {number}", 1, 1))
    report = _report(args, model, engines, result)
    if args.json:
        print(json.dumps(report, indent=1))
    else:
        _print(report, result)
    return 0


def _report(
    args: argparse.Namespace,
    model: CompiledModel,
    engines: dict[str, Engine],
    result: Measurement,
) -> dict[str, Any]:
    fastest = min(ms for name, ms in result.ms.items() if name != "aotc")
    versions = {"aotc": VERSION, "llvmlite": importlib.metadata.version("llvmlite")}
    versions.update((name, engine.version) for name, engine in engines.items())
    return {
        "model": args.model.name,
        "ms": {name: round(ms, 6) for name, ms in result.ms.items()},
        "ratio_to_best": round(fastest / result.ms["aotc"], 4),
        "threads": dict.fromkeys(["aotc", *engines], args.threads),
        "rounds": result.rounds,
        "target": f"{model.target.name}/{model.target.cpu}",
        "machine": describe_machine(),
        "versions": versions,
    }


def _print(report: dict[str, Any], result: Measurement) -> None:
    rows = []
    for name, ms in result.ms.items():
        digits = max(0, 3 - math.floor(math.log10(ms))) if ms > 0 else 3
        rows.append(
            (
                name,
                str(report["versions"][name]),
                str(report["threads"][name]),
                f"{ms:.{digits}f}",
                f"{ms / result.ms['aotc']:.2f}",
            )
        )
    print_table(("engine", "version", "threads", "median ms", "time over aotc's"), rows, right=2)
    machine = report["machine"]
    print(f"{machine['cpu']}, {machine['cores']} cores; code for {report['target']}")
