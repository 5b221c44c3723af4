"""3x3 convolutions by Winograd's algorithm: a CONTRACT group goes in, kernel calls come out.

An input tile d of (m+2)^2 elements and a filter g give m^2 results A^T ((G g G^T) * (B^T d B)) A,
where * multiplies position by position; summed over the input channels that is one matrix product
for each of the (m+2)^2 positions. The matrices are those of Toom and Cook for the points 0, +-1 and
infinity (m = 2) or 0, +-3/4, +-3/2 and infinity (m = 4); S. Winograd, "Arithmetic Complexity of
Computations", 1980. All coefficients of A and B are exact in f32, and of the points tried +-3/4 and
+-3/2 lose least: the error on normal data is about twice that of the direct sum, against four times
(at worst seven) with the usual +-1 and +-2.

The work goes over strips of tile rows: transform the input, multiply, transform back through the
epilogue; what a strip needs in between stays in the second-level cache. Each step of a strip is a
call of its own, so that threads can share it; strips of one height share their kernels. Strips,
tiles of the matrix product and vector width leave the order of operations, and so the bytes, as
they are. As in every algorithm of this kind, one infinity or NaN in a tile's input spoils the whole
tile, not just the results that the direct sum would make of it.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from aotc.fuse.groups import Group
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import Alloc, Bin, Buffer, Expr, Fma, Kind, Lit, Load, Space, Stmt, Store
from aotc.lower.context import Context
from aotc.lower.contract import lower_contract, pack
from aotc.lower.contract_kernel import ContractWriter, Operands
from aotc.lower.packed import constant_array
from aotc.lower.pointwise import evaluate_nodes, weight_of
from aotc.lower.scope import Access, KernelScope, loop, rest_lanes, vector
from aotc.lower.views import View
from aotc.schedule.cpu import ContractSizes
from aotc.schedule.recipe import split_evenly
from aotc.schedule.winograd import LARGE, SMALL, positions, strip_rows, winograd_tile
from aotc.target import Target

#: The finite points besides 0, each with both signs.
POINTS: Mapping[int, tuple[float, ...]] = MappingProxyType({SMALL: (1.0,), LARGE: (0.75, 1.5)})
#: Elements between the positions of the scratch beyond their size: at powers of two, the same
#: channel of all positions would fall into one set of the first-level cache.
SKEW = 16
#: Output channels whose filters are transformed together.
FILTERS_AT_ONCE = 16


def lower_contraction(context: Context, group: Group) -> None:
    """Emits the kernels of a CONTRACT group by the algorithm that suits its shape."""
    tile = _tile_for(context, group)
    if tile:
        _Writer(context, group, tile).emit()
    else:
        lower_contract(context, group)


def _tile_for(context: Context, group: Group) -> int:
    """The tile size for the group's convolution; 0 for everything else."""
    if group.result.type.dtype is not DType.F32:
        return 0
    tile = convolution_tile(group.anchor, context.target)
    return tile if tile and context.view(group.anchor.inputs[1]).is_constant else 0


def convolution_tile(node: Node, target: Target) -> int:
    """The tile size by which ``node`` may be convolved; 0 if directly, or if it is something
    else."""
    op = node.op
    if not isinstance(op, ops.Conv) or not op.channels_last or op.groups != 1:
        return 0
    data, weights = node.inputs
    if target.compact or target.is_gpu or isinstance(weights.op, ops.Widen):
        return 0  # three kernels instead of one, scratch memory, larger weights
    if op.strides != (1, 1) or op.dilation != (1, 1) or weights.shape[2:] != (3, 3):
        return 0
    if node.type.dtype is not DType.F32:
        return 0
    _, rows, columns, outputs = node.shape
    return winograd_tile(rows, columns, data.shape[3], outputs)


def filter_matrix(tile: int) -> np.ndarray:
    """G [tile + 2, 3] in float64: row p is (1, p, p^2) / prod(p - q over the other finite q)."""
    finite = [0.0, *(sign * p for p in POINTS[tile] for sign in (1, -1))]
    rows = [[p**k / math.prod(p - q for q in finite if q != p) for k in range(3)] for p in finite]
    return np.array([*rows, [0.0, 0.0, 1.0]])


