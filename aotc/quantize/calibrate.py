"""A float model, its placement and samples in; a histogram for each group of tensors out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import shape_inference

from aotc.quantize.codes import WIDE, CodeType, Coding, coding_for
from aotc.quantize.observe import Histogram
from aotc.quantize.placement import Placement
from aotc.quantize.ranges import choose_range
from aotc.quantize.runner import Probe
from aotc.quantize.samples import Inputs

Progress = Callable[[str, int, int], None]
"""Called as (what is being done, how much of it is done, how much there is)."""


@dataclass(frozen=True)
class Calibration:
    """What the samples say: a histogram for each tensor that may become codes."""

    histograms: Mapping[str, Histogram]

    def codings(
        self,
        placement: Placement,
        method: str,
        code: CodeType,
        percentile: float,
        wide: Collection[str] = (),
    ) -> dict[str, Coding]:
        """A coding for each group of ``placement``, of 16 bits for what the units called ``wide``
        read."""
        groups: dict[str, Histogram] = {}
        for name, group in placement.groups.items():
            groups.setdefault(group, Histogram()).merge(self.histograms[name])
        widened = {
            placement.groups[name]
            for unit in placement.units
            if unit.name in wide
            for name in unit.reads
        }
        found = {}
        for group, histogram in groups.items():
            own = WIDE if group in widened else code
            found[group] = coding_for(*choose_range(histogram, method, own, percentile), own)
        return found

    def means(self) -> dict[str, np.ndarray]:
        """The mean of each channel of the data of each layer."""
        found = {name: histogram.means for name, histogram in self.histograms.items()}
        return {name: means for name, means in found.items() if means is not None}

    def magnitudes(self) -> dict[str, np.ndarray]:
        """The largest magnitude of each channel of the data of each layer."""
        found = {name: histogram.magnitudes for name, histogram in self.histograms.items()}
        return {name: largest for name, largest in found.items() if largest is not None}


def calibrate(
    probe: Probe, placement: Placement, samples: Iterable[Inputs], progress: Progress
) -> Calibration:
    """Watches the tensors of ``placement``, which ``probe`` computes among others."""
    axes = {unit.layer.data: unit.layer.data_axis for unit in placement.units if unit.layer}
    histograms = {name: Histogram(axes.get(name)) for name in placement.tensors}
    for number, values in enumerate(probe.run(samples)):
        progress("calibrating", number, 0)
        for name, array in values.items():
            if name in histograms:
                histograms[name].add(array, name)
    return Calibration(histograms)


def tensor_bytes(model: onnx.ModelProto, inputs: Inputs) -> dict[str, int]:
    """The size of each float32 tensor on these inputs, where it follows from theirs."""
    graph = model.graph
    for info in graph.input:
        if info.name in inputs:
            dims = [onnx.TensorShapeProto.Dimension(dim_value=n) for n in inputs[info.name].shape]
            info.type.tensor_type.shape.ClearField("dim")
            info.type.tensor_type.shape.dim.extend(dims)
    for info in graph.output:
        info.type.tensor_type.ClearField("shape")
    try:
        graph = shape_inference.infer_shapes(model, data_prop=True).graph
    except (shape_inference.InferenceError, RuntimeError, ValueError):
        return {}
    shapes = {info.name: info.type.tensor_type.shape.dim for info in graph.value_info}
    return {
        name: 4 * int(np.prod([float(dim.dim_value) for dim in dims], initial=1))
        for name, dims in shapes.items()
    }
