"""Compiles models: writes NAME.o, NAME.h and NAME.json, or any stage on the way there.

Several models make one object. Its functions are NAME_MODEL_run; what the models have in common
is in it once, and one workspace of NAME_WORKSPACE_BYTES serves all of them. A list of sizes (--dim
batch=1,8,32) makes a function for each, NAME_run_8, and NAME_run, which takes the size as an
argument.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from aotc.artifact.bundle import Bundle, save_module
from aotc.codegen.signature import make_c_identifier
from aotc.commands.arguments import (
    add_model_arguments,
    add_recipes_argument,
    add_threads_argument,
    add_weights_argument,
    read_options,
)
from aotc.commands.console import StageProgress, format_bytes, print_table, progress_line
from aotc.commands.files import write_file
from aotc.compiled import CompiledModel, CompiledModels
from aotc.config import Options
from aotc.debug.dump import graph_text, program_text
from aotc.driver import STOPS, Build, Stopped, run_stages, run_together
from aotc.errors import UsageError
from aotc.schedule.book import RecipeBook, read_book
from aotc.schedule.cpu import ChooseContract, ContractSizes
from aotc.schedule.emulated import emulation_warning
from aotc.schedule.explain import explain_contract
from aotc.schedule.recipe import ContractRecipe
from aotc.target import resolve_target
from aotc.together import named_models
from aotc.tune import CANDIDATES, contract_key, tune

NAME = "compile"
HELP = "compile a model to an object file and a C header"

#: What --emit takes, and the end of the file that it writes.
EMITTED = {"graph": ".graph.txt", "loops": ".loops.txt", "llvm": ".ll", "asm": ".s", "ptx": ".ptx"}

#: --emit also takes this, for wasm32: a module that needs no linker, and its JavaScript.
MODULE = "module"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``aotc compile``."""
    add_model_arguments(parser, several=True)
    add_weights_argument(parser)
    add_threads_argument(parser)
    add_recipes_argument(parser)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="DIR", help="the folder to write to (default: here)"
    )
    parser.add_argument(
        "--emit",
        action="append",
        default=[],
        metavar="STAGE",
        help=f"also write a stage as text: {', '.join(EMITTED)}; or {MODULE}: for wasm32, a .wasm "
        "with its JavaScript; repeat, or separate with commas",
    )
    parser.add_argument(
        "--tune",
        type=float,
        metavar="SECONDS",
        help="measure other schedules on this machine first; with --recipes FILE, add what is "
        "faster to that file",
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="show how each contraction is scheduled, and why the cost model wants it so; for "
        "GPUs, how each kernel is launched, and its registers and spills if there is a ptxas",
    )
    parser.add_argument(
        "--stop-after",
        metavar="PASS",
        help="stop after a pass and show what it left (in -o DIR, or on the terminal without it): "
        + ", ".join(STOPS),
    )


def run(args: argparse.Namespace) -> int:
    """Compiles and reports; the exit status is 0, whatever goes wrong is raised."""
    if len(args.models) > 1:
        return _run_several(args)
    args.model = args.models[0]  # which messages name
    options = read_options(args)
    if args.tune is not None:
        if not 0 < args.tune < math.inf:
            raise UsageError(f"--tune {args.tune} is no time", remedy="give seconds: --tune 30")
        if options.target == "cuda":
            raise UsageError("--tune does not go with --target cuda", remedy="leave out --tune")
        if args.recipes is not None and not args.recipes.exists():
            options = replace(options, recipes=None)  # the tuner will write it
    emitted = _read_emit(args.emit)
    if args.stop_after is not None and args.stop_after not in STOPS:
        raise UsageError(
            f"there is no pass called '{args.stop_after}'", remedy=f"use one of: {', '.join(STOPS)}"
        )
    if options.sizes:
        _expect_plain(args, "several sizes")
    dumps: list[tuple[str, str]] = []
    builds: list[Build] = []

    def observe(stage: str, build: Build) -> None:
        builds[:] = [build]
        if stage == args.stop_after:
            stem = make_c_identifier(args.name or args.model.stem)
            dumps.append((f"{stem}.{stage}.txt", _dump(build)))
            raise Stopped

    choose = None if args.tune is None else _tune(args, options)
    try:
        with progress_line(args.model.name) as progress:
            model = run_stages(
                args.model,
                options,
                on_progress=StageProgress(progress, args.model.name),
                on_stage=observe,
                choose=choose,
            )
    except Stopped:
        _show(dumps, args.output)
        return 0
    _write(args, model, emitted, list(model.variants), builds[0].stopwatch.total_seconds)
    return 0


