"""A checkout of the array API standard's own test suite goes in, run against `aotc.numpy`; what
became of each test, and docs/array_api.md, come out.

`python -m tools.array_api CHECKOUT` runs it (and clones it there if there is none), with
``--engine machine`` on compiled code; ``--write`` runs it on both engines and rewrites the page.
`LISTED` has the tests that are known not to pass. The suite needs the extra `array-api`.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

ROOT = Path(__file__).parents[1]
LISTED = ROOT / "tests" / "conformance" / "array_api_skips.txt"
PAGE = ROOT / "docs" / "array_api.md"
SUITE = "https://github.com/data-apis/array-api-tests"
ENGINES: Mapping[str, int] = MappingProxyType({"reference": 1, "machine": 5})
"""What may evaluate, and by how much it has fewer examples: machine code is compiled for each."""

BEGIN = "<!-- results: written by `python -m tools.array_api CHECKOUT --write` -->\n"

_NEEDS_COMPLEX = "key=lambda x: x[1]\n)[0]\n\n\n# float64"
_ACCEPTS_NONE = "key=lambda x: x[1], default=(xp.float64,)\n)[0]\n\n\n# float64"
"""The suite asks for the widest of the complex types, also where there is none."""


@dataclass(frozen=True)
class Outcome:
    """What became of one test: passed, failed or skipped (by the suite itself)."""

    name: str
    kind: str


@dataclass(frozen=True)
class Pattern:
    """A line of `LISTED`."""

    text: str
    reason: str

    def matches(self, name: str) -> bool:
        parts = map(re.escape, self.text.split("*"))
        return re.fullmatch(".*".join(parts), name) is not None


@dataclass(frozen=True)
class Verdict:
    """Outcomes beside the list."""

    outcomes: tuple[Outcome, ...]
    listed: tuple[Outcome, ...]
    unexpected: tuple[str, ...]
    stale: tuple[str, ...]


def read_listed() -> list[Pattern]:
    """The tests that are known not to pass."""
    lines = LISTED.read_text().splitlines()
    pairs = (line.split("  ", 1) for line in lines if line and not line.startswith("#"))
    return [Pattern(text, reason.strip()) for text, reason in pairs]


def prepared(checkout: Path, folder: Path) -> None:
    """The suite in ``folder``, as it runs for a library without complex types."""
    for name in ("array_api_tests", "array-api/src", "array-api/spec"):
        shutil.copytree(checkout / name, folder / name)
    for name in ("conftest.py", "pytest.ini", "reporting.py"):
        shutil.copy(checkout / name, folder / name)
    helpers = folder / "array_api_tests" / "dtype_helpers.py"
    helpers.write_text(helpers.read_text().replace(_NEEDS_COMPLEX, _ACCEPTS_NONE))


def _environment(engine: str) -> dict[str, str]:
    # the block must outlive the line, or it ends at once
    script = (
        "import aotc.numpy as xp; "
        f'block = xp.engine("{engine}"); block.__enter__()'
    )
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "ARRAY_API_TESTS_MODULE": f"exec('{script}')",
        "ARRAY_API_TESTS_SKIP_DTYPES": "complex64,complex128",
    }


def run_suite(
    checkout: Path, engine: str, max_examples: int, only: Sequence[str] = ()
) -> list[Outcome]:
    """Runs the suite, or the modules ``only``, in a process of its own; RuntimeError with what
    pytest says when it does not get to the tests."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepared(checkout, folder)
        report = folder / "report.xml"
        chosen = [f"array_api_tests/{name}" for name in only] or ["array_api_tests"]
        options = ["--disable-deadline", f"--max-examples={max_examples}", f"--junitxml={report}"]
        quiet = ["-q", "--tb=no", "-p", "no:cacheprovider", "-p", "no:warnings", "-p", "no:xdist"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *quiet, *options, *chosen],
            cwd=folder, env=_environment(engine), capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode not in (0, 1) or not report.exists():
            raise RuntimeError(done.stdout[-3000:] + done.stderr[-3000:])
        return list(_read(report))


