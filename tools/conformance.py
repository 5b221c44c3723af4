"""The backend test suite of the onnx package goes in, run unchanged against `aotc.onnx_backend`;
what became of each case comes out.

`python -m tools.conformance [PREFIX...]` runs the CPU cases (or those whose names start so) and
lists what does not pass; with `--write` it also rewrites `LISTED`, the cases that are known not to
pass. A reason written there by hand stays as long as the case fails in the same way.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
import unittest
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

LISTED = Path(__file__).parents[1] / "tests" / "conformance" / "not_passing.txt"

CASE_SECONDS = 150
"""A case that takes longer counts as failed."""

HEADER = """\
# Cases of the ONNX backend test suite that do not pass: name, outcome, reason.
# refused: aotc says that it does not compile the model; differs: the results are not those that the
# suite expects; broken: anything else. Written by `make operators`.
"""


@dataclass(frozen=True)
class Outcome:
    """What became of one case: ``passed``, or how it failed with the reason in one line."""

    name: str
    kind: str
    reason: str = ""
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        return self.kind == "passed"


Cases = Mapping[str, unittest.TestCase]


def load_cases() -> dict[str, unittest.TestCase]:
    """Every case of the suite that runs on a CPU, by its name without the device."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test import BackendTest

        from aotc import onnx_backend

        families = BackendTest(onnx_backend, __name__).test_cases.values()
    cases: dict[str, unittest.TestCase] = {}
    for family in families:
        for method in unittest.defaultTestLoader.getTestCaseNames(family):
            name = method.removesuffix("_cpu")
            if name != method:
                assert name not in cases, name
                cases[name] = family(method)
    return cases


def run_case(name: str, case: unittest.TestCase) -> Outcome:
    """Runs one case in this process."""
    from aotc.errors import AotcError, VerifyError

    began = time.perf_counter()
    kind, reason = "passed", ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            getattr(case, f"{name}_cpu")()
    except unittest.SkipTest as skipped:
        kind, reason = "broken", f"skipped: {skipped}"
    except VerifyError as error:
        kind, reason = "broken", f"VerifyError: {error.message}"
    except AotcError as error:
        kind, reason = "refused", _without_path(error)
    except AssertionError as error:
        kind, reason = "differs", _difference(str(error))
    except Exception as error:
        kind, reason = "broken", f"{type(error).__name__}: {error}"
    line = " ".join(reason.split())[:300]
    return Outcome(name, kind, line, time.perf_counter() - began)


def _without_path(error: Exception) -> str:
    """The sentence of an AotcError; the place without the temporary file's name."""
    text = str(error).split("\n  remedy:")[0]
    _, found, rest = text.partition("model.onnx: ")
    return rest if found else text


