"""READ FIRST: a model goes in, a CompiledModel comes out; STAGES and OBJECT_STAGES are the whole
compiler in data-flow order.

Each of STAGES works on one model for one size. An object may hold several: OBJECT_STAGES work on
all of them, for most models that is one. Each stage reads what earlier ones left in the Build and
adds its own result. Big things are let go of as soon as the next form exists, because the weights
of a model are most of the memory a compilation takes.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from aotc.artifact.bundle import Bundle, make_bundle
from aotc.artifact.manifest import Provenance
from aotc.codegen.entry import Entry, emit_module
from aotc.codegen.machine import assembly, compile_module
from aotc.codegen.signature import describe_signature, make_c_identifier
from aotc.compiled import Code, CompiledModel, CompiledModels
from aotc.config import VERSION, DimSize, Options
from aotc.debug.dump import graph_text, program_text
from aotc.debug.timing import Stopwatch
from aotc.errors import UsageError
from aotc.frontend.ports import Ports, notes
from aotc.frontend.reader import import_model
from aotc.fuse.groups import Groups, fuse
from aotc.graph.ir import Graph
from aotc.graph.text import print_graph
from aotc.graph.types import DType
from aotc.loop.program import Program
from aotc.loop.verify import verify_program
from aotc.lower.numerics import without_fma
from aotc.lower.parallel import parallelize
from aotc.lower.program import lower
from aotc.lower.sharing import SamePanels, Shared
from aotc.machines import targets_of
from aotc.memory.arena import MemoryPlan
from aotc.memory.check import check_plan
from aotc.memory.constants import ConstantLayout, lay_out_constants
from aotc.memory.fit import fit
from aotc.memory.order import plan_in_order
from aotc.memory.spread import place_in_regions
from aotc.passes.join_products import join_products
from aotc.passes.keep_codes import expand
from aotc.passes.relax import own_precision
from aotc.passes.runner import PIPELINE, pipeline, run_passes
from aotc.passes.shrink import shrink
from aotc.regions import read_regions, writable
from aotc.schedule.book import read_book
from aotc.schedule.compact import choose_compact
from aotc.schedule.cpu import ChooseContract, choose_contract
from aotc.schedule.emulated import warn_of_emulation
from aotc.target import Target
from aotc.together import (
    Source,
    expect_one_interface,
    for_size,
    hash_file,
    named_models,
    options_of_each,
    rename,
)

if TYPE_CHECKING:
    from aotc.cuda.build import DeviceObject

Progress = Callable[[str, int, int], None]
"""Called as (what is being done, steps finished, steps in all) when something begins."""

Observer = Callable[[str, "Build"], None]
"""Called with the name of a stage or pass that has just finished and everything that exists by
then."""


class Stopped(Exception):
    """Ends a compilation early and on purpose; raised by an Observer."""


@dataclass
class Build:
    """One compilation under way: what was asked for, then the result of each stage.

    ``sizes`` are those of a model that has an entry for each of several; ``shared`` is what the
    programs of one object share, ``panels`` what those of one model do."""

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
    sizes: tuple[tuple[str, int], ...] = ()
    shared: Shared | None = None
    panels: SamePanels | None = None
    texts: dict[str, Callable[[], str]] = field(default_factory=dict)
    stopwatch: Stopwatch = field(default_factory=Stopwatch)
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

    def entry(self) -> Entry:
        """The finished program as an entry of an object."""
        assert self.program is not None and self.plan is not None
        options = self.options
        signature = describe_signature(
            self.program,
            options.weights == "file",
            options.threads,
            self.sizes,
            tuple(region.name for region in writable(options.regions)),
            self.target.is_gpu,
        )
        about = {} if self.ports is None else notes(self.ports)
        return Entry(signature, self.program, self.plan, self.digest, about)


@dataclass
class ObjectBuild:
    """The object of ``builds`` under way, which share their target and most options."""

    builds: tuple[Build, ...]
    name: str
    entries: tuple[Entry, ...]
    constants: ConstantLayout
    emitted: bytes = b""
    device: DeviceObject | None = None
    bundle: Bundle | None = None
    texts: dict[str, Callable[[], str]] = field(default_factory=dict)

    @property
    def target(self) -> Target:
        return self.builds[0].target


def _frontend(build: Build) -> None:
    """ONNX or TFLite file -> Graph; a Graph is taken as it is."""
    if isinstance(build.source, Graph):
        build.graph = rename(build.source, build.options)
        build.digest = hashlib.sha256(print_graph(build.source).encode()).hexdigest()
        return
    options = build.options
    imported = import_model(
        build.source,
        dims=options.dims,
        input_shapes=options.input_shapes,
        outputs=options.outputs,
        name=options.name,
        bounds=options.bounds,
    )
    build.graph, build.ports = imported.graph, imported.ports
    build.digest = hash_file(build.source)


def _passes(build: Build) -> None:
    """Graph -> Graph: simplified, folded, specialised, laid out for the kernels."""

    def done(name: str, graph: Graph) -> None:
        build.graph = graph
        build.finished(name)

    if build.target.is_gpu and build.options.precision is None and build.graph is not None:
        own = own_precision(build.graph) or build.target.precision
        build.target = replace(build.target, precision=own)
    passes = pipeline(
        DType.I8 if build.target.signed_codes else DType.U8,
        relaxed=build.target.precision in ("f16", "bf16"),
    )
    build.graph = run_passes(
        build.take_graph(), passes, on_stage=done, on_report=build.stopwatch.add_pass
    )
    if build.target.is_gpu:
        build.graph = join_products(expand(build.take_graph()))
    if build.options.weights_dtype is not None:
        build.graph = shrink(build.take_graph(), _STORED[build.options.weights_dtype])
    build.finished("shrink")
    text = graph_text(build.graph)
    build.texts["graph"] = lambda: text


_STORED: Mapping[str, DType] = MappingProxyType(
    {"f16": DType.F16, "bf16": DType.BF16, "i8": DType.I8, "i4": DType.I4}
)


def _stripes(build: Build) -> None:
    """Graph -> Graph that needs no more memory than the options allow."""
    if build.options.ram is None:
        return
    build.graph, fitted = fit(build.take_graph(), build.target, build.options.ram)
    text = graph_text(build.graph)
    build.texts |= {"graph": lambda: text, "stripes": lambda: f"{fitted}\n"}


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
    if build.panels is not None:
        build.panels.next_size()
    if build.shared is not None:
        build.program = build.shared.share(build.program)
    build.groups = build.graph = None


def _verify(build: Build) -> None:
    """Program -> the same Program, every kernel well formed and within its buffers."""
    assert build.program is not None
    verify_program(build.program)


def _memory(build: Build) -> None:
    """Program -> Program in the order that needs least memory, and its MemoryPlan, checked by an
    independent proof."""
    assert build.program is not None
    build.program, build.plan = plan_in_order(build.program)
    if build.options.regions:
        rooms = writable(build.options.regions)
        total = sum(room.size_bytes for room in rooms)
        remedies = [f"compute by stripes with --ram {total}"] * (build.options.ram is None)
        remedies += ["try --opt size"] * (not build.target.compact)
        build.plan = place_in_regions(build.program, build.plan, rooms, remedies)
    check_plan(build.program, build.plan)
    build.texts["loops"] = partial(program_text, build.program, build.plan)


def _codegen(whole: ObjectBuild) -> None:
    """Programs, MemoryPlans -> LLVM text -> object bytes, the weights not yet in them."""
    if whole.target.is_gpu:
        from aotc.cuda.build import build_object

        made = build_object(whole.entries, whole.constants, whole.builds[0].options)
        whole.device = made
        whole.texts |= made.texts
        return
    text = emit_module(whole.name, whole.entries, whole.target, whole.constants)
    whole.emitted = compile_module(text, whole.target)
    whole.texts["llvm"] = lambda: text
    whole.texts["asm"] = partial(assembly, text, whole.target)


def _artifact(whole: ObjectBuild) -> None:
    """Object bytes, weights, signatures -> what goes to disk: object, header, manifest."""
    target = whole.target
    provenance = Provenance(
        target=f"{target.name}/{target.cpu}",
        versions={"aotc": VERSION, "llvmlite": importlib.metadata.version("llvmlite")},
        weights_dtype=whole.builds[0].options.weights_dtype,
    )
    if whole.device is not None:
        from aotc.cuda.build import make_device_bundle

        first = whole.entries[: whole.device.sizes]
        whole.bundle = make_device_bundle(first, whole.constants, whole.device, provenance)
        return
    parts = whole.entries, whole.constants, whole.emitted
    whole.bundle = make_bundle(whole.name, *parts, provenance)


STAGES: tuple[tuple[str, Callable[[Build], None]], ...] = (
    ("frontend", _frontend),
    ("passes", _passes),
    ("stripes", _stripes),
    ("fuse", _fuse),
    ("lower", _lower),
    ("verify", _verify),
    ("memory", _memory),
)

OBJECT_STAGES: tuple[tuple[str, Callable[[ObjectBuild], None]], ...] = (
    ("codegen", _codegen),
    ("artifact", _artifact),
)

STOPS: tuple[str, ...] = (
    *("frontend", *(step.name for step in PIPELINE), "shrink"),
    *("stripes", "fuse", "lower"),
)
"""Where a compilation can stop and show what it has: after the import, any pass, the rounding of
weights that --weights-dtype asks for, stripes, fusion, lowering."""


def compile(
    model: Source,
    *,
    target: str = "x86_64",
    cpu: str | None = None,
    dims: Mapping[str, DimSize | list[int]] | None = None,
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
    ram: int | None = None,
    regions: Sequence[str] = (),
    arch: str | None = None,
    host: str = "x86_64",
    precision: str | None = None,
    weights_dtype: str | None = None,
    on_progress: Progress | None = None,
) -> CompiledModel:
    """Compiles an ONNX or TFLite file, a Graph that ``load_onnx`` or ``trace`` made, or a traced
    function, to native code. Of a traced function, ``dims`` gives the named sizes.

    ``target`` and ``cpu`` are as on the command line (x86_64 without a cpu means x86-64-v3: AVX2
    and FMA). ``dims`` binds symbolic dimensions (a pair of sizes is a range from which each run
    chooses, a list gives an entry for each size, over one set of weights; a call takes the one that
    its inputs fit), ``input_shapes`` whole inputs, ``bounds`` gives the most that a size known at
    run time only can be, by the value's name, ``outputs`` keeps only the named outputs, ``name`` is
    what the C symbols start with; a Graph already has its shapes and outputs. ``weights`` is
    ``object`` or ``file``. ``threads`` adds the entry that shares the work among a pool of threads.
    ``recipes`` is a file that tuning wrote. ``numerics`` is ``fma`` or ``no-fma``, ``abi`` a
    calling convention, ``opt`` is ``speed`` or ``size``. ``ram`` is how many bytes the workspace
    may have, ``regions`` are memories of the device as on the command line (``dtcm=64K``). With
    ``target="cuda"``, ``arch`` names architectures (``sm_80,sm_90``), ``host`` the machine, and
    ``precision`` what products of float32 are computed in: ``f32``, ``tf32``, ``f16``, ``bf16``
    (None: tf32, or the type of the model's products if that is shorter).
    ``weights_dtype`` is what float32 weights are rounded to and stored as: ``f16``, ``bf16``,
    ``i8`` or ``i4`` (None: float32). Raises a subclass of AotcError, with a remedy, for whatever is
    wrong with the model or the arguments.
    """
    options = _read_choices(
        target=target,
        cpu=cpu,
        dims=dims,
        input_shapes=input_shapes,
        bounds=bounds,
        outputs=outputs,
        name=name,
        weights=weights,
        threads=threads,
        recipes=recipes,
        numerics=numerics,
        abi=abi,
        opt=opt,
        ram=ram,
        regions=regions,
        arch=arch,
        host=host,
        precision=precision,
        weights_dtype=weights_dtype,
    )
    compiled = run_stages(model, options, on_progress=on_progress)
    warn_of_emulation([compiled.program], compiled.target)
    return compiled


def compile_together(
    models: Sequence[Source] | Mapping[str, Source],
    *,
    name: str,
    on_progress: Progress | None = None,
    **choices: Any,
) -> CompiledModels:
    """Compiles several models to one object, whose C symbols start with ``name`` and the name of
    the model: its file's or graph's, or the key in a mapping.

    Kernels that do the same, and constants of the same bytes, are in the object once, and one
    workspace as large as the largest is enough. ``choices`` are the other arguments of `compile`;
    a dimension, input, bound or output has to be one of at least one model. Raises as `compile`
    does.
    """
    options = _read_choices(name=name, **choices)
    compiled = run_together(named_models(models), options, on_progress=on_progress)
    programs = [model.program for model in compiled.values()]
    warn_of_emulation(programs, next(iter(compiled.values())).target)
    return compiled


def _read_choices(
    *,
    dims: Mapping[str, DimSize | list[int]] | None = None,
    input_shapes: Mapping[str, Sequence[Any] | None] | None = None,
    bounds: Mapping[str, int] | None = None,
    outputs: Sequence[str] | None = None,
    recipes: str | Path | None = None,
    regions: Sequence[str] = (),
    **others: Any,
) -> Options:
    """The arguments of `compile` as one value."""
    given = dims or {}
    return Options(
        dims={key: size for key, size in given.items() if not isinstance(size, list)},
        sizes={key: tuple(size) for key, size in given.items() if isinstance(size, list)},
        input_shapes={
            key: None if shape is None else tuple(shape)
            for key, shape in (input_shapes or {}).items()
        },
        bounds=dict(bounds or {}),
        outputs=None if outputs is None else tuple(outputs),
        recipes=None if recipes is None else Path(recipes),
        regions=read_regions(regions),
        **others,
    )


def run_stages(
    model: Source,
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
    builds = _builds(model, options, choose)
    del model
    whole = _run(builds, None, on_progress, on_stage)
    assert whole.bundle is not None
    return _callable(builds, whole, Code(whole.bundle, whole.target))


def plan_stages(
    model: Source,
    options: Options,
    *,
    on_progress: Progress | None = None,
    choose: ChooseContract | None = None,
) -> Build:
    """The compilation up to where kernels and memory are settled; arguments as for `run_stages`."""
    builds: list[Build] = []

    def observe(stage: str, build: Build) -> None:
        if stage == "memory":
            builds.append(build)
            raise Stopped

    with contextlib.suppress(Stopped):
        run_stages(model, options, on_progress=on_progress, on_stage=observe, choose=choose)
    return builds[0]


def run_together(
    models: Mapping[str, Source],
    options: Options,
    *,
    on_progress: Progress | None = None,
    on_stage: Observer | None = None,
) -> CompiledModels:
    """`compile_together` with its options as a value, of which ``name`` is that of the object."""
    assert options.name is not None
    if options.target == "cuda":
        raise UsageError(
            "an object for GPUs holds one model", remedy="compile each to an object of its own"
        )
    shared = Shared()
    parts: dict[str, list[Build]] = {}
    for part, (name, model) in zip(options_of_each(models, options), models.items(), strict=True):
        parts[name] = _builds(model, part, None, shared)
    builds = [build for part in parts.values() for build in part]
    whole = _run(builds, make_c_identifier(options.name), on_progress, on_stage)
    assert whole.bundle is not None
    code = Code(whole.bundle, whole.target)
    compiled = {name: _callable(part, whole, code) for name, part in parts.items()}
    return CompiledModels(code, compiled, _texts(builds, whole))


def _builds(
    model: Source,
    options: Options,
    choose: ChooseContract | None,
    shared: Shared | None = None,
) -> list[Build]:
    """The compilations of one model: one, or one for each of its sizes, for each target."""
    targets = targets_of(options)
    if choose is None:
        choose = choose_compact if targets[0].compact else choose_contract
        if options.recipes is not None:
            choose = read_book(options.recipes).choose
    if len(targets) > 1 or options.sizes:
        shared = shared or Shared()
    if not options.sizes:
        source, own = for_size(model, options, ())
        return [Build(own, target, source, choose=choose, shared=shared) for target in targets]
    if isinstance(model, Graph):
        raise UsageError("a Graph has its sizes already", remedy="give the file of the model")
    builds = []
    for target in targets:
        panels = SamePanels(choose)
        for sizes in options.each_size():
            source, own = for_size(model, options, sizes)
            build = Build(own, target, source, sizes=sizes, shared=shared, panels=panels)
            builds.append(replace(build, choose=panels.choose))
    return builds


def _run(
    builds: Sequence[Build],
    name: str | None,
    on_progress: Progress | None,
    on_stage: Observer | None,
) -> ObjectBuild:
    """All stages; the object is called ``name``, or as its first model is."""
    stopwatch = Stopwatch()
    total = len(builds) * len(STAGES) + len(OBJECT_STAGES)
    done = itertools.count()

    def begin(stage: str) -> AbstractContextManager[None]:
        if on_progress is not None:
            on_progress(stage, next(done), total)
        return stopwatch.time(stage)

    # the largest size of a model decides how its weights are packed (lower/sharing.py)
    for build in sorted(builds, key=lambda build: -math.prod(size for _, size in build.sizes)):
        build.stopwatch, build.on_stage = stopwatch, on_stage
        for title, stage in STAGES:
            with begin(title):
                stage(build)
            build.finished(title)
    entries = tuple(build.entry() for build in builds)
    expect_one_interface(entries)
    regions = builds[0].options.regions
    constants = lay_out_constants(*[entry.program for entry in entries], regions=regions)
    whole = ObjectBuild(tuple(builds), name or entries[0].signature.name, entries, constants)
    for title, finish in OBJECT_STAGES:
        with begin(title):
            finish(whole)
        builds[-1].finished(title)
    return whole


def _callable(builds: Sequence[Build], whole: ObjectBuild, code: Code) -> CompiledModel:
    """One model of the object, in all its sizes."""
    entries = {id(b): e for b, e in zip(whole.builds, whole.entries, strict=True)}
    texts = _texts(builds, whole)
    if whole.device is not None:
        from aotc.cuda.compiled import Devices, device_models

        first = whole.entries[: whole.device.sizes]
        ports = [build.ports for build in builds[: whole.device.sizes]]
        devices = Devices(whole.device, whole.constants)
        return device_models(code, first, texts, ports, devices)[0]
    variants = tuple(CompiledModel(code, entries[id(b)], texts, b.ports) for b in builds)
    for variant in variants:
        variant.variants = variants
    return variants[0]


def _texts(builds: Sequence[Build], whole: ObjectBuild) -> dict[str, Callable[[], str]]:
    """The texts of the builds' stages, one after the other, and those of the whole object."""
    found: dict[str, Callable[[], str]] = {}
    for stage in builds[0].texts:
        parts = [build.texts[stage] for build in builds]
        found[stage] = partial(_joined, parts)
    return found | whole.texts


def _joined(parts: Sequence[Callable[[], str]]) -> str:
    return "".join(part() for part in parts)
