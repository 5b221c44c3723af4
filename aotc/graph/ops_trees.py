"""Decision trees as one primitive: a walk of fixed length through tables of nodes, then a sum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aotc.graph.ir import Op
from aotc.graph.rules import expect_known, require, result_type
from aotc.graph.types import DType, TensorType

TREE_FUNCTIONS = frozenset({"sum", "min", "max"})


@dataclass(frozen=True)
class Trees(Op):
    """What an ensemble of decision trees says about each row of ``x``.

    Operands: x [N, F] (f32 or f64), then tables of M nodes: feature (i32[M]), threshold (type of x,
    [M]), child (i32[M]), values (type of x, [M, W]); for T trees: roots (i32[T]), column (i32[T]);
    last and optional, nan_left (bool[M]).

    A walk starts at a root and takes ``depth`` steps, each from a node to its child: ``child``
    itself if ``x[feature] <= threshold`` (or x is NaN and ``nan_left`` holds), else ``child + 1``.
    A leaf is a node that leads back to itself: a NaN as threshold and ``child`` one less than the
    node. The row of ``values`` at the end goes to columns column .. column+W-1 of the result [N,
    columns]. ``fn`` (sum min max, NaN wins) joins what the trees give, one after the other, from 0,
    inf or -inf on. Whatever an index says, it is clamped to its table.
    """

    fn: str
    depth: int
    columns: int

    def infer(self, *operands: TensorType) -> TensorType:
        require(len(operands) in (7, 8), f"takes 7 or 8 operands, got {len(operands)}")
        x, feature, threshold, child, values, roots, column = operands[:7]
        expect_known(self.fn, TREE_FUNCTIONS)
        require(self.depth >= 0, f"a walk of {self.depth} steps")
        require(x.dtype in (DType.F32, DType.F64), f"trees need f32 or f64, got {x}")
        require(x.rank == 2 and x.dims[1] > 0, f"trees need rows of features, got {x}")
        require(values.rank == 2 and values.dims[0] > 0, f"{values} holds no values of nodes")
        nodes, width = values.dims
        require(1 <= width <= self.columns, f"{width} values for {self.columns} columns")
        require(values.dtype is x.dtype, f"{values} for rows of {x}")
        whole = TensorType(DType.I32, (nodes,))
        require(feature == whole and child == whole, f"{feature} and {child} for {nodes} nodes")
        require(threshold == TensorType(x.dtype, (nodes,)), f"{threshold} for {nodes} nodes")
        require(roots.dtype is DType.I32 and roots.rank == 1, f"roots are {roots}")
        require(column == roots, f"the columns are {column} for roots {roots}")
        flags = TensorType(DType.BOOL, (nodes,))
        require(len(operands) == 7 or operands[7] == flags, f"nan_left is {operands[-1]}")
        return result_type(x.dtype, (x.shape[0], self.columns))

    def evaluate(self, *operands: np.ndarray) -> np.ndarray:
        x, feature, threshold, child, values, roots, column = operands[:7]
        nodes, width = values.shape
        feature = np.clip(feature, 0, x.shape[1] - 1)
        column = np.clip(column, 0, self.columns - width)
        start = {"sum": 0.0, "min": np.inf, "max": -np.inf}[self.fn]
        result = np.full((x.shape[0], self.columns), start, x.dtype)
        join = {"sum": np.add, "min": np.minimum, "max": np.maximum}[self.fn]
        rows = np.arange(x.shape[0])
        child = child.astype(np.int64)
        for root, first in zip(np.clip(roots, 0, nodes - 1), column, strict=True):
            at = np.full(x.shape[0], root, np.int64)
            for _ in range(self.depth):
                value = x[rows, feature[at]]
                left = value <= threshold[at]
                if len(operands) == 8:
                    left |= np.isnan(value) & operands[7][at]
                after = np.clip(child[at] + ~left, 0, nodes - 1)
                if np.array_equal(after, at):
                    break
                at = after
            part = result[:, first : first + width]
            with np.errstate(all="ignore"):
                part[...] = join(part, values[at])
        return result
