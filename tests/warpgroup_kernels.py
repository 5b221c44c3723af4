"""Matrix products of warpgroups as kernels of the loop IR written by hand: tiles that tensor maps
bring to shared memory in several stages, products under way while the next tiles come."""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from aotc.graph.types import DType
from aotc.loop import index as ix
from aotc.loop.ir import (
    SWIZZLED_BYTES,
    Alloc,
    Barrier,
    Bin,
    Bind,
    Buffer,
    For,
    Kernel,
    Kind,
    Lit,
    Load,
    Space,
    Store,
    TensorMap,
    Var,
)
from aotc.loop.ir_async import (
    WARPGROUP,
    ProxyFence,
    SignalExpect,
    SignalInit,
    SignalWait,
    TileCopy,
    Wgmma,
    WgmmaCommit,
    WgmmaFence,
    WgmmaWait,
)
from aotc.loop.mma import KINDS
from aotc.loop.wgmma import result_elems

F32, U64 = DType.F32, DType.U64


def seq(*parts):
    """Statements, and lists of them, as one tuple."""
    out = []
    for part in parts:
        out.extend(part if isinstance(part, (list, tuple)) else [part])
    return tuple(out)


def unrolled(count, body):
    var = Var("u")
    return For(var, count, seq(body(var)), Kind.UNROLLED)


