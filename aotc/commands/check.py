"""Shows everything that would stop a compile, all at once: node, operator, opset and reason.

Exit status 1 when there is something.
"""

from __future__ import annotations

import argparse
import dataclasses
import json

from aotc.commands.arguments import add_model_arguments, read_options
from aotc.commands.console import print_table
from aotc.frontend.reader import check_model
from aotc.target import resolve_target

NAME = "check"
HELP = "show everything that would stop a compile"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``aotc check``."""
    add_model_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """0 when the model would compile, else 1."""
    options = read_options(args)
    resolve_target(options.target, options.cpu)
    problems = check_model(
        args.model,
        dims=options.dims,
        input_shapes=options.input_shapes,
        outputs=options.outputs,
        name=options.name,
        bounds=options.bounds,
    )
    if args.json:
        listed = [dataclasses.asdict(problem) for problem in problems]
        report = {"model": str(args.model), "ok": not problems, "problems": listed}
        print(json.dumps(report, indent=1))
    elif problems:
        rows = [
            (
                problem.node or "-",
                problem.operator or "-",
                str(problem.opset or "-"),
                problem.reason,
                problem.remedy,
            )
            for problem in problems
        ]
        print_table(("node", "operator", "opset", "reason", "remedy"), rows)
    else:
        print(f"{args.model}: nothing stops a compile")
    return 1 if problems else 0
