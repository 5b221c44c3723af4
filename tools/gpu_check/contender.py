"""One who is timed: a process of its own that answers requests, so that what fails or hangs on the
device ends that process alone. Requests and answers are lines of JSON.

The process is a Worker on its standard input and output (`serve`). It needs nothing of aotc unless
its Worker does, so another Python may run it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).resolve().parents[2]
#: Seconds that one measurement takes at least, so that host and events do not count.
MEASURED_SECONDS = 0.02
MOST_REPEATS = 400


class Failed(Exception):
    """A contender that cannot do what it is asked, with the reason."""


class Late(Failed):
    """A contender that gives no answer in the time it has."""


class Worker(Protocol):
    """What a contender can do. Any exception is an answer too: its text."""

    def about(self) -> dict[str, Any]:
        """``name`` with the version, and what else there is to say."""

    def prepare(self, case: dict[str, Any]) -> dict[str, Any]:
        """Compiles a case and runs it once."""

    def time(self, repeats: int, rounds: int) -> dict[str, Any]:
        """``seconds``: for each of ``rounds`` the mean of ``repeats`` runs in a row, behind one
        that does not count, inputs and outputs on the device."""


class Absent:
    """A contender that this machine has not, with the reason."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def about(self) -> dict[str, Any]:
        raise Failed(self.reason)

    def prepare(self, case: dict[str, Any]) -> dict[str, Any]:
        raise Failed(self.reason)

    def time(self, repeats: int, rounds: int) -> dict[str, Any]:
        raise Failed(self.reason)


def serve(worker: Worker) -> None:
    """Answers requests until there are no more. What else is printed goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(worker, request.pop("do"))(**request)
        except Failed as failure:
            answer = {"error": str(failure)}
        except Exception as error:  # every framework has exceptions of its own
            answer = {"error": f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


class Timed(Protocol):
    """Whatever can be asked for times: see `Contender.ask`."""

    def ask(self, do: str, seconds: float, **arguments: Any) -> dict[str, Any]:
        """The answer to one request; Failed when there is none within ``seconds``."""


class Contender:
    """The process of a module of this folder, started when it is first asked something, and again
    when it has ended."""

    def __init__(self, module: str, python: str = sys.executable) -> None:
        self.command = [python, "-m", f"tools.gpu_check.{module}"]
        self._process: subprocess.Popen | None = None
        self._buffer = b""

    def ask(self, do: str, seconds: float, **arguments: Any) -> dict[str, Any]:
        """The answer to one request; Failed when there is none within ``seconds``."""
        self.begin(do, **arguments)
        return self.answer(seconds)

    def begin(self, do: str, **arguments: Any) -> None:
        """Sends a request whose `answer` is awaited later."""
        if self._process is None:
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(self.command, cwd=ROOT, stdin=pipe, stdout=pipe)
            self._buffer = b""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self._process.stdin.flush()

    def answer(self, seconds: float) -> dict[str, Any]:
        """The answer to the request that was begun; Failed as for `ask`."""
        found: dict[str, Any] = json.loads(self._line(time.monotonic() + seconds))
        if "error" in found and len(found) == 1:
            raise Failed(found["error"])
        return found

    def _line(self, end: float) -> bytes:
        assert self._process is not None and self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            left = max(end - time.monotonic(), 0.0)
            if not select.select([pipe], [], [], left)[0]:
                self.close()
                raise Late("no answer in time")
            read = os.read(pipe, 1 << 16)
            if not read:
                status = self._process.wait()
                self.close()
                raise Failed(f"its process ended with status {status}")
            self._buffer += read
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def close(self) -> None:
        """Ends the process, and with it whatever is on the device."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()
            self._process = None


def time_in_turns(
    contenders: Mapping[str, Timed], turns: int, rounds: int, limit: float
) -> dict[str, float | str]:
    """The median seconds of a run of each contender, measured in turns so that clocks and heat are
    the same for all; the reason in place of the seconds for those that fail."""
    repeats: dict[str, int] = {}
    found: dict[str, list[float]] = {name: [] for name in contenders}
    failures: dict[str, str] = {}
    for turn in range(turns + 1):
        for name, contender in contenders.items():
            if name in failures:
                continue
            try:
                many = repeats.get(name, 1)
                seconds = contender.ask("time", limit, repeats=many, rounds=rounds)["seconds"]
            except Failed as failure:
                failures[name] = str(failure)
                continue
            if turn == 0:  # finds out how many runs a measurement needs
                shortest = max(min(seconds), 1e-7)
                repeats[name] = min(max(int(MEASURED_SECONDS / shortest), 1), MOST_REPEATS)
            else:
                found[name] += seconds
    return {name: failures.get(name) or statistics.median(found[name]) for name in contenders}
