"""READ FIRST: an ONNX file and samples in, a quantised model and a report out; every step in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from aotc.errors import UsageError
from aotc.quantize.agreement import compare
from aotc.quantize.calibrate import Calibration, Progress, calibrate, tensor_bytes
from aotc.quantize.codes import CODE_TYPES, CodeType, Coding
from aotc.quantize.decisions import Rule
from aotc.quantize.equalize import equalize
from aotc.quantize.errors import Closeness
from aotc.quantize.net import Net
from aotc.quantize.placement import Placement, Unit, place, unit_name
from aotc.quantize.prepare import prepare
from aotc.quantize.ranges import METHODS
from aotc.quantize.report import LayerReport, OutputReport, Report
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
    change on the samples: layers stay in float until that holds."""

    activations: str = "uint8"
    method: str = "mse"
    percentile: float = 99.99
    correct_bias: bool = True
    equalize: bool = True
    products: bool = False
    keep_float: tuple[str, ...] = ()
    max_drop: float | None = None
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
    net = prepare(path, options.code.opset)
    _expect_nodes(net, options.keep_float)
    placement = place(net, options.keep_float, options.products)
    if not any(unit.layer for unit in placement.units):
        raise UsageError(
            "there is nothing to quantise: no Conv, Gemm or MatMul has constant float32 weights",
            remedy="give a float32 model; --keep-float may name too many nodes",
        )
    with Scratch() as scratch:
        return _Quantizer(exact, net, samples, options, progress, scratch).run(placement)


class _Quantizer:
    def __init__(
        self,
        exact: Runner,
        net: Net,
        samples: Samples,
        options: QuantizeOptions,
        progress: Progress,
        scratch: Scratch,
    ) -> None:
        self._net = net
        self._samples = samples
        self._options = options
        self._progress = progress
        self._scratch = scratch
        self._float = exact

    def run(self, placement: Placement) -> Quantized:
        units = [unit for unit in placement.units if is_choice(unit)]
        results = list(dict.fromkeys(unit.node.output[0] for unit in units))
        names = list(dict.fromkeys([*placement.tensors, *results]))
        sizes = tensor_bytes(self._net.to_model(), next(iter(self._samples)))
        groups = group_tensors(names, sizes)
        probe, calibration = self._calibrate(placement, groups)
        if self._options.equalize and equalize(self._net, placement, calibration.magnitudes()):
            probe, calibration = self._calibrate(placement, groups)
        trial = self._try(self._write(placement, calibration))
        limit = self._options.max_drop
        if limit is not None and trial.drop > limit:
            trial = self._search(placement, calibration, limit)
        wanted = [[name for name in group if name in results] for group in groups]
        found = Probe(trial.path, wanted)
        return Quantized(trial.written.model, self._report(units, probe, found, trial))

    def _calibrate(
        self, placement: Placement, groups: list[list[str]]
    ) -> tuple[Probe, Calibration]:
        probe = Probe(self._scratch.save(self._net.to_model()), groups)
        return probe, calibrate(probe, placement, self._samples, self._progress)

    def _write(
        self, placement: Placement, calibration: Calibration, kept: Sequence[str] = ()
    ) -> Written:
        if kept:
            names = (*self._options.keep_float, *kept)
            placement = place(self._net, names, self._options.products)
        codings, means = self._codings(placement, calibration)
        return write(self._net, placement, codings, means)

    def _codings(
        self, placement: Placement, calibration: Calibration
    ) -> tuple[dict[str, Coding], dict[str, np.ndarray]]:
        """The coding of each group of tensors, and the means of channels for bias correction."""
        options = self._options
        codings = calibration.codings(
            placement, options.method, options.code, options.percentile
        )
        return codings, calibration.means() if options.correct_bias else {}

    def _try(self, written: Written) -> _Trial:
        """Judges a quantised model by its outputs."""
        path = self._scratch.save(written.model)
        outputs = compare(
            Runner(path, self._net.outputs),
            self._float,
            self._samples,
            self._options.rules,
            self._net.outputs,
            self._progress,
        )
        return _Trial(written, path, outputs)

    def _search(self, placement: Placement, calibration: Calibration, limit: float) -> _Trial:
        """Keeps layers in float until the budget holds; UsageError when it never does."""
        codings, means = self._codings(placement, calibration)
        switched = add_switches(self._net, placement, codings, means)
        search = Search(
            switched,
            Runner(self._scratch.save(switched.model), self._net.outputs),
            self._samples,
            self._options.rules,
            self._net.outputs,
            self._progress,
        )
        ranking = search.rank()
        kept = search.fewest(ranking, limit)
        others = [damage.name for damage in ranking if damage.name not in kept]
        while others:
            trial = self._try(self._write(placement, calibration, kept))
            if trial.drop <= limit:
                return trial
            # the switched model only comes close to the real one
            more = max(1, len(kept) // 4)
            kept, others = kept + others[:more], others[more:]
        raise UsageError(
            f"more than {limit:.2%} of the decisions change as long as any layer is quantised",
            remedy="give more samples, --activations int16, or a larger --max-drop",
        )

    def _report(
        self, units: Sequence[Unit], exact: Probe, found: Probe, trial: _Trial
    ) -> Report:
        """Runs both models once more, for the results of their layers."""
        self._progress("measuring layers", 0, 0)
        closeness = {unit.node.output[0]: Closeness() for unit in units}
        runs = zip(exact.run(self._samples), found.run(self._samples), strict=True)
        for expected, values in runs:
            for name, array in values.items():
                closeness[name].add(array, expected[name])
        layers = tuple(
            LayerReport(
                unit.name,
                unit.node.op_type,
                unit.name not in trial.written.units,
                closeness[unit.node.output[0]],
            )
            for unit in units
        )
        weights = (_weight_bytes(self._net.to_model()), _weight_bytes(trial.written.model))
        return Report(layers, trial.outputs, len(self._samples), weights)


@dataclass(frozen=True)
class _Trial:
    """A quantised model, where it is, and how its outputs compare with the float model's."""

    written: Written
    path: Path
    outputs: tuple[OutputReport, ...]

    @property
    def drop(self) -> float:
        """The share of decisions that changed."""
        total = sum(output.total for output in self.outputs)
        return sum(output.changed for output in self.outputs) / total if total else 0.0


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