def _difference(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    figures = ("Mismatched", "Max absolute", "Max relative", "x and y", "(shapes")
    values = ("ACTUAL", "DESIRED")
    for wanted in (figures, values):
        found = [line for line in lines if line.startswith(wanted) or "incorrect" in line]
        if found:
            return "; ".join(found)
    return text or "an assertion failed without a message"


def run_cases(
    names: Sequence[str],
    cases: Cases,
    processes: int | None = None,
    on_done: Callable[[Outcome], None] | None = None,
) -> dict[str, Outcome]:
    """The outcome of each case in ``names``, run by forked processes that take one case at a time.
    One that ends a process or takes longer than CASE_SECONDS is `broken`."""
    outcomes: dict[str, Outcome] = {}
    waiting = list(reversed(names))
    # the suite's own models write their data where ONNX_HOME says
    with tempfile.TemporaryDirectory() as home:
        os.environ["ONNX_HOME"] = home
        workers = [_Worker(cases) for _ in range(processes or os.cpu_count() or 1)]
        try:
            while waiting or any(worker.name for worker in workers):
                for worker in workers:
                    if not worker.name and waiting:
                        worker.give(waiting.pop())
                for outcome in _collect(workers):
                    outcomes[outcome.name] = outcome
                    if on_done is not None:
                        on_done(outcome)
        finally:
            for worker in workers:
                worker.stop()
    return outcomes


def _collect(workers: Sequence[_Worker]) -> list[Outcome]:
    """What is finished after waiting a little."""
    busy = [worker for worker in workers if worker.name]
    ready = wait([worker.connection for worker in busy], timeout=1.0)
    found = []
    for worker in busy:
        if worker.connection in ready:
            found.append(worker.take())
        elif time.monotonic() - worker.began > CASE_SECONDS:
            found.append(worker.replace(f"takes more than {CASE_SECONDS} seconds"))
    return found


class _Worker:
    """A forked process that runs the cases it is given; ``name`` is the one under way."""

    def __init__(self, cases: Cases) -> None:
        self._cases = cases
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self.name = ""
        self.began = 0.0
        self.connection, other = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(other, self._cases))
        self.process.start()
        other.close()

    def give(self, name: str) -> None:
        self.name, self.began = name, time.monotonic()
        self.connection.send(name)

    def take(self) -> Outcome:
        try:
            outcome: Outcome = self.connection.recv()
        except EOFError:
            self.process.join()
            return self.replace(f"ends the process with status {self.process.exitcode}")
        self.name = ""
        return outcome

    def replace(self, reason: str) -> Outcome:
        """The outcome of the case under way, and a new process for the next one."""
        outcome = Outcome(self.name, "broken", reason, time.monotonic() - self.began)
        self.stop()
        self._start()
        return outcome

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def _serve(connection: Connection, cases: Cases) -> None:
    with open(os.devnull, "w") as quiet:
        sys.stdout = quiet
        while True:
            try:
                name = connection.recv()
            except EOFError:
                return
            connection.send(run_case(name, cases[name]))


def read_listed(path: Path = LISTED) -> dict[str, Outcome]:
    """The cases that are known not to pass."""
    listed = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            name, kind, reason = line.split(maxsplit=2)
            listed[name] = Outcome(name, kind, reason)
    return listed


def write_listed(outcomes: Iterable[Outcome], path: Path = LISTED) -> None:
    """Lists those of ``outcomes`` that did not pass. A refusal gives its own reason; how a result
    differs may be explained by hand, and such a reason stays."""
    known = read_listed(path) if path.exists() else {}
    lines = []
    for outcome in sorted(outcomes, key=lambda outcome: outcome.name):
        if outcome.passed:
            continue
        before = known.get(outcome.name)
        keeps = before is not None and before.kind == outcome.kind != "refused"
        reason = before.reason if before is not None and keeps else outcome.reason
        lines.append(f"{outcome.name} {outcome.kind} {reason}\n")
    path.write_text(HEADER + "".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[1])
    parser.add_argument("prefixes", nargs="*", help="only cases whose names start so")
    parser.add_argument("--write", action="store_true", help=f"rewrite {LISTED.name}")
    parser.add_argument("--processes", type=int, help="default: one for each processor")
    options = parser.parse_args()
    began = time.monotonic()
    cases = load_cases()
    prefixes = tuple(f"test_{prefix.removeprefix('test_')}" for prefix in options.prefixes)
    names = [name for name in cases if not prefixes or name.startswith(prefixes)]

    def show(outcome: Outcome) -> None:
        if not outcome.passed:
            print(f"{outcome.name} {outcome.kind} {outcome.reason}", flush=True)

    outcomes = run_cases(names, cases, options.processes, show)
    passed = sum(outcome.passed for outcome in outcomes.values())
    seconds = time.monotonic() - began
    slowest = sorted(outcomes.values(), key=lambda outcome: -outcome.seconds)[:5]
    print(f"{passed} of {len(names)} cases pass; {seconds:.0f} s, the slowest:")
    for outcome in slowest:
        print(f"  {outcome.name} {outcome.seconds:.1f} s")
    if options.write:
        if prefixes:
            parser.error("--write needs all cases")
        write_listed(outcomes.values())


if __name__ == "__main__":
    main()