def _run_several(args: argparse.Namespace) -> int:
    """One object of several models."""
    options, emitted = read_options(args), _read_emit(args.emit)
    _expect_plain(args, "several models")
    if not args.name:
        raise UsageError(
            "an object of several models needs a name", remedy="give one, e.g. --name app"
        )
    builds: list[Build] = []
    with progress_line(args.name) as progress:
        models = run_together(
            named_models(args.models),
            options,
            on_progress=StageProgress(progress, args.name),
            on_stage=lambda stage, build: builds.append(build),
        )
    variants = [variant for model in models.values() for variant in model.variants]
    _write(args, models, emitted, variants, builds[-1].stopwatch.total_seconds)
    return 0


def _expect_plain(args: argparse.Namespace, what: str) -> None:
    """UsageError for flags that are about one model for one size."""
    for flag, value in (("--tune", args.tune), ("--stop-after", args.stop_after)):
        if value is not None:
            raise UsageError(
                f"{flag} does not go with {what}", remedy="use it on one model for one size"
            )


def _write(
    args: argparse.Namespace,
    model: CompiledModel | CompiledModels,
    emitted: Sequence[str],
    variants: Sequence[CompiledModel],
    seconds: float,
) -> None:
    """Writes all files of the object, and says what they hold."""
    folder = args.output or Path(".")
    texts = [
        pair for stage in emitted if stage in EMITTED for pair in _texts_of(model, stage)
    ]
    paths = model.save(folder)
    if MODULE in emitted:
        paths += save_module(model.bundle, folder)
    paths += _write_texts(texts, folder)
    _report(model.bundle, variants, paths, seconds, args.ram is not None)
    warning = emulation_warning([variant.program for variant in variants], variants[0].target)
    if warning is not None:
        print(f"aotc: warning: {warning}", file=sys.stderr)
    if variants[0].target.is_gpu:
        from aotc.commands.device import report_device

        report_device(model, args.explain)
    elif args.explain:
        _explain(variants)


def _tune(args: argparse.Namespace, options: Options) -> ChooseContract:
    """Measures, writes the recipes that won to --recipes, and gives the chooser that uses them."""
    with progress_line(args.model.name) as progress:
        show = StageProgress(progress, args.model.name)
        won = tune(
            args.model, options, args.tune, lambda number: show("tuning", number, CANDIDATES)
        )
    target = resolve_target(options.target, options.cpu)
    book = RecipeBook() if options.recipes is None else read_book(options.recipes)
    book = book.updated(target, {tuned.key: tuned.recipe for tuned in won})
    if args.recipes is not None:
        write_file(args.recipes, book.as_text().encode(), "--recipes")
    rows = [
        (tuned.key, str(tuned.recipe), f"{tuned.model_seconds / tuned.best_seconds:.2f}")
        for tuned in won
    ]
    print_table(("contraction", "faster recipe", "times"), rows, right=2)
    return book.choose


def _explain(models: Sequence[CompiledModel]) -> None:
    """A table of all contractions: what was chosen, where its predicted cycles go, and the next
    best."""
    rows = []
    target = models[0].target
    kernels = [kernel for model in models for kernel in model.program.kernels()]
    for recipe in dict.fromkeys(kernel.recipe for kernel in kernels):
        key = contract_key(recipe)
        if key is None:
            continue
        chosen = ContractRecipe.parse(recipe.rpartition(": ")[2])
        found = explain_contract(ContractSizes.parse(key), target, chosen)
        other = next((rival for rival in found.rivals if rival.recipe != chosen), None)
        shares = (
            found.arithmetic,
            found.padding,
            found.loads,
            found.latency,
            found.weights,
            found.broadcasts,
            found.tiles,
        )
        rows.append(
            (
                recipe,
                f"{found.cycles:.0f}",
                *(f"{share / found.cycles:.0%}" for share in shares),
                "-" if other is None else f"{other.recipe} ({other.cycles / found.cycles:.2f})",
            )
        )
    headings = ["contraction: recipe", "cycles", "multiply-adds", "empty lanes", "loads"]
    headings += ["latency", "weights", "broadcasts", "tiles", "next best (cost)"]
    print_table(headings, rows, right=1)


