"""What a rule of an importer knows of the operator it lowers: the types of its results."""

from __future__ import annotations

from dataclasses import dataclass

from aotc.graph.types import DType, TensorType


@dataclass(frozen=True)
class Use:
    """One use of an operator: the types of its results, None for those that are no tensors."""

    results: tuple[TensorType | None, ...]

    @property
    def type(self) -> TensorType:
        """The type of the first result."""
        found = self.results[0]
        assert found is not None
        return found

    @property
    def dims(self) -> tuple[int, ...]:
        """The shape of the first result."""
        return self.type.dims

    @property
    def dtype(self) -> DType:
        """The element type that the first result is computed in."""
        return self.type.dtype.arithmetic if self.type.dtype.is_float else self.type.dtype
