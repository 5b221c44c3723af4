"""Constants as kernels want them: views of constant storage or matrices in, arrays out."""

from __future__ import annotations

import numpy as np

from aotc.lower.short import numbers_of
from aotc.lower.views import View
from aotc.schedule.recipe import ContractRecipe


def constant_array(view: View) -> np.ndarray:
    """The numbers that a view of constant storage shows."""
    data = view.storage.data
    assert data is not None
    flat = data.reshape(-1).view(view.dtype.numpy)
    strides = [stride * view.dtype.size_bytes for stride in view.strides]
    if view.value is not None:
        flat = numbers_of(flat, view.value)
        strides = [stride * view.value.size_bytes for stride in view.strides]
    return np.lib.stride_tricks.as_strided(
        flat[view.offset :], view.shape, strides, writeable=False
    )


def in_panels(matrix: np.ndarray, recipe: ContractRecipe) -> np.ndarray:
    """[batch, depth, channels, elements of a cell] as [batch][panel][depth][lanes of the panel],
    zero beyond the last channel."""
    batch, depth, channels, cell = matrix.shape
    width = recipe.stored[-1].stop * recipe.lanes
    packed = np.zeros((batch, depth * width, cell), matrix.dtype)
    for panel in recipe.stored:
        lanes = panel.size * recipe.lanes
        for i in range(panel.count):
            first = panel.start * recipe.lanes + i * lanes
            live = min(lanes, channels - first)
            block = packed[:, first * depth : (first + lanes) * depth]
            block = block.reshape(batch, depth, lanes, -1)
            block[:, :, :live] = matrix[:, :, first : first + live]
    return packed.reshape(-1)
