"""Writes bindings in other languages for a compiled model, from its manifest."""

from __future__ import annotations

import argparse
from pathlib import Path

from aotc.bindings.registry import BINDINGS, make_bindings
from aotc.commands.files import write_file

NAME = "bind"
HELP = "write C++, Rust, Go, CMake or pkg-config bindings for a compiled model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``aotc bind``."""
    names = ",".join(binding.NAME for binding in BINDINGS)
    parser.add_argument("manifest", type=Path, help="a .json file that `aotc compile` wrote")
    parser.add_argument(
        "--lang",
        action="append",
        default=[],
        metavar="LANGUAGE",
        help=f"one or several of {names}, separated by commas (default: all)",
    )
    listed = "\n".join(f"  {binding.NAME:<10} {binding.HELP}" for binding in BINDINGS)
    parser.epilog = f"Written beside the object:\n{listed}"


def run(args: argparse.Namespace) -> int:
    """Writes the files and prints their paths."""
    names = [name for flag in args.lang for name in flag.split(",") if name]
    languages = names or [binding.NAME for binding in BINDINGS]
    for path, data in make_bindings(args.manifest, dict.fromkeys(languages)).items():
        write_file(path, data, "the place of the manifest")
        print(path)
    return 0
