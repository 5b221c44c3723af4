"""Re-derives what aotc promises of an object from the object file alone."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from aotc.audit.report import audit_object
from aotc.commands.console import print_table
from aotc.errors import UsageError

NAME = "audit"
HELP = "check the promises of a compiled object from its bytes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``aotc audit``."""
    parser.add_argument("object", type=Path, help="a .o file that `aotc compile` wrote")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """0 when every promise holds, else 1."""
    try:
        data = args.object.read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot read the object: {error.strerror}",
            where=str(args.object),
            remedy="check the path",
        ) from None
    audit = audit_object(data)
    if args.json:
        promises = [dataclasses.asdict(promise) for promise in audit.promises]
        print(json.dumps({"ok": audit.holds, "promises": promises, **audit.figures}, indent=1))
    else:
        rows = [("ok" if p.holds else "BROKEN", p.claim, p.found) for p in audit.promises]
        print_table(("", "promise", "found"), rows)
        figures = [(key.replace("_", " "), _shown(value)) for key, value in audit.figures.items()]
        print_table(("", ""), figures)
    return 0 if audit.holds else 1


def _shown(value: object) -> str:
    if not isinstance(value, list):
        return str(value)
    texts = [" ".join(map(str, x)) if isinstance(x, list) else str(x) for x in value]
    return ("\n" if any("," in text for text in texts) else ", ").join(texts)