def _read(report: Path) -> Iterator[Outcome]:
    for case in ElementTree.parse(report).iter("testcase"):
        _, module, *classes = case.attrib["classname"].split(".")
        name = "::".join((f"{module}.py", *classes, case.attrib["name"]))
        found = {child.tag for child in case}
        failed = found & {"failure", "error"}
        yield Outcome(name, "failed" if failed else "skipped" if "skipped" in found else "passed")


def judged(outcomes: Sequence[Outcome], patterns: Sequence[Pattern]) -> Verdict:
    """Which failures are listed, which are not, and which patterns stand for no failure."""
    failed = [each for each in outcomes if each.kind == "failed"]
    listed = [
        each for each in failed if any(pattern.matches(each.name) for pattern in patterns)
    ]
    names = {each.name for each in listed}
    stale = [
        pattern.text for pattern in patterns if not any(pattern.matches(name) for name in names)
    ]
    unexpected = [each.name for each in failed if each.name not in names]
    return Verdict(tuple(outcomes), tuple(listed), tuple(unexpected), tuple(stale))


def results(verdicts: dict[str, Verdict], max_examples: int) -> str:
    """The part of the page that a run writes."""
    first = verdicts["reference"]
    modules = sorted({each.name.split("::")[0] for each in first.outcomes})
    lines = [
        BEGIN,
        f"With {max_examples} examples for each property in the evaluator and"
        f" {max_examples // ENGINES['machine']} as machine code:\n",
        "| tests | pass in the evaluator | pass as machine code | listed below | skipped |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    totals: Counter[str] = Counter()
    for module in modules:
        row: Counter[str] = Counter()
        for engine, verdict in verdicts.items():
            own = [each for each in verdict.outcomes if each.name.split("::")[0] == module]
            row[engine] = sum(each.kind == "passed" for each in own)
        row["listed"] = sum(each.name.split("::")[0] == module for each in first.listed)
        row["skipped"] = sum(
            each.kind == "skipped" for each in first.outcomes if each.name.split("::")[0] == module
        )
        totals += row
        lines.append(_row(module.removeprefix("test_").removesuffix(".py"), row))
    lines.append(_row("all", totals))
    lines.append("\nThe suite skips tests of its own: for want of complex types, and flaky ones.\n")
    lines += ["| listed | tests | reason |", "| --- | ---: | --- |"]
    for pattern in read_listed():
        count = sum(pattern.matches(each.name) for each in first.listed)
        lines.append(f"| `{pattern.text}` | {count} | {pattern.reason} |")
    return "\n".join(lines) + "\n"


def _row(name: str, row: Counter[str]) -> str:
    cells = (row[key] for key in (*ENGINES, "listed", "skipped"))
    return f"| {name} | {' | '.join(map(str, cells))} |"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path, help="folder of the suite; cloned if it is missing")
    parser.add_argument("--engine", choices=ENGINES, default="reference")
    parser.add_argument(
        "--max-examples", type=int, default=50, help="of each property; machine code gets a fifth"
    )
    parser.add_argument("--only", nargs="*", default=(), help="modules such as test_fft.py")
    parser.add_argument("--write", action="store_true", help="run both engines, write the page")
    given = parser.parse_args(arguments)
    if not given.checkout.exists():
        subprocess.run(
            ["git", "clone", "--recurse-submodules", "--depth=1", SUITE, str(given.checkout)],
            check=True,
        )
    verdicts = {}
    for engine in tuple(ENGINES) if given.write else (given.engine,):
        examples = max(given.max_examples // ENGINES[engine], 1)
        outcomes = run_suite(given.checkout, engine, examples, given.only)
        verdict = verdicts[engine] = judged(outcomes, read_listed())
        kinds = Counter(each.kind for each in outcomes)
        print(f"{engine}: {dict(kinds)}, {len(verdict.listed)} of the failures are listed")
        for name in verdict.unexpected:
            print(f"  fails: {name}")
        for text in verdict.stale if not given.only else ():
            print(f"  listed, but nothing fails: {text}")
    wrong = any(each.unexpected or (each.stale and not given.only) for each in verdicts.values())
    if given.write and not wrong:
        before = PAGE.read_text().split(BEGIN)[0]
        PAGE.write_text(before + results(verdicts, given.max_examples))
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
