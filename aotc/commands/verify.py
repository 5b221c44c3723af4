"""Compiles a model, runs it on random inputs and compares its outputs with ONNX Runtime's, those of
a TFLite model with LiteRT's, where quantised numbers may be one step apart.

With --weights-dtype the reference has the weights as they are in the model, so the errors shown are
what rounding them costs.

Exit status 1 when an output is further away than the tolerance, unless an evaluation in double
precision shows that the other engine is the one that is off. With --stages, also evaluates the
graph after every pass and the loops, and names the first stage whose result differs.

With --against and --data, compiles two models for this machine and compares their decisions on the
samples: exit status 1 when more of them differ than --max-drop allows.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np

from aotc.commands.agreement import DEFAULT_DROP, add_sample_arguments, run_against
from aotc.commands.arguments import (
    add_model_arguments,
    add_weights_argument,
    load_arrays,
    read_files,
    read_options,
)
from aotc.commands.console import StageProgress, print_table, progress_line
from aotc.driver import run_stages
from aotc.errors import UsageError
from aotc.frontend.onnx_reader import Imported
from aotc.frontend.ports import TensorPort, pack, unpack
from aotc.frontend.reader import import_model
from aotc.reference.against import Reference, run_reference
from aotc.reference.arbiter import evaluate_double
from aotc.reference.compare import Difference, compare_outputs, tensors_of
from aotc.reference.engines import Arrays, default_engine, steps_apart
from aotc.reference.stages import StageResult, verify_stages

#: The largest error over an output's largest magnitude.
TOLERANCE = 1e-4
#: The same where weights were rounded: what usual networks stay well below.
ROUNDED_TOLERANCE: Mapping[str, float] = MappingProxyType(
    {"f16": 0.005, "bf16": 0.03, "i8": 0.1, "i4": 0.5}
)

NAME = "verify"
HELP = "compare a compiled model with ONNX Runtime, or with LiteRT"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``aotc verify``."""
    add_model_arguments(parser)
    add_weights_argument(parser)
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="a .npy file for an input, instead of random values; may be repeated",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random inputs (default: 0)")
    parser.add_argument(
        "--tolerance",
        type=float,
        help=f"largest error over the output's largest magnitude (default: {TOLERANCE:g}; with "
        "--weights-dtype "
        + ", ".join(f"{dtype} {share:g}" for dtype, share in ROUNDED_TOLERANCE.items())
        + ")",
    )
    parser.add_argument("--stages", action="store_true", help="also check every stage on the way")
    parser.add_argument(
        "--against", type=Path, metavar="MODEL", help="the float model that a quantised one is of"
    )
    parser.add_argument(
        "--data", type=Path, metavar="FOLDER", help="samples for --against, as in `aotc quantize`"
    )
    parser.add_argument(
        "--max-drop",
        default=DEFAULT_DROP,
        metavar="SHARE",
        help=f"of the decisions, with --against (default: {DEFAULT_DROP}%)",
    )
    add_sample_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """0 when every output agrees, else 1."""
    if args.against is not None:
        return run_against(args)
    if args.tolerance is None:
        args.tolerance = ROUNDED_TOLERANCE.get(args.weights_dtype, TOLERANCE)
    if not args.tolerance >= 0:
        raise UsageError(f"a tolerance of {args.tolerance} is not a distance", remedy="give 1e-4")
    options = read_options(args)
    given = load_arrays(read_files(args.input, "--input"))
    with progress_line(args.model.name) as progress:
        show = StageProgress(progress, args.model.name)
        model = run_stages(args.model, options, on_progress=show)
        show(default_engine(args.model), 1, 1)
        reference = run_reference(
            args.model, model.signature, seed=args.seed, given=given, ports=model.ports
        )
        found = model.run_values(reference.inputs)
    differences = compare_outputs(
        found, reference.outputs, args.tolerance, steps_apart(args.model)
    )
    print_table(
        ("output", "type", "error", "tolerance", ""),
        [_row(difference) for difference in differences],
        right=2,
    )
    passed = all(difference.passed for difference in differences)
    # in double precision the weights would not be rounded
    if not passed and args.weights_dtype is None:
        passed = _arbitrate(args, reference, found)
    if args.stages:
        assert model.ports is not None
        if not all(isinstance(p, TensorPort) for p in (*model.ports.inputs, *model.ports.outputs)):
            raise UsageError(
                "the stages of a model with sizes of run time are not compared",
                remedy="fix the sizes, or leave --stages out",
            )
        passed = _run_stages(args, reference) and passed
    print(
        f"{'agrees' if passed else 'DIFFERS'}: aotc on {model.target} "
        f"and {default_engine(args.model)} {reference.engine.version}"
    )
    return 0 if passed else 1


def _arbitrate(args: argparse.Namespace, reference: Reference, found: Arrays) -> bool:
    """Compares both engines with the model evaluated in double precision; whether aotc is
    within the tolerance of that."""
    options = read_options(args)
    imported = import_model(
        args.model,
        dims=options.dims,
        input_shapes=options.input_shapes,
        outputs=options.outputs,
        bounds=options.bounds,
    )
    exact = tensors_of(_evaluate(imported, reference.inputs))
    known = tensors_of(found)
    exact = {name: x.astype(known[name].dtype) for name, x in exact.items() if name in known}
    ours = compare_outputs(found, exact, args.tolerance)
    theirs = compare_outputs(reference.outputs, exact, args.tolerance)
    print("against the same model in double precision:")
    print_table(
        ("output", "type", "aotc", default_engine(args.model), ""),
        [
            (a.name, a.type, f"{a.error:.2e}", f"{b.error:.2e}", _verdict(a.passed))
            for a, b in zip(ours, theirs, strict=True)
        ],
        right=2,
    )
    passed = all(difference.passed for difference in ours)
    if passed:
        print(f"{default_engine(args.model)} {reference.engine.version} is the one that is off")
    return passed


def _row(difference: Difference) -> tuple[str, str, str, str, str]:
    return (
        difference.name,
        difference.type,
        f"{difference.error:.2e}",
        f"{difference.tolerance:.0e}" if difference.tolerance else "equal",
        _verdict(difference.passed),
    )


def _verdict(passed: bool) -> str:
    return "ok" if passed else "DIFFERS"


def _evaluate(imported: Imported, inputs: Arrays) -> Arrays:
    """The model on ``inputs`` of their actual size, in double precision."""
    arrays: dict[str, np.ndarray] = {}
    for port in imported.ports.inputs:
        arrays.update(pack(port, inputs[port.name]))
    results = evaluate_double(imported.graph, arrays)
    return {port.name: unpack(port, results) for port in imported.ports.outputs}


def _run_stages(args: argparse.Namespace, reference: Reference) -> bool:
    def show(result: StageResult) -> None:
        worst = result.worst
        if worst is None:
            verdict = result.note
        else:
            verdict = f"{_verdict(result.passed)}  error {worst.error:.2e} in {worst.name}"
        print(f"{result.stage:<16} {verdict}", flush=True)

    results = verify_stages(
        args.model,
        read_options(args),
        reference.inputs,
        reference.outputs,
        args.tolerance,
        on_result=show,
    )
    failed = [result.stage for result in results if not result.passed]
    print(f"first stage that differs: {failed[0]}" if failed else "no stage differs")
    return not failed
