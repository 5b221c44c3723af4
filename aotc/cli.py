"""Command-line arguments in, exit status out: the subcommands, and what happens when one fails.

0 success; 1 a comparison or check found something; 2 a wrong argument, model or machine, in one
message without a traceback; 70 a defect in aotc itself.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from aotc.commands import (
    audit,
    bench,
    bind,
    check,
    compile,
    profile,
    quantize,
    run,
    targets,
    verify,
)
from aotc.config import VERSION
from aotc.errors import AotcError, ModelError, UnsupportedError, UsageError, VerifyError

COMMANDS: tuple[ModuleType, ...] = (
    compile,
    verify,
    quantize,
    bench,
    profile,
    run,
    check,
    audit,
    bind,
    targets,
)

EXIT_USAGE = 2
EXIT_DEFECT = 70  # EX_SOFTWARE of sysexits.h
EXIT_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line and returns the exit status; SystemExit only from argparse itself."""
    args = _build_parser().parse_args(argv)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
        return status
    except VerifyError as error:
        return _report_defect(error, args.debug)
    except AotcError as error:
        return _fail(_in_file(error, args), args.debug)
    except BrokenPipeError:
        # The reader of our output went away; the flush at exit must not fail on it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_USAGE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except MemoryError:
        return _fail("out of memory\n  remedy: give smaller shapes, or more memory", args.debug)
    except Exception as error:
        return _report_defect(error, args.debug)


def _build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aotc",
        description="Compiles an ONNX model to one object file and one C header.",
        allow_abbrev=False,
        epilog="`aotc COMMAND --help` shows the arguments of a command.",
    )
    parser.add_argument("--version", action="version", version=f"aotc {VERSION}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        subparser = commands.add_parser(
            command.NAME,
            help=command.HELP,
            allow_abbrev=False,
            description=command.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.add_arguments(subparser)
        subparser.add_argument(
            "--debug", action="store_true", help="show the traceback when something fails"
        )
        subparser.set_defaults(run=command.run)
    return parser


def _in_file(error: AotcError, args: argparse.Namespace) -> str:
    """The message with a remedy, and the model file in front unless it says which file it is about.
    """
    if not error.remedy:
        error.remedy = _usual_remedy(error)
    text, model = str(error), getattr(args, "model", None)
    elsewhere = isinstance(error, UsageError) and error.where
    return text if model is None or elsewhere or str(model) in text else f"{model}: {text}"


def _usual_remedy(error: AotcError) -> str:
    """What helps with errors of this class when the error itself knows nothing better."""
    if isinstance(error, UnsupportedError):
        return "choose other outputs with --outputs; `aotc check` lists every such place"
    if isinstance(error, ModelError):
        return "export the model again; `aotc check` lists everything that is wrong with it"
    return "`aotc COMMAND --help` shows the arguments"


def _fail(message: str, debug: bool) -> int:
    if debug:
        raise
    print(f"aotc: {message}", file=sys.stderr)
    return EXIT_USAGE


def _report_defect(error: Exception, debug: bool) -> int:
    if debug:
        raise error
    summary = str(error).splitlines()[0] if str(error) else "no message"
    print(
        f"aotc: internal error ({type(error).__name__}): {summary}\n"
        "  remedy: this is a defect in aotc; please report it with the model and the output of the "
        "same command with --debug",
        file=sys.stderr,
    )
    return EXIT_DEFECT


if __name__ == "__main__":
    sys.exit(main())
