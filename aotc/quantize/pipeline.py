"""READ FIRST: an ONNX file and samples in, a quantised model and a report out; every step in order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from aotc.errors import UsageError
from aotc.quantize.agreement import compare
from aotc.quantize.calibrate import Calibration, Progress, calibrate, tensor_bytes
from aotc.quantize.codes import CODE_TYPES, WIDE, CodeType, Coding
from aotc.quantize.decisions import Rule, total_of
from aotc.quantize.equalize import equalize
from aotc.quantize.errors import Closeness
from aotc.quantize.net import Net
from aotc.quantize.placement import Placement, Unit, place, unit_name
from aotc.quantize.prepare import prepare
from aotc.quantize.ranges import METHODS
from aotc.quantize.report import FLOAT, LayerReport, OutputReport, Report
from aotc.quantize.runner import Probe, Runner, Scratch, group_tensors
from aotc.quantize.samples import Samples
from aotc.quantize.search import Search
from aotc.quantize.switches import add_switches, is_choice
from aotc.quantize.write import Written, write


@dataclass(frozen=True)
class QuantizeOptions:
    """How to quantise. ``activations`` names a code type, ``method`` how ranges are chosen,
    ``percentile`` how many of 100 values the method of that name covers. ``correct_bias`` makes up
    for the mean error of rounded weights, ``equalize`` balances the channels in front of layers
    first, ``products`` quantises products of two computed matrices too, ``keep_float`` names nodes
    to leave alone. ``max_drop`` is the share of decisions (by ``rules``, for each output) that may
    change: the data of the most sensitive layers become int16 if ``widen``, and layers stay in
    float, until that holds on the samples and is to be expected of others like them."""

    activations: str = "uint8"
    method: str = "mse"
    percentile: float = 99.99
    correct_bias: bool = True
    equalize: bool = True
    products: bool = False
    keep_float: tuple[str, ...] = ()
    max_drop: float | None = None
    widen: bool = True
    rules: Mapping[str, Rule] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for given, known, flag in (
            (self.activations, tuple(CODE_TYPES), "--activations"),
            (self.method, METHODS, "--method"),
        ):
            if given not in known:
                raise UsageError(f"there is no '{given}'", remedy=f"use {flag} {'|'.join(known)}")
        if not 50 < self.percentile <= 100:
            raise UsageError(
                f"{self.percentile} is not a percentile to keep", remedy="use --percentile 99.99"
            )
        if self.max_drop is not None and not 0 <= self.max_drop <= 1:
            raise UsageError(
                f"{self.max_drop} is not a share of the decisions", remedy="use --max-drop 0.5%"
            )

    @property
    def code(self) -> CodeType:
        """The type of the activations' codes."""
        return CODE_TYPES[self.activations]


@dataclass(frozen=True)
class Quantized:
    """A QDQ model and what is known about it."""

    model: onnx.ModelProto
    report: Report