def _read_emit(flags: Sequence[str]) -> list[str]:
    stages = list(dict.fromkeys(stage for flag in flags for stage in flag.split(",") if stage))
    for stage in stages:
        if stage not in (*EMITTED, MODULE):
            raise UsageError(
                f"there is no stage called '{stage}'",
                remedy=f"use --emit {','.join((*EMITTED, MODULE))}",
            )
    return stages


def _dump(build: Build) -> str:
    """The furthest form that the compilation has reached."""
    if build.program is not None:
        return program_text(build.program, build.plan)
    if build.groups is not None:
        return build.groups.as_text()
    assert build.graph is not None
    return graph_text(build.graph)


def _show(dumps: Sequence[tuple[str, str]], folder: Path | None) -> None:
    if folder is None:
        sys.stdout.write("".join(text for _, text in dumps))
    else:
        for path in _write_texts(dumps, folder):
            print(path)


def _texts_of(
    model: CompiledModel | CompiledModels, stage: str
) -> Iterator[tuple[str, str]]:
    """File names and texts of one stage: of PTX a file for each variant, as assemblers want it."""
    name, end = model.bundle.name, EMITTED[stage]
    device = model.bundle.manifest.get("cuda", {"variants": ()})
    archs = [variant["ptx"] for variant in device["variants"]]
    if stage != "ptx" or len(archs) < 2:
        yield f"{name}{end}", model.as_text(stage)
        return
    for arch in archs:
        yield f"{name}.{arch}{end}", model.as_text(f"{stage} {arch}")


def _write_texts(texts: Sequence[tuple[str, str]], folder: Path) -> list[Path]:
    for name, text in texts:
        write_file(folder / name, text.encode(), "-o")
    return [folder / name for name, _ in texts]


def _regions(bundle: Bundle) -> list[tuple[str, str]]:
    """A row for each memory region: how much of it is used."""
    memory, weights = bundle.manifest["memory"], bundle.manifest["weights"]
    limits = {part.region: part.limit_bytes for part in bundle.entries[0].plan.in_regions}
    limits |= {row["name"]: row["limit_bytes"] for row in weights.get("regions", ())}
    rows = [*weights.get("regions", ()), *memory.get("regions", ())]
    return [
        (
            row["name"],
            f"{format_bytes(row['bytes'])} of {format_bytes(limits[row['name']])} bytes",
        )
        for row in rows
    ]


def _report(
    bundle: Bundle,
    models: Sequence[CompiledModel],
    paths: Sequence[Path],
    seconds: float,
    limited: bool,
) -> None:
    """The table of what was made; ``limited`` if the memory was, which may have cost work."""
    manifest, chosen = bundle.manifest, models[0].target
    plans = [model.plan for model in models]
    largest = max(plans, key=lambda plan: plan.arena_bytes)
    arena, bound = format_bytes(largest.arena_bytes), largest.lower_bound_bytes
    calls = ", ".join(str(len(model.program.calls)) for model in models)
    target = str(chosen)
    if (chosen.name, chosen.cpu) == ("x86_64", "x86-64-v3"):
        target += "; x86_64 means x86-64-v3 (AVX2 and FMA)"
    rows = [
        ("files", " ".join(map(str, paths))),
        ("code", f"{format_bytes(manifest['code_bytes'])} bytes, {calls} kernel calls"),
        ("weights", f"{format_bytes(manifest['weights']['bytes'])} bytes"),
        ("workspace", f"{arena} bytes, {largest.gap:.3f} times the lower bound of {bound}"),
        *_regions(bundle),
        ("target", target),
        ("time", f"{seconds:.1f} s"),
    ]
    if limited:
        fits = dict.fromkeys(model.as_text("stripes") for model in models)
        rows.insert(4, ("stripes", "; ".join("".join(fits).splitlines())))
    if len(models) > 1:
        entries = ", ".join(model.signature.run for model in models)
        rows.insert(1, ("entries", entries))
    print_table(("", ""), rows)
