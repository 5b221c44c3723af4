"""READ FIRST: an ONNX file and samples in, a quantised model and a report out; every step in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from aotc.errors import UsageError
from aotc.quantize.agreement import compare
from aotc.quantize.calibrate import Calibration, Progress, calibrate, tensor_bytes
from aotc.quantize.codes import CODE_TYPES, CodeType
from aotc.quantize.decisions import Rule
from aotc.quantize.equalize import equalize
from aotc.quantize.errors import Closeness
from aotc.quantize.net import Net
from aotc.quantize.placement import Placement, place, unit_name
from aotc.quantize.prepare import prepare
from aotc.quantize.ranges import METHODS
from aotc.quantize.report import LayerReport, OutputReport, Report
from aotc.quantize.runner import Runner, Scratch, run_in_groups
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
    equalize: bool = False
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
    path: Path, samples: Samples, options: QuantizeOptions, progress: Progress
) -> Quantized:
    """The model in ``path``, its layers on 8-bit weights and the codes that ``options`` ask for.

    ``samples`` calibrate it and judge the result. Raises a subclass of AotcError for whatever is
    wrong with the model, the samples or the options.
    """
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
        return _Quantizer(path, net, samples, options, progress, scratch).run(placement)


class _Quantizer:
    def __init__(
        self,
        path: Path,
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
        self._prepared = scratch.save(net.to_model())
        self._float = Runner(path, net.outputs)

    def run(self, placement: Placement) -> Quantized:
        calibration = calibrate(self._prepared, placement, self._samples, self._progress)
        if self._options.equalize and equalize(self._net, placement, calibration.magnitudes()):
            self._prepared = self._scratch.save(self._net.to_model())
            calibration = calibrate(self._prepared, placement, self._samples, self._progress)
        written = self._write(placement, calibration)
        outputs = self._judge(written)
        if self._options.max_drop is not None and _drop(outputs) > self._options.max_drop:
            written, outputs = self._search(placement, calibration)
        return Quantized(written.model, self._report(placement, written, outputs))

    def _write(
        self, placement: Placement, calibration: Calibration, kept: Sequence[str] = ()
    ) -> Written:
        if kept:
            names = (*self._options.keep_float, *kept)
            placement = place(self._net, names, self._options.products)
        options = self._options
        codings = calibration.codings(
            placement, options.method, options.code, options.percentile
        )
        means = calibration.means() if options.correct_bias else None
        return write(self._net, placement, codings, means)

    def _judge(self, written: Written) -> tuple[OutputReport, ...]:
        runner = Runner(self._scratch.save(written.model), self._net.outputs)
        return compare(
            runner,
            self._float,
            self._samples,
            self._options.rules,
            self._net.outputs,
            self._progress,
        )

    def _search(
        self, placement: Placement, calibration: Calibration
    ) -> tuple[Written, tuple[OutputReport, ...]]:
        """Keeps layers in float until the budget holds; UsageError when it never does."""
        options = self._options
        assert options.max_drop is not None
        codings = calibration.codings(
            placement, options.method, options.code, options.percentile
        )
        means = calibration.means() if options.correct_bias else None
        switched = add_switches(self._net, placement, codings, means)
        search = Search(
            switched,
            Runner(self._scratch.save(switched.model), self._net.outputs),
            self._samples,
            options.rules,
            self._net.outputs,
            self._progress,
        )
        ranking = search.rank()
        kept = search.fewest(ranking, options.max_drop)
        others = [damage.name for damage in ranking if damage.name not in kept]
        while others:
            written = self._write(placement, calibration, kept)
            outputs = self._judge(written)
            if _drop(outputs) <= options.max_drop:
                return written, outputs
            # the switched model only comes close to the real one
            more = max(1, len(kept) // 4)
            kept, others = kept + others[:more], others[more:]
        raise UsageError(
            f"more than {options.max_drop:.2%} of the decisions change as long as any layer is "
            "quantised",
            remedy="give more samples, --activations int16, or a larger --max-drop",
        )

    def _report(
        self, placement: Placement, written: Written, outputs: tuple[OutputReport, ...]
    ) -> Report:
        """Runs both models once more, for the results of their layers."""
        self._progress("measuring layers", 0, 0)
        units = [unit for unit in placement.units if is_choice(unit)]
        names = list(dict.fromkeys(unit.node.output[0] for unit in units))
        sizes = tensor_bytes(onnx.load(self._prepared), next(iter(self._samples)))
        closeness = {name: Closeness() for name in names}
        path = self._scratch.save(written.model)
        runs = zip(
            run_in_groups(self._prepared, names, self._samples, sizes),
            run_in_groups(path, names, self._samples, sizes),
            strict=True,
        )
        for (_, exact), (_, found) in runs:
            for name, array in found.items():
                closeness[name].add(array, exact[name])
        layers = tuple(
            LayerReport(
                unit.name,
                unit.node.op_type,
                unit.name not in written.units,
                closeness[unit.node.output[0]],
            )
            for unit in units
        )
        weights = (_weight_bytes(self._net.to_model()), _weight_bytes(written.model))
        return Report(layers, outputs, len(self._samples), weights)


def _expect_nodes(net: Net, names: Sequence[str]) -> None:
    known = {unit_name(node) for node in net.nodes}
    for name in names:
        if name not in known:
            raise UsageError(
                f"there is no node '{name}' to keep in float",
                remedy="use a name that the report lists",
            )


def _drop(outputs: Sequence[OutputReport]) -> float:
    total = sum(output.total for output in outputs)
    return sum(output.changed for output in outputs) / total if total else 0.0


def _weight_bytes(model: onnx.ModelProto) -> int:
    return sum(len(tensor.raw_data) or tensor.ByteSize() for tensor in model.graph.initializer)