def transform_filters(weights: np.ndarray, tile: int) -> np.ndarray:
    """Filters [O, I, 3, 3] as G g G^T [positions, I, O] f32, computed in float64, rounded
    once; a few output channels at a time, because the float64 intermediates are large."""
    g = filter_matrix(tile)
    outputs, inputs = weights.shape[:2]
    result = np.empty((tile + 2, tile + 2, inputs, outputs), np.float32)
    for first in range(0, outputs, FILTERS_AT_ONCE):
        some = slice(first, first + FILTERS_AT_ONCE)
        columns = np.tensordot(g, weights[some].astype(np.float64), axes=(1, 2))  # [p, O, I, 3]
        both = np.tensordot(columns, g, axes=(3, 1))  # [p, O, I, q]
        result[..., some] = both.transpose(0, 3, 2, 1)
    return result.reshape(positions(tile), inputs, outputs)


def _number(value: float) -> Lit:
    return Lit(value, DType.F32)


def _add(a: Expr, b: Expr) -> Expr:
    return Bin("add", a, b)


def _sub(a: Expr, b: Expr) -> Expr:
    return Bin("sub", a, b)


def _scaled(factor: float, x: Expr, plus: Expr) -> Expr:
    return Fma(_number(factor), x, plus)


def input_transform(d: Sequence[Expr]) -> list[Expr]:
    """B^T d: row p holds the coefficients of prod(x - q over the finite points q other than p)."""
    if len(d) == SMALL + 2:
        return [_sub(d[2], d[0]), _add(d[1], d[2]), _sub(d[2], d[1]), _sub(d[3], d[1])]
    a, b = POINTS[LARGE]
    both, product = -(a * a + b * b), a * a * b * b
    result = [_scaled(product, d[0], _scaled(both, d[2], d[4]))]
    for point, other in ((a, b), (b, a)):
        even = _scaled(-other * other, d[2], d[4])
        odd = _scaled(-other * other, d[1], d[3])
        result += [_scaled(point, odd, even), _scaled(-point, odd, even)]
    return [*result, _scaled(product, d[1], _scaled(both, d[3], d[5]))]


def output_transform(m: Sequence[Expr]) -> list[Expr]:
    """A^T m: row k holds the k-th powers of the points."""
    if len(m) == SMALL + 2:
        return [_add(_add(m[0], m[1]), m[2]), _add(_sub(m[1], m[2]), m[3])]
    a, b = POINTS[LARGE]
    even_a, odd_a = _add(m[1], m[2]), _sub(m[1], m[2])
    even_b, odd_b = _add(m[3], m[4]), _sub(m[3], m[4])
    return [
        _add(_add(m[0], even_a), even_b),
        _scaled(a, odd_a, Bin("mul", _number(b), odd_b)),
        _scaled(a**2, even_a, Bin("mul", _number(b**2), even_b)),
        _scaled(a**3, odd_a, _scaled(b**3, odd_b, m[5])),
    ]


@dataclass(frozen=True)
class _Span:
    """``count`` neighbouring tiles from number ``start``; ``valid`` results of each exist."""

    start: int
    count: int
    valid: int


@dataclass(frozen=True)
class _Strips:
    """``count`` strips of tile rows, the first from row ``start``; ``rows`` are those of each."""

    start: int
    count: int
    rows: tuple[_Span, ...]

    @property
    def height(self) -> int:
        return sum(span.count for span in self.rows)


@dataclass(frozen=True)
class _Tile:
    """Number ``at`` in its strip, first result at (y, x), ``rows`` by ``columns`` of them exist."""

    at: Expr
    y: Expr
    x: Expr
    rows: int
    columns: int


@dataclass(frozen=True)
class _Lanes:
    """``active`` channels from ``first`` in a vector of ``width`` lanes."""

    first: Expr
    active: int
    width: int

    def sweep(self, body: Callable[[Expr], list[Stmt]]) -> Stmt:
        return vector("v", self.active, self.width, body)

    def cell(self, number: Expr, v: Expr) -> Expr:
        """Lane ``v`` of vector ``number`` in a private buffer."""
        return index.add(index.mul(number, self.width), v)


@dataclass(frozen=True)
class _Place:
    """Where one strip lies: its rows of the data [1, rows + 2, columns + 2, input channels], and of
    the result and the operands of the epilogue [1, rows, columns, output channels]."""

    data: View
    result: View
    leaves: tuple[View, ...]


TileBody = Callable[[_Tile, _Lanes], list[Stmt]]
#: One step for a strip at a place.
Step = Callable[[KernelScope, _Strips, _Place], list[Stmt]]


def _space_for(kind: Kind) -> Space:
    """Where values live that loops of ``kind`` index."""
    return Space.REGISTER if kind is Kind.UNROLLED else Space.STACK


def _spans(extent: int, tile: int) -> tuple[_Span, ...]:
    """Tiles over ``extent`` results; the last one may be cut."""
    whole, rest = divmod(extent, tile)
    spans = [_Span(0, whole, tile)] if whole else []
    if rest:
        spans.append(_Span(whole, 1, rest))
    return tuple(spans)


