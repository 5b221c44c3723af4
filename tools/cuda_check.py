"""A machine with a GPU goes in, one table of what was checked and timed on it comes out:
`make cuda-check`. On a machine without one it says so and checks nothing (exit status 2).

Every contender (aotc, PyTorch, JAX) is a process of its own (tools/gpu_check/), so that a kernel
that fails or hangs ends that process alone. First single operations beside PyTorch and the speed of
a copy, then the start and size of a C program, then models beside torch.compile and jax.jit, all of
them in turns and checked against float64; then the other benchmark models, as long as there is
time; last the tests for devices, and those again under compute-sanitizer. Times are medians between
events on the device. What was not measured says why. Exit status 1 when numbers are wrong or
something failed; a goal that is not reached is no failure.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx

import aotc
from aotc.commands.console import print_table
from aotc.cuda.driver import Driver, device_name, native_arch, open_driver
from aotc.errors import AotcError
from bench.models import MODELS as BENCH_MODELS
from bench.models import Unavailable, get_model
from tools.gpu_check import programs
from tools.gpu_check.cases import (
    BATCH_ONE_GOAL,
    MEAN_GOAL,
    MODEL_GOAL,
    MODEL_PRECISIONS,
    MODELS,
    RESNET50,
    ModelCase,
    Operation,
    model_case,
    operations,
)
from tools.gpu_check.contender import Contender, Failed, Late, Timed, time_in_turns
from tools.gpu_check.files import encoder_model, weights_in_order
from tools.gpu_check.rows import (
    HEADINGS,
    Row,
    closing_line,
    markdown_line,
    ratio_to_fastest,
    summarize_models,
    write_json,
)

#: All of it keeps within ten minutes.
DEFAULT_SECONDS = 570.0
#: What is kept for start and size, and for the tests at the end.
TESTS_SECONDS = 150.0
START_SECONDS = 60.0
#: The longest that one case may take to be compiled and run once, by others and by us, and one
#: measurement.
PREPARE_SECONDS, OWN_SECONDS, MEASURE_SECONDS = 150.0, 75.0, 30.0
#: Less than this is not worth beginning a model with.
LEAST_SECONDS = 10.0
TURNS, ROUNDS = 4, 5
NO_TIME = "no time left"
AGREEMENT_PRECISIONS = ("f32", "tf32", "f16")


@dataclass
class Bench:
    """Who is measured, and until when. ``absent`` has the reason for those who are not there."""

    ours: Contender
    peers: dict[str, Contender]
    end: float
    absent: dict[str, str] = field(default_factory=dict)
    about: dict[str, dict[str, Any]] = field(default_factory=dict)

    def left(self, kept: float = 0.0) -> float:
        """The seconds that are left of the whole, less what is kept for later."""
        return self.end - kept - time.monotonic()

    def find_peers(self) -> None:
        """Asks who is there."""
        for key, peer in self.peers.items():
            try:
                self.about[key] = peer.ask("about", PREPARE_SECONDS)
            except Failed as failure:
                self.absent[key] = str(failure)

    def measure(self, case: dict[str, Any], peers: Sequence[str], kept: float) -> dict[str, Any]:
        """``ours`` and ``peers`` in seconds, the error and the number of launches of a case. Failed
        when ours fails, OutOfTime when the end comes first."""
        limit = min(PREPARE_SECONDS, max(self.left(kept), 1.0))
        begun = time.monotonic()
        self.ours.begin("prepare", case=case)  # without the device, which others try kernels on
        theirs: dict[str, float | str] = {
            key: self.absent[key] for key in peers if key in self.absent
        }
        ready: dict[str, Timed] = {}
        for key in peers:
            if key not in self.absent:
                try:
                    self.peers[key].ask("prepare", limit, case=case)
                    ready[key] = self.peers[key]
                except Failed as failure:
                    self.peers[key].close()
                    theirs[key] = str(failure)
        try:
            found = self.ours.answer(max(min(OWN_SECONDS, limit) - (time.monotonic() - begun), 1.0))
            found |= self.ours.ask("check", MEASURE_SECONDS)
        except Failed as failure:
            self.ours.close()  # what is lost on the device is lost for the process
            if isinstance(failure, Late) and limit < OWN_SECONDS:
                raise OutOfTime from None
            raise
        seconds = time_in_turns({"ours": self.ours, **ready}, TURNS, ROUNDS, MEASURE_SECONDS)
        ours = seconds.pop("ours")
        if isinstance(ours, str):
            self.ours.close()
            raise Failed(ours)
        known = {key: about["name"] for key, about in self.about.items()}
        named = {known.get(key, key): value for key, value in {**theirs, **seconds}.items()}
        return {**found, "ours": ours, "peers": named}


class OutOfTime(Exception):
    """A case that was begun when there was too little time for it."""


class Copies:
    """What the device copies, as a contender: ``moved`` bytes read and written in all."""

    def __init__(self, ours: Contender, moved: float) -> None:
        self._ours, self._bytes = ours, int(moved / 2)

    def ask(self, do: str, seconds: float, **arguments: Any) -> dict[str, Any]:
        """Seconds of copies; see `Contender.ask`."""
        found = self._ours.ask("copy", seconds, size_bytes=self._bytes, **arguments)
        return {"seconds": [2 * self._bytes / found["bytes_a_second"]]}


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; the exit status as above."""
    args = _parse(arguments)
    try:
        title = describe(open_driver())
    except AotcError as error:
        print(f"cuda-check: nothing was checked: {error}", file=sys.stderr)
        return 2
    end = time.monotonic() + args.seconds
    bench = Bench(
        Contender("aotc_worker"),
        {key: Contender(f"{key}_worker", args.peers) for key in ("torch", "jax")},
        end,
    )
    bench.find_peers()
    if args.warm:
        return warm(bench, args.seconds)
    rows = run_all(bench, args)
    for contender in (bench.ours, *bench.peers.values()):
        contender.close()
    print(" ".join(f"{key}: {value}" if key else value for key, value in title.items()))
    print_table(HEADINGS, [row.cells() for row in rows])
    print(closing_line(rows))
    if args.json:
        write_json(args.json, title, rows)
    if args.markdown:
        card = f"{title['card']}, {title['']}"
        lines = [markdown_line(row, card) for row in rows if row.goal is not None]
        args.markdown.write_text("\n".join(lines) + "\n")
    return int(any(row.wrong for row in rows))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=DEFAULT_SECONDS, help="for all of it")
    parser.add_argument("--models", help="only these and nothing else, with commas between them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="writes all figures to FILE")
    parser.add_argument(
        "--markdown", type=Path, metavar="FILE",
        help="writes the lines of the table in docs/cuda.md to FILE",
    )  # fmt: skip
    parser.add_argument(
        "--peers", default=sys.executable, metavar="PYTHON",
        help="the Python that has PyTorch and JAX (this one)",
    )  # fmt: skip
    parser.add_argument(
        "--warm", action="store_true",
        help="only lets PyTorch and JAX compile all models, which fills their caches",
    )  # fmt: skip
    return parser.parse_args(arguments)


def describe(driver: Driver) -> dict[str, str]:
    """The date, the card, and the versions of driver and aotc."""
    version = driver.number("cuDriverGetVersion")
    return {
        "": time.strftime("%Y-%m-%d"),
        "card": device_name(driver, 0),
        "code for": native_arch(driver),
        "driver": f"{version // 1000}.{version % 1000 // 10}",
        "aotc": aotc.__version__,
    }


def warm(bench: Bench, seconds: float) -> int:
    """Lets the peers compile every model; prints who did what."""
    for model in MODELS:
        for precision in MODEL_PRECISIONS:
            for key, peer in bench.peers.items():
                said = bench.absent.get(key, "")
                if not said:
                    try:
                        peer.ask("prepare", seconds, case=peer_case(model, precision))
                        said = "compiled"
                    except Failed as failure:
                        said = str(failure)
                print(f"{model.title} {precision} {key}: {said}", flush=True)
    return 0


def run_all(bench: Bench, args: argparse.Namespace) -> list[Row]:
    """Every row, in the order of the table."""
    chosen = args.models.split(",") if args.models is not None else None
    models = [model for model in MODELS if chosen is None or model.name in chosen]
    if chosen is not None:
        return [*check_models(bench, models, 0.0), *check_agreement(bench, chosen, 0.0)]
    kept = TESTS_SECONDS + START_SECONDS
    rows = [check_operation(bench, operation, kept) for operation in operations()]
    rows += programs.start_and_size(
        programs.start_command(args.peers, start_case()),
        bench.absent.get("torch") or bench.about["torch"],
        min(START_SECONDS, bench.left(TESTS_SECONDS)),
    )
    rows += check_models(bench, models, TESTS_SECONDS)
    rows += check_agreement(bench, None, TESTS_SECONDS)
    for contender in (bench.ours, *bench.peers.values()):
        contender.close()
    rows.append(programs.run_tests(bench.left()))
    return rows + [programs.sanitize(tool, bench.left()) for tool in programs.SANITIZERS]


def check_operation(bench: Bench, operation: Operation, kept: float) -> Row:
    """One operation, beside PyTorch or a copy of as many bytes."""
    row = Row(operation.name, operation.precision, goal=operation.goal)
    if bench.left(kept) < LEAST_SECONDS:
        return replace(row, remarks=NO_TIME)
    try:
        if operation.moved:
            found = bench.measure(operation.case, (), kept)
            copies = Copies(bench.ours, operation.moved)
            found["peers"] = time_in_turns({"copy": copies}, 1, ROUNDS, MEASURE_SECONDS)
        else:
            found = bench.measure(operation.case, ("torch",), kept)
    except OutOfTime:
        return replace(row, remarks=NO_TIME)
    except Failed as failure:
        return replace(row, problem=str(failure))
    rate = f"{operation.flops / found['ours'] / 1e12:.1f} TFLOP/s"
    if operation.moved:
        rate = f"{operation.moved / found['ours'] / 1e9:.0f} GB/s"
    return filled(row, found, rate)


def check_models(bench: Bench, models: Sequence[ModelCase], kept: float) -> list[Row]:
    """The models beside both peers, and what all of them come to."""
    rows = [row for model in models for row in check_model(bench, model, kept)]
    batch_one = [model.batch == 1 for model in models for _ in MODEL_PRECISIONS]
    return [*rows, *summarize_models(rows, batch_one, MEAN_GOAL, BATCH_ONE_GOAL)] if rows else []


def check_model(bench: Bench, model: ModelCase, kept: float) -> Iterator[Row]:
    """A row for each precision."""
    case: dict[str, Any] = {}
    for precision in MODEL_PRECISIONS:
        goal = BATCH_ONE_GOAL if model.batch == 1 else MODEL_GOAL
        row = Row(model.title, precision, goal=goal)
        if bench.left(kept) < LEAST_SECONDS:
            yield replace(row, remarks=NO_TIME)
            continue
        try:
            case = {**(case or peer_case(model, precision)), "precision": precision}
            found = bench.measure(case, ("torch", "jax"), kept)
            yield filled(row, found, f"{found['launches']} launches")
        except OutOfTime:
            yield replace(row, remarks=NO_TIME)
        except Failed as failure:
            yield replace(row, problem=str(failure))
        except Unavailable as failure:
            yield replace(row, remarks=str(failure))


def check_agreement(bench: Bench, chosen: Sequence[str] | None, kept: float) -> Iterator[Row]:
    """The benchmark models that have no peer here, and all of them in f32: errors and times."""
    timed = {model.bench for model in MODELS}
    for model in BENCH_MODELS:
        if chosen is not None and model.name not in chosen:
            continue
        for precision in AGREEMENT_PRECISIONS:
            if model.name in timed and precision in MODEL_PRECISIONS:
                continue
            row = Row(model.name, precision)
            if bench.left(kept) < LEAST_SECONDS:
                yield replace(row, remarks=NO_TIME)
                continue
            case = model_case(ModelCase(model.name, 1, {}, model.name), precision)
            try:
                get_model(model.name)
                found = bench.measure(case, (), kept)
                yield filled(row, found, f"{found['launches']} launches")
            except OutOfTime:
                yield replace(row, remarks=NO_TIME)
            except Failed as failure:
                yield replace(row, problem=str(failure))
            except Unavailable as failure:
                yield replace(row, remarks=str(failure))


def filled(row: Row, found: dict[str, Any], rate: str) -> Row:
    """The row with what was measured."""
    return replace(
        row,
        ours=found["ours"],
        peers=found["peers"],
        ratio=ratio_to_fastest(found["ours"], found["peers"]),
        error=found["largest_error"],
        rate=rate,
    )


def peer_case(model: ModelCase, precision: str) -> dict[str, Any]:
    """The case of a model with the shapes of its weights, from which the peers draw their own.
    Unavailable when the model has to be fetched and cannot be."""
    if model.bench:
        proto = onnx.load(get_model(model.bench))
    else:
        proto = encoder_model(model.architecture, model.batch)
    inputs = [
        [model.batch, *[dim.dim_value for dim in value.type.tensor_type.shape.dim][1:]]
        for value in proto.graph.input
    ]
    shapes = [list(weights.shape) for weights in weights_in_order(proto)]
    return {**model_case(model, precision), "shapes": shapes, "inputs": inputs}


def start_case() -> dict[str, Any]:
    """What the peer's program of `programs.start_and_size` runs."""
    model = ModelCase(programs.STARTED, 1, RESNET50, programs.STARTED)
    return {**peer_case(model, "tf32"), "mode": "default"}


if __name__ == "__main__":
    sys.exit(main())
