"""Shows what --target and --cpu take."""

from __future__ import annotations

import argparse

from aotc.target import list_targets

NAME = "targets"
HELP = "show what --target and --cpu take"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None but the common ones."""


def run(args: argparse.Namespace) -> int:
    """Prints one paragraph per target."""
    print("\n\n".join(list_targets()))
    return 0