def quantize_model(
    path: Path,
    samples: Samples,
    options: QuantizeOptions | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Quantized:
    """The model in ``path``, its layers on 8-bit weights and the codes that ``options`` ask for.

    ``samples`` calibrate it and judge the result. Raises a subclass of AotcError for whatever is
    wrong with the model, the samples or the options.
    """
    options = options or QuantizeOptions()
    progress("compiling the float model", 0, 0)
    exact = Runner(path)
    exact(next(iter(samples)))  # whatever is wrong with the model has its message there
    progress("preparing", 0, 0)
    with Scratch() as scratch:
        return _Quantizer(path, exact, samples, options, progress, scratch).run()


@dataclass(frozen=True)
class _Prepared:
    """The model as the quantiser sees it, and what the samples say about its tensors."""

    net: Net
    placement: Placement
    groups: list[list[str]]
    probe: Probe
    calibration: Calibration


class _Quantizer:
    def __init__(
        self,
        path: Path,
        exact: Runner,
        samples: Samples,
        options: QuantizeOptions,
        progress: Progress,
        scratch: Scratch,
    ) -> None:
        self._path = path
        self._float = exact
        self._samples = samples
        self._options = options
        self._progress = progress
        self._scratch = scratch

    def run(self) -> Quantized:
        options = self._options
        prepared = self._prepare(options.code.opset)
        trial = self._try(prepared)
        limit = options.max_drop
        if limit is not None and not trial.holds(limit):
            wide = options.widen and not options.code.symmetric
            if wide and prepared.net.opset < WIDE.opset:
                prepared = self._prepare(WIDE.opset)
            trial = self._refine(prepared, limit, wide)
        units = [unit for unit in prepared.placement.units if is_choice(unit)]
        results = {unit.node.output[0] for unit in units}
        wanted = [[name for name in group if name in results] for group in prepared.groups]
        found = Probe(trial.path, wanted)
        return Quantized(trial.written.model, self._report(prepared, units, found, trial))

    def _prepare(self, opset: int) -> _Prepared:
        """Simplifies the model, watches its tensors on the samples, and equalises it."""
        options = self._options
        self._progress("preparing", 0, 0)
        net = prepare(self._path, opset)
        _expect_nodes(net, options.keep_float)
        placement = place(net, options.keep_float, options.products)
        if not any(unit.layer for unit in placement.units):
            raise UsageError(
                "there is nothing to quantise: no Conv, Gemm or MatMul has constant float32 "
                "weights",
                remedy="give a float32 model; --keep-float may name too many nodes",
            )
        results = [unit.node.output[0] for unit in placement.units if is_choice(unit)]
        names = list(dict.fromkeys([*placement.tensors, *results]))
        groups = group_tensors(names, tensor_bytes(net.to_model(), next(iter(self._samples))))

        def watch() -> _Prepared:
            probe = Probe(self._scratch.save(net.to_model()), groups)
            found = calibrate(probe, placement, self._samples, self._progress)
            return _Prepared(net, placement, groups, probe, found)

        prepared = watch()
        balanced = options.equalize and equalize(
            net, placement, prepared.calibration.magnitudes()
        )
        return watch() if balanced else prepared

    def _placement(self, prepared: _Prepared, kept: Sequence[str]) -> Placement:
        """Where the codes are when these layers stay in float."""
        options = self._options
        if not kept:
            return prepared.placement
        return place(prepared.net, (*options.keep_float, *kept), options.products)

    def _codings(
        self, prepared: _Prepared, placement: Placement, wide: Sequence[str]
    ) -> dict[str, Coding]:
        options = self._options
        return prepared.calibration.codings(
            placement, options.method, options.code, options.percentile, frozenset(wide)
        )

    def _means(self, prepared: _Prepared) -> dict[str, np.ndarray]:
        """The means of channels for bias correction, if it is wanted."""
        return prepared.calibration.means() if self._options.correct_bias else {}

    def _try(
        self, prepared: _Prepared, wide: Sequence[str] = (), kept: Sequence[str] = ()
    ) -> _Trial:
        """Writes the model with the data of the layers ``wide`` in 16 bits, and ``kept`` in float,
        and judges it by its outputs."""
        placement = self._placement(prepared, kept)
        codings = self._codings(prepared, placement, wide)
        written = write(prepared.net, placement, codings, self._means(prepared))
        path = self._scratch.save(written.model)
        outputs = compare(
            Runner(path, prepared.net.outputs),
            self._float,
            self._samples,
            self._options.rules,
            prepared.net.outputs,
            self._progress,
        )
        return _Trial(written, path, outputs)

    def _refine(self, prepared: _Prepared, limit: float, widen: bool) -> _Trial:
        """Gives the layers that need it more bits: finds which have to stay in float even if all
        others read 16 bits, and then for which of these 8 are enough. UsageError when the budget
        never holds."""
        every = tuple(unit.name for unit in prepared.placement.units) if widen else ()
        kept: tuple[str, ...] = ()
        best = self._try(prepared, every) if widen else None
        if best is None or not best.holds(limit):
            kept, best = self._settle(
                self._search(prepared, every, None, ()),
                limit,
                lambda names: self._try(prepared, every, names),
            )
        if best is None:
            raise UsageError(
                f"more than {limit:.2%} of the decisions change as long as any layer is quantised",
                remedy="give more samples, --activations int16, or a larger --max-drop",
            )
        if widen:
            _, narrow = self._settle(
                self._search(prepared, (), every, kept),
                limit,
                lambda names: self._try(prepared, names, kept),
            )
            best = narrow or best
        return best

    def _search(
        self,
        prepared: _Prepared,
        wide: Sequence[str],
        finer: Sequence[str] | None,
        kept: Sequence[str],
    ) -> Search:
        """Which layers can read what ``wide`` says, when the others read what ``finer`` says, or
        are in float if None; ``kept`` stay in float."""
        placement = self._placement(prepared, kept)
        switched = add_switches(
            prepared.net,
            placement,
            self._codings(prepared, placement, wide),
            self._means(prepared),
            None if finer is None else self._codings(prepared, placement, finer),
        )
        return Search(
            switched,
            Runner(self._scratch.save(switched.model), prepared.net.outputs),
            self._float,
            self._samples,
            self._options.rules,
            prepared.net.outputs,
            self._progress,
        )

    def _settle(
        self, search: Search, limit: float, attempt: Callable[[Sequence[str]], _Trial]
    ) -> tuple[tuple[str, ...], _Trial | None]:
        """The fewest layers that ``search`` finds, and some more until the model itself holds the
        budget, for the switched one only comes close to it; None when it never does."""
        ranking = search.rank()
        chosen = search.fewest(ranking, limit)
        others = [damage.name for damage in ranking if damage.name not in chosen]
        while others:
            trial = attempt(chosen)
            if trial.holds(limit):
                return tuple(chosen), trial
            more = max(1, len(chosen) // 4)
            chosen, others = chosen + others[:more], others[more:]
        return (), None

    def _report(
        self, prepared: _Prepared, units: Sequence[Unit], found: Probe, trial: _Trial
    ) -> Report:
        """Runs both models once more, for the results of their layers."""
        self._progress("measuring layers", 0, 0)
        closeness = {unit.node.output[0]: Closeness() for unit in units}
        runs = zip(prepared.probe.run(self._samples), found.run(self._samples), strict=True)
        for expected, values in runs:
            for name, array in values.items():
                closeness[name].add(array, expected[name])
        layers = tuple(
            LayerReport(
                unit.name,
                unit.node.op_type,
                trial.written.units.get(unit.name, FLOAT),
                closeness[unit.node.output[0]],
            )
            for unit in units
        )
        weights = (_weight_bytes(prepared.net.to_model()), _weight_bytes(trial.written.model))
        return Report(layers, trial.outputs, len(self._samples), weights)


@dataclass(frozen=True)
class _Trial:
    """A quantised model, where it is, and how its outputs compare with the float model's."""

    written: Written
    path: Path
    outputs: tuple[OutputReport, ...]

    def holds(self, budget: float) -> bool:
        """Whether at most this share of the decisions changed, or is to be expected to."""
        return total_of(output.count for output in self.outputs).holds(budget)


def _expect_nodes(net: Net, names: Sequence[str]) -> None:
    known = {unit_name(node) for node in net.nodes}
    for name in names:
        if name not in known:
            raise UsageError(
                f"there is no node '{name}' to keep in float",
                remedy="use a name that the report lists",
            )


def _weight_bytes(model: onnx.ModelProto) -> int:
    return sum(len(tensor.raw_data) or tensor.ByteSize() for tensor in model.graph.initializer)