class _Writer:
    """Writes the kernels of one convolution.

    Its scratch: the transformed input [positions, 1, tiles of a strip, input channels] and the
    products [positions, 1, tiles of a strip, output channels].
    """

    def __init__(self, context: Context, group: Group, tile: int) -> None:
        self.context = context
        self.group = group
        self.tile = tile
        self.side = tile + 2
        self.epilogue = tuple(node for node in group.nodes if node is not group.anchor)
        self.leaf_nodes = context.operands(self.epilogue, group.nodes)
        self.data_view = context.view(group.anchor.inputs[0])
        self.result_view = context.view(group.result)
        self.leaf_views = [context.view(node) for node in self.leaf_nodes]
        self.batch, rows, columns, self.outputs = self.result_view.shape
        self.inputs = self.data_view.shape[3]
        self.lanes = context.lanes_for(DType.F32)
        self.columns = _spans(columns, tile)
        self.tile_columns = sum(span.count for span in self.columns)
        self.strips = self._cut(_spans(rows, tile))
        self.most = max(strips.height for strips in self.strips) * self.tile_columns
        self.transformed = self._scratch(self.inputs, "transformed")
        self.products = self._scratch(self.outputs, "products")
        self._plan_products()

    def _cut(self, spans: tuple[_Span, ...]) -> list[_Strips]:
        """All rows as one strip, or strips of equal height for each span."""
        element = positions(self.tile) * DType.F32.size_bytes
        row_bytes = element * self.tile_columns * (self.inputs + self.outputs)
        filter_bytes = element * self.inputs * self.outputs
        target = self.context.target

        def height(tile_rows: int) -> int:
            return strip_rows(tile_rows, row_bytes, filter_bytes, target)

        total = sum(span.count for span in spans)
        if height(total) == total:
            return [_Strips(0, 1, spans)]
        heights = [height(span.count) for span in spans]
        return [
            _Strips(span.start, span.count // rows, (_Span(0, rows, span.valid),))
            for span, rows in zip(spans, heights, strict=True)
        ]

    def _scratch(self, channels: int, name: str) -> View:
        count = positions(self.tile)
        step = self.most * channels + SKEW
        whole = self.context.temporary(DType.F32, (count * step,), name)
        return replace(
            whole, shape=(count, 1, self.most, channels), strides=(step, 0, channels, 1)
        )

    def _plan_products(self) -> None:
        """The recipe of the matrix products, and the filters packed for it."""
        weights = constant_array(self.context.view(self.group.anchor.inputs[1]))
        self.filters = self.context.constant(transform_filters(weights, self.tile), "filters")
        sizes = ContractSizes(
            rows=1,
            columns=self.most,
            channels=self.outputs,
            depth=self.inputs,
            inner_depth=self.inputs,
            lanes=self.lanes,
            elem_bytes=DType.F32.size_bytes,
            overlapping=False,
        )
        # Filters are larger than the scratch of one position where it matters which goes outside.
        chosen = self.context.choose(sizes, self.context.target)
        self.recipe = replace(chosen, panel_outer=True)
        self.key = sizes.key
        operands = Operands(1, self.transformed, self.filters, self.products, ())
        self.packed = self.context.constant(pack(operands, self.recipe), "packed")

    def emit(self) -> None:
        """Emits the kernel calls."""
        label = self.group.label
        steps: list[tuple[str, Step]] = [
            (f"{label}_tiles", self._transform_input),
            (label, self._multiply),
            (f"{label}_untile", self._transform_products),
        ]
        whole = self.batch == sum(strips.count for strips in self.strips) == 1
        for n in range(self.batch):
            for strips, first in self._firsts():
                place = self._place(n, first, strips)
                for name, step in steps:
                    scope = KernelScope()
                    views = (place.data, place.result, *place.leaves)
                    scope.reserve(*views, self.transformed, self.products)
                    body = step(scope, strips, place)
                    last = step == self._transform_products
                    self._emit(scope, name, body, self._reusable() if whole and last else [])

    def _firsts(self) -> list[tuple[_Strips, int]]:
        """Every strip: its kind and its first row of tiles."""
        return [
            (strips, strips.start + number * strips.height)
            for strips in self.strips
            for number in range(strips.count)
        ]

    def _place(self, n: int, first: int, strips: _Strips) -> _Place:
        rows = sum(span.count * span.valid for span in strips.rows)
        start = (n, first * self.tile, 0, 0)

        def cut(view: View, height: int) -> View:
            return view.interior(start, (1, height, *view.shape[2:]))

        leaves = tuple(cut(leaf, rows) for leaf in self.leaf_views)
        return _Place(cut(self.data_view, rows + 2), cut(self.result_view, rows), leaves)

    def _emit(
        self, scope: KernelScope, name: str, body: list[Stmt], reusable: list[View]
    ) -> None:
        cut = "+".join(f"{strips.count}x{strips.height}" for strips in self.strips)
        recipe = f"winograd {self.tile}x{self.tile} tile rows {cut}, {self.key}: {self.recipe}"
        self.context.emit(scope.call(name, body, reusable, recipe, independent=True))

    def _reusable(self) -> list[View]:
        """Leaves that the result may overwrite: the same view, each element read before it
        is written."""
        result = self.result_view
        return [
            leaf
            for leaf in dict.fromkeys(self.leaf_views)
            if leaf.lies_like(result) and leaf.storage is not self.data_view.storage
        ]

    def _multiply(self, scope: KernelScope, strips: _Strips, place: _Place) -> list[Stmt]:
        """Step 2: the products of every position, wherever the strip is."""
        tiles = strips.height * self.tile_columns
        recipe = self.recipe
        if tiles != self.most:
            largest = max(segment.size for segment in recipe.columns)
            recipe = replace(recipe, columns=split_evenly(tiles, largest))
        lhs, result = (
            replace(view, shape=(*view.shape[:2], tiles, view.shape[3]))
            for view in (self.transformed, self.products)
        )
        operands = Operands(1, lhs, self.filters, result, ())
        return ContractWriter(self.group, (), (), operands, recipe, self.packed, scope).body()

    def _tiles(self, strips: _Strips, channels: int, body: TileBody) -> list[Stmt]:
        """``body`` for every tile of a strip and every vector of ``channels``."""

        def tile(rows: _Span, columns: _Span, r: Expr, c: Expr) -> list[Stmt]:
            row = index.add(r, index.lit(rows.start))
            column = index.add(c, index.lit(columns.start))
            at = index.add(index.mul(row, self.tile_columns), column)
            y = index.mul(row, self.tile)
            x = index.mul(column, self.tile)
            place = _Tile(at, y, x, rows.valid, columns.valid)
            return self._channels(channels, functools.partial(body, place))

        def over(rows: _Span, columns: _Span) -> list[Stmt]:
            return loop(
                "r",
                rows.count,
                lambda r: loop("c", columns.count, lambda c: tile(rows, columns, r, c)),
            )

        pairs = itertools.product(strips.rows, self.columns)
        return [stmt for rows, columns in pairs for stmt in over(rows, columns)]

    def _channels(self, channels: int, body: Callable[[_Lanes], list[Stmt]]) -> list[Stmt]:
        full, rest = divmod(channels, self.lanes)
        stmts: list[Stmt] = []
        if full:
            stmts += loop(
                "i", full, lambda i: body(_Lanes(index.mul(i, self.lanes), self.lanes, self.lanes))
            )
        if rest:
            width = rest_lanes(rest, self.lanes)
            stmts += body(_Lanes(index.lit(full * self.lanes), rest, width))
        return stmts

    def _transform_input(
        self, scope: KernelScope, strips: _Strips, place: _Place
    ) -> list[Stmt]:
        """Step 1: B^T d B of every tile."""
        data, target = scope.access(place.data), scope.access(self.transformed, write=True)
        body = functools.partial(self._tile_in, data, target)
        return self._tiles(strips, self.inputs, body)

    def _kind(self, tile: _Tile) -> Kind:
        """How the rows and columns of a transform are gone through: in line where a tile fits the
        registers, or nearly so, and its code is worth its size (56x56x64 with 32 registers: 0.40
        ms in line, 0.65 in a loop; with 16: 0.70 and 0.71)."""
        fits = self.side**2 <= self.context.target.vector_registers + 4
        whole = tile.rows == tile.columns == self.tile
        return Kind.UNROLLED if fits and whole else Kind.SERIAL

    def _tile_in(
        self, data: Access, target: Access, tile: _Tile, lanes: _Lanes
    ) -> list[Stmt]:
        """One tile of step 1; inputs that only results beyond the edge would use count as 0."""
        side, kind = self.side, self._kind(tile)
        half = Buffer("half", DType.F32, side * side * lanes.width, _space_for(kind))

        def cell(i: Expr, j: Expr, v: Expr) -> Expr:
            return lanes.cell(index.add(index.mul(i, side), j), v)

        def column(j: Expr, known: bool) -> list[Stmt]:
            def lane(v: Expr) -> list[Stmt]:
                x, channel = index.add(tile.x, j), index.add(lanes.first, v)
                d = [
                    data.load((index.lit(0), index.add(tile.y, i), x, channel))
                    if known and i < tile.rows + 2
                    else _number(0.0)
                    for i in range(side)
                ]
                values = input_transform(d) if known else d
                return [Store(half, cell(index.lit(i), j, v), e) for i, e in enumerate(values)]

            return [lanes.sweep(lane)]

        def row(i: Expr) -> list[Stmt]:
            def lane(v: Expr) -> list[Stmt]:
                channel = index.add(lanes.first, v)
                values = input_transform(
                    [Load(half, cell(i, index.lit(j), v)) for j in range(side)]
                )
                first = index.mul(i, side)
                return [
                    target.store((index.add(first, j), index.lit(0), tile.at, channel), value)
                    for j, value in enumerate(values)
                ]

            return [lanes.sweep(lane)]

        known = tile.columns + 2
        body = loop("j", known, lambda j: column(j, True), kind)
        for j in range(known, side):
            body += column(index.lit(j), False)
        return [Alloc(half, (*body, *loop("i", side, row, kind)))]

    def _transform_products(
        self, scope: KernelScope, strips: _Strips, place: _Place
    ) -> list[Stmt]:
        """Step 3: A^T m A of every tile, through the epilogue."""
        target = scope.access(place.result, write=True)
        products = scope.access(self.products)
        leaves = [scope.access(leaf) for leaf in place.leaves]
        body = functools.partial(self._tile_out, products, leaves, target)
        return self._tiles(strips, self.outputs, body)

    def _tile_out(
        self,
        products: Access,
        leaves: Sequence[Access],
        target: Access,
        tile: _Tile,
        lanes: _Lanes,
    ) -> list[Stmt]:
        """One tile of step 3: a row of results at a time, so that few wait for their epilogue."""
        # Expensive epilogues run in a loop over the results of a row: in line they would bloat
        # the code.
        heavy = weight_of(self.epilogue) > 0
        kind = Kind.SERIAL if heavy else self._kind(tile)
        inner = Kind.SERIAL if heavy else Kind.UNROLLED
        half = Buffer("half", DType.F32, self.tile * self.side * lanes.width, _space_for(kind))
        done = Buffer("done", DType.F32, tile.columns * lanes.width, _space_for(inner))

        def finish(i: Expr, j: Expr) -> list[Stmt]:
            def lane(v: Expr) -> list[Stmt]:
                row, column = index.add(tile.y, i), index.add(tile.x, j)
                where = (index.lit(0), row, column, index.add(lanes.first, v))
                values: dict[Node, Expr] = {self.group.anchor: Load(done, lanes.cell(j, v))}
                for node, leaf in zip(self.leaf_nodes, leaves, strict=True):
                    values[node] = leaf.load(where)
                values = evaluate_nodes(self.epilogue, values)
                return [target.store(where, values[self.group.result])]

            return [lanes.sweep(lane)]

        def row(i: Expr) -> list[Stmt]:
            def lane(v: Expr) -> list[Stmt]:
                first = index.mul(i, self.side)
                terms = [lanes.cell(index.add(first, j), v) for j in range(self.side)]
                values = output_transform([Load(half, term) for term in terms])
                return [
                    Store(done, lanes.cell(index.lit(j), v), value)
                    for j, value in enumerate(values[: tile.columns])
                ]

            put = loop("j", tile.columns, lambda j: finish(i, j), inner)
            return [Alloc(done, (lanes.sweep(lane), *put))]

        sums = self._column_sums(products, tile, lanes, half, kind)
        return [Alloc(half, (*sums, *loop("i", tile.rows, row, kind)))]

    def _column_sums(
        self, products: Access, tile: _Tile, lanes: _Lanes, half: Buffer, kind: Kind
    ) -> list[Stmt]:
        """A^T m of one tile, into ``half`` [tile, side, lanes]."""
        side = self.side

        def column(j: Expr) -> list[Stmt]:
            def lane(v: Expr) -> list[Stmt]:
                channel = index.add(lanes.first, v)
                values = output_transform(
                    [
                        products.load((index.add(j, i * side), index.lit(0), tile.at, channel))
                        for i in range(side)
                    ]
                )
                return [
                    Store(half, lanes.cell(index.add(index.lit(i * side), j), v), value)
                    for i, value in enumerate(values)
                ]

            return [lanes.sweep(lane)]

        return loop("j", side, column, kind)
