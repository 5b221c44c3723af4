"""READ FIRST: a model goes in, a CompiledModel comes out; STAGES is the whole compiler in data-flow
order.

Each stage reads what earlier ones left in the Build and adds its own result. Big things are let go
of as soon as the next form exists, because the weights of a model are most of the memory a
compilation takes.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from aotc.artifact.bundle import Bundle, make_bundle
from aotc.artifact.manifest import Provenance
from aotc.codegen.entry import emit_module
from aotc.codegen.machine import assembly, compile_module
from aotc.compiled import CompiledModel
from aotc.config import VERSION, DimSize, Options
from aotc.debug.dump import graph_text, program_text
from aotc.debug.timing import Stopwatch
from aotc.errors import UsageError
from aotc.frontend.onnx_reader import import_onnx
from aotc.frontend.ports import Ports, notes
from aotc.fuse.groups import Groups, fuse
from aotc.graph.ir import Graph
from aotc.graph.text import print_graph
from aotc.loop.program import Program
from aotc.loop.verify import verify_program
from aotc.lower.numerics import without_fma
from aotc.lower.parallel import parallelize
from aotc.lower.program import lower
from aotc.memory.arena import MemoryPlan
from aotc.memory.check import check_plan
from aotc.memory.constants import ConstantLayout, lay_out_constants
from aotc.memory.order import plan_in_order
from aotc.passes.runner import PIPELINE, run_passes
from aotc.schedule.book import read_book
from aotc.schedule.compact import choose_compact
from aotc.schedule.cpu import ChooseContract, choose_contract
from aotc.target import Target, resolve_target

Progress = Callable[[str, int, int], None]
"""Called as (what is being done, steps finished, steps in all) when something begins."""

Observer = Callable[[str, "Build"], None]
"""Called with the name of a stage or pass that has just finished and everything that exists by
then."""


class Stopped(Exception):
    """Ends a compilation early and on purpose; raised by an Observer."""


@dataclass
class Build:
    """One compilation under way: what was asked for, then the result of each stage."""

    options: Options
    target: Target
    source: Graph | Path
    digest: str = ""
    graph: Graph | None = None
    ports: Ports | None = None
    choose: ChooseContract = choose_contract
    groups: Groups | None = None
    program: Program | None = None
    plan: MemoryPlan | None = None
    constants: ConstantLayout | None = None
    llvm_text: str = ""
    emitted: bytes = b""
    bundle: Bundle | None = None
    texts: dict[str, Callable[[], str]] = field(default_factory=dict)
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
    on_progress: Progress | None = None
    on_stage: Observer | None = None

    def take_graph(self) -> Graph:
        """The graph, which the Build forgets: whoever transforms it holds the only reference."""
        graph, self.graph = self.graph, None
        assert graph is not None
        return graph

    def finished(self, name: str) -> None:
        """Tells the observer that ``name`` is done."""
        if self.on_stage is not None:
            self.on_stage(name, self)


def _frontend(build: Build) -> None:
    """ONNX file -> Graph; a Graph is taken as it is."""
    if isinstance(build.source, Graph):
        build.graph = _rename(build.source, build.options)
        build.digest = hashlib.sha256(print_graph(build.source).encode()).hexdigest()
        return
    options = build.options
    imported = import_onnx(
        build.source,
        dims=options.dims,
        input_shapes=options.input_shapes,
        outputs=options.outputs,
        name=options.name,
        bounds=options.bounds,
    )
    build.graph, build.ports = imported.graph, imported.ports
    build.digest = _hash_file(build.source)


def _passes(build: Build) -> None:
    """Graph -> Graph: simplified, folded, specialised, laid out for the kernels."""

    def done(name: str, graph: Graph) -> None:
        build.graph = graph
        build.finished(name)

    build.graph = run_passes(
        build.take_graph(), on_stage=done, on_report=build.stopwatch.add_pass
    )
    text = graph_text(build.graph)
    build.texts["graph"] = lambda: text


def _fuse(build: Build) -> None:
    """Graph -> Groups: one group, one kernel."""
    assert build.graph is not None
    build.groups = fuse(build.graph)


def _lower(build: Build) -> None:
    """Groups -> Program of loop-IR kernels, scheduled for the target; the graph ends here."""
    assert build.groups is not None and build.graph is not None
    build.program = lower(build.groups, build.target, build.graph.name, build.choose)
    if not build.target.has_fma or build.options.numerics == "no-fma":
        build.program = without_fma(build.program)
    if build.options.threads:
        build.program = parallelize(build.program)
    build.groups = build.graph = None


def _verify(build: Build) -> None:
    """Program -> the same Program, every kernel well formed and within its buffers."""
    assert build.program is not None
    verify_program(build.program)


def _memory(build: Build) -> None:
    """Program -> Program in the order that needs least memory, MemoryPlan and ConstantLayout, the
    plan checked by an independent proof."""
    assert build.program is not None
    build.program, build.plan = plan_in_order(build.program)
    check_plan(build.program, build.plan)
    build.constants = lay_out_constants(build.program)
    build.texts["loops"] = partial(program_text, build.program, build.plan)


def _codegen(build: Build) -> None:
    """Program, MemoryPlan -> LLVM text -> object bytes, the weights not yet in them."""
    assert build.program is not None and build.plan is not None and build.constants is not None
    in_file = build.options.weights == "file"
    text = emit_module(
        build.program, build.plan, build.target, build.constants, in_file, build.options.threads
    )
    build.llvm_text = text
    build.emitted = compile_module(text, build.target)
    build.texts["llvm"] = lambda: text
    build.texts["asm"] = partial(assembly, text, build.target)


def _artifact(build: Build) -> None:
    """Object bytes, weights, signature -> what goes to disk: object, header, manifest."""
    assert build.program is not None and build.plan is not None and build.constants is not None
    target = build.target
    provenance = Provenance(
        digest=build.digest,
        target=f"{target.name}/{target.cpu}",
        versions={"aotc": VERSION, "llvmlite": importlib.metadata.version("llvmlite")},
    )
    build.bundle = make_bundle(
        build.program,
        build.plan,
        build.constants,
        build.emitted,
        provenance,
        build.options.weights == "file",
        build.options.threads,
        None if build.ports is None else notes(build.ports),
    )


STAGES: tuple[tuple[str, Callable[[Build], None]], ...] = (
    ("frontend", _frontend),
    ("passes", _passes),
    ("fuse", _fuse),
    ("lower", _lower),
    ("verify", _verify),
    ("memory", _memory),
    ("codegen", _codegen),
    ("artifact", _artifact),
)

STOPS: tuple[str, ...] = ("frontend", *(step.name for step in PIPELINE), "fuse", "lower")
"""Where a compilation can stop and show what it has: after the import, any pass, fusion, lowering.
"""


def compile(
    model: Graph | str | Path,
    *,
    target: str = "x86_64",
    cpu: str | None = None,
    dims: Mapping[str, DimSize] | None = None,
    input_shapes: Mapping[str, Sequence[Any] | None] | None = None,
    bounds: Mapping[str, int] | None = None,
    outputs: Sequence[str] | None = None,
    name: str | None = None,
    weights: str = "object",
    threads: bool = False,
    recipes: str | Path | None = None,
    numerics: str = "fma",
    abi: str | None = None,
    opt: str = "speed",
    on_progress: Progress | None = None,
) -> CompiledModel:
    """Compiles an ONNX file, or a Graph that ``load_onnx`` made, to native code.

    ``target`` and ``cpu`` are as on the command line (x86_64 without a cpu means x86-64-v3: AVX2
    and FMA). ``dims`` binds symbolic dimensions (a pair of sizes is a range from which each run
    chooses), ``input_shapes`` whole inputs, ``bounds`` gives
    the most that a size known at run time only can be, by the value's name, ``outputs`` keeps only
    the named outputs, ``name`` is what the C symbols start with; a Graph already has its
    shapes and outputs. ``weights`` is ``object`` or ``file``. ``threads`` adds the entry that
    shares the work among a pool of threads. ``recipes`` is a file that
    tuning wrote. ``numerics`` is ``fma`` or ``no-fma``, ``abi`` a calling convention, ``opt``
    is ``speed`` or ``size``. Raises a
    subclass of AotcError, with a remedy, for whatever is wrong with the model or the arguments.
    """
    options = Options(
        target=target,
        cpu=cpu,
        dims=dict(dims or {}),
        input_shapes={
            key: None if shape is None else tuple(shape)
            for key, shape in (input_shapes or {}).items()
        },
        bounds=dict(bounds or {}),
        outputs=None if outputs is None else tuple(outputs),
        name=name,
        weights=weights,
        threads=threads,
        recipes=None if recipes is None else Path(recipes),
        numerics=numerics,
        abi=abi,
        opt=opt,
    )
    return run_stages(model, options, on_progress=on_progress)


def run_stages(
    model: Graph | str | Path,
    options: Options,
    *,
    on_progress: Progress | None = None,
    on_stage: Observer | None = None,
    choose: ChooseContract | None = None,
) -> CompiledModel:
    """``compile`` with its options as a value, and with an observer of every stage and pass.

    ``choose`` gives the recipes of contractions, instead of the file that the options name and of
    the cost model.
    """
    source = model if isinstance(model, Graph) else Path(model)
    target = resolve_target(options.target, options.cpu, options.abi)
    build = Build(options, replace(target, compact=options.opt == "size"), source)
    build.on_progress, build.on_stage = on_progress, on_stage
    if choose is not None:
        build.choose = choose
    elif options.recipes is not None:
        build.choose = read_book(options.recipes).choose
    elif build.target.compact:
        build.choose = choose_compact
    del model, source
    for done, (name, stage) in enumerate(STAGES):
        if on_progress is not None:
            on_progress(name, done, len(STAGES))
        with build.stopwatch.time(name):
            stage(build)
        build.finished(name)
    assert build.bundle is not None and build.program is not None and build.plan is not None
    return CompiledModel(
        build.bundle, build.program, build.plan, build.target, build.texts, build.ports
    )


def _rename(graph: Graph, options: Options) -> Graph:
    """``graph`` under the asked-for name; UsageError when options need the file that it came from.
    """
    if options.dims or options.input_shapes or options.outputs is not None:
        raise UsageError(
            "a Graph has its shapes and outputs already",
            remedy="give dims, input_shapes and outputs to load_onnx",
        )
    return replace(graph, name=options.name or graph.name)


def _hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