@dataclass(frozen=True)
class Product:
    """c[rows, columns] = a[rows, depth] b, with b of [columns, depth], or of [depth, columns] where
    its rows are the depth (``across``). ``tile`` is that of a block; each of ``groups`` warpgroups
    has the rows of its number, ``height`` times 64; ``held`` takes a from registers."""

    kind: str
    shape: tuple[int, int, int]
    tile: tuple[int, int] = (128, 256)
    groups: int = 2
    stages: int = 4
    across: bool = False
    held: bool = False

    @property
    def dtype(self):
        return KINDS[self.kind].dtype

    @property
    def chunk(self):
        """The depth of a tile."""
        return SWIZZLED_BYTES // self.dtype.size_bytes

    @property
    def chunks(self):
        return -(-self.shape[2] // self.chunk)

    @property
    def height(self):
        return self.tile[0] // 64 // self.groups

    def maps(self, a, b):
        rows, columns, depth = self.shape
        round_ = self.kind == "tf32"
        box = (self.tile[0], self.chunk)
        yield TensorMap("map_a", a, 0, (rows, depth), (depth, 1), box, round_)
        if self.across:
            box = (self.chunk, self.chunk)
            yield TensorMap("map_b", b, 0, (depth, columns), (columns, 1), box, round_)
        else:
            box = (self.tile[1], self.chunk)
            yield TensorMap("map_b", b, 0, (columns, depth), (depth, 1), box, round_)

    def kernel(self):
        rows, columns, depth = self.shape
        a = Buffer("a", self.dtype, rows * depth, alignment=16)
        b = Buffer("b", self.dtype, columns * depth, alignment=16)
        c = Buffer("c", F32, rows * columns)
        return _Writer(self, a, b, c).kernel()


class _Writer:
    def __init__(self, product, a, b, c):
        self.p, self.a, self.b, self.c = product, a, b, c
        p = product
        self.maps = tuple(p.maps(a, b))
        self.sizes = p.tile[0] * p.chunk, p.tile[1] * p.chunk
        self.tiles = tuple(
            Buffer(name, p.dtype, p.stages * size, Space.SHARED, alignment=1024)
            for name, size in zip(("tile_a", "tile_b"), self.sizes, strict=True)
        )
        self.ready = Buffer("ready", U64, p.stages, Space.SHARED)
        self.elems = result_elems(p.tile[1])
        self.sums = Buffer("sums", F32, self.elems * p.height, Space.REGISTER)
        kind = KINDS[p.kind]
        self.steps = p.chunk // kind.depth
        self.left = Buffer("left", p.dtype, kind.left_elems * self.steps, Space.REGISTER)
        self.by, self.bx, self.thread = Var("by"), Var("bx"), Var("thread")

    def bring(self, chunk, stage):
        """The copies of one chunk, and what tells that they are there."""
        p, (map_a, map_b), (tile_a, tile_b) = self.p, self.maps, self.tiles
        k = ix.mul(chunk, p.chunk)
        row, column = ix.mul(self.by, p.tile[0]), ix.mul(self.bx, p.tile[1])
        place_a, place_b = (ix.mul(stage, size) for size in self.sizes)
        yield SignalExpect(self.ready, stage, sum(self.sizes) * p.dtype.size_bytes)
        yield TileCopy(map_a, (row, k), tile_a, place_a, self.ready, stage)
        if not p.across:
            yield TileCopy(map_b, (column, k), tile_b, place_b, self.ready, stage)
            return
        for part in range(p.tile[1] // p.chunk):
            at = ix.add(place_b, part * p.chunk * p.chunk)
            where = (k, ix.add(column, part * p.chunk))
            yield TileCopy(map_b, where, tile_b, at, self.ready, stage)

    def one_thread(self, stmts):
        return Bind(Var("one"), self.thread, 1, seq(stmts))

    def multiply(self, stage):
        """The products of one chunk."""
        p, kind = self.p, KINDS[self.p.kind]
        rank = ix.div(self.thread, WARPGROUP)
        for h in range(p.height):
            for step in range(self.steps):
                first = ix.add(ix.mul(rank, 64 * p.height * p.chunk), h * 64 * p.chunk)
                at_a = ix.add(ix.add(ix.mul(stage, self.sizes[0]), first), step * kind.depth)
                right = step * kind.depth * (p.chunk if p.across else 1)
                at_b = ix.add(ix.mul(stage, self.sizes[1]), right)
                a, at = self.tiles[0], at_a
                if p.held:
                    a, at = self.left, ix.lit(step * kind.left_elems)
                b_step = p.chunk * p.chunk if p.across else 0
                sums = ix.lit(h * self.elems)
                yield Wgmma(
                    p.kind, p.tile[1], self.sums, sums, a, at, self.tiles[1], at_b, b_step
                )

    def load_left(self, stage):
        """The fragments of the left factor of one chunk, from the tile."""
        kind = KINDS[self.p.kind]
        pair = 4 // kind.dtype.size_bytes
        warp, lane = ix.div(self.thread, 32), ix.mod(self.thread, 32, {self.thread: 1024})
        for e in range(self.left.elems):
            step, rest = divmod(e, kind.left_elems)
            word, place = divmod(rest, pair)
            row = ix.add(ix.add(ix.mul(warp, 16), ix.div(lane, 4)), 8 * (word % 2))
            column = ix.mul(Bin("mod", lane, Lit(4)), pair)
            column = ix.add(column, place + 4 * pair * (word // 2) + step * kind.depth)
            piece = 16 // kind.dtype.size_bytes
            swizzle = ix.mul(Bin("mod", row, Lit(8)), piece)
            at = ix.add(ix.mul(row, self.p.chunk), Bin("xor", column, swizzle))
            at = ix.add(ix.mul(stage, self.sizes[0]), at)
            yield Store(self.left, ix.lit(e), Load(self.tiles[0], at))

    def store(self):
        """The results of a thread."""
        p, (rows, columns, _) = self.p, self.p.shape
        rank, inside = ix.div(self.thread, WARPGROUP), Bin("mod", self.thread, Lit(WARPGROUP))
        warp, lane = Bin("div", inside, Lit(32)), Bin("mod", self.thread, Lit(32))
        place = ix.add(ix.mul(warp, 16), Bin("div", lane, Lit(4)))
        place = ix.add(ix.add(place, ix.mul(rank, 64 * p.height)), ix.mul(self.by, p.tile[0]))
        first = ix.add(ix.mul(Bin("mod", lane, Lit(4)), 2), ix.mul(self.bx, p.tile[1]))
        for e in range(self.elems * p.height):
            h, rest = divmod(e, self.elems)
            row, column = Var("row"), Var("column")
            found = Load(self.sums, ix.lit(e))
            store = Store(self.c, ix.add(ix.mul(row, columns), column), found)
            across = ix.add(first, rest // 4 * 8 + rest % 2)
            down = ix.add(place, h * 64 + rest % 4 // 2 * 8)
            yield Bind(row, down, rows, (Bind(column, across, columns, (store,)),))

    def body(self):
        p, k, stage = self.p, Var("k"), Var("stage")
        elem = Var("e")
        yield self.one_thread(
            [SignalInit(self.ready, ix.lit(s), 1) for s in range(p.stages)]
        )
        yield Barrier()
        for s in range(min(p.stages - 1, p.chunks)):
            yield self.one_thread(list(self.bring(ix.lit(s), ix.lit(s))))
        zero = Store(self.sums, elem, Lit(0.0, F32))
        yield For(elem, self.sums.elems, (zero,), Kind.UNROLLED)
        parity = Bin("mod", Bin("div", k, Lit(p.stages)), Lit(2))
        following, into = Var("following"), Var("into")
        ahead = ix.add(k, p.stages - 1)
        bring = Bind(into, Bin("mod", following, Lit(p.stages)), p.stages, seq(
            list(self.bring(following, into))
        ))
        inner = seq(
            SignalWait(self.ready, stage, parity),
            [WgmmaWait(0, (self.sums,)), *self.load_left(stage)] if p.held else [],
            WgmmaFence(),
            list(self.multiply(stage)),
            WgmmaCommit(),
            WgmmaWait(1, (self.sums,)),
            ProxyFence() if p.held else [],
            Barrier(),
            Bind(following, ahead, p.chunks, (self.one_thread(bring),)),
        )
        yield For(k, p.chunks, (Bind(stage, Bin("mod", k, Lit(p.stages)), p.stages, inner),))
        yield WgmmaWait(0, (self.sums,))
        yield from self.store()

    def kernel(self):
        p, (rows, columns, _) = self.p, self.p.shape
        body = seq(list(self.body()))
        if p.held:
            body = (Alloc(self.left, body),)
        body = (Alloc(self.sums, body),)
        nest = (For(self.thread, WARPGROUP * p.groups, body, Kind.THREAD),)
        for buffer in (*self.tiles, self.ready):
            nest = (Alloc(buffer, nest),)
        for var, extent in ((self.bx, -(-columns // p.tile[1])), (self.by, -(-rows // p.tile[0]))):
            nest = (For(var, extent, nest, Kind.BLOCK),)
        params = (self.a, self.b, self.c)
        return Kernel("product", params, frozenset({self.c}), nest, maps=self.maps)


def rewritten(kernel, change):
    """``kernel`` with ``change(stmt, number)`` in place of each statement, which is the one of that
    number of its type: statements, or None for the same."""
    counts = Counter()

    def block(body):
        out = []
        for stmt in body:
            number = counts[type(stmt)]
            counts[type(stmt)] += 1
            if hasattr(stmt, "body"):
                stmt = replace(stmt, body=block(stmt.body))
            found = change(stmt, number)
            out.extend([stmt] if found is None else found)
        return tuple(out)

    return replace(kernel, body=block(kernel.body))


def without(kernel, kind, numbers=range(1000)):
    """``kernel`` without the statements of a type, or some of them."""
    return rewritten(kernel, lambda s, n: [] if type(s) is kind and n in numbers else None)


def operands(product, seed=0):
    """Random factors as the kernel takes them, and the product of what they stand for."""
    random = np.random.default_rng(seed)
    rows, columns, depth = product.shape
    a, b = random.normal(size=(rows, depth)), random.normal(size=(depth, columns))

    def short(x):
        if product.kind == "f16":
            return x.astype(np.float16), x.astype(np.float16).astype(np.float64)
        bits = x.astype(np.float32).view(np.uint32)
        if product.kind == "bf16":
            bits = bits >> 16
            return bits.astype(np.uint16), (bits << 16).view(np.float32).astype(np.float64)
        near = (bits + np.uint32(0xFFF) + (bits >> 13 & 1)) & np.uint32(0xFFFFE000)
        return x.astype(np.float32), near.view(np.float32).astype(np.float64)

    (a, left), (b, right) = short(a), short(b)
    b = b if product.across else np.ascontiguousarray(b.T)
    return a.reshape(-1), b.reshape(-1), left @ right
