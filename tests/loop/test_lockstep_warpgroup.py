"""Products of warpgroups over tiles that tensor maps bring, in the lockstep evaluator: results, and
everything that a GPU might do in another order."""

from dataclasses import replace

import numpy as np
import pytest
from warpgroup_kernels import Product, operands, rewritten, seq, without

from aotc.errors import VerifyError
from aotc.graph.types import DType
from aotc.loop import index as ix
from aotc.loop.eval import run_kernel
from aotc.loop.ir import (
    Alloc,
    Barrier,
    Bin,
    Bind,
    Buffer,
    Conv,
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
    AsyncCommit,
    AsyncCopy,
    AsyncWait,
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
from aotc.loop.launch import nest_of
from aotc.loop.verify import verify_kernel
from aotc.loop.walk import all_statements
from aotc.loop.wgmma import result_layout, swizzled

F16, F32 = DType.F16, DType.F32
QUICK = [
    Product("tf32", (60, 20, 100), (64, 16), groups=1, stages=2),
    Product("bf16", (128, 136, 136), (128, 128), stages=2, across=True),
    Product("tf32", (64, 16, 96), (64, 16), groups=1, stages=3, held=True),
]
THOROUGH = [
    Product("f16", (140, 260, 136), (128, 256), stages=2),
    Product("f16", (64, 64, 136), (64, 64), groups=1, stages=3, held=True, across=True),
    Product("f16", (256, 64, 136), (256, 64), stages=3),
]
SMALL = Product("f16", (128, 16, 320), (128, 16), stages=3)


def run(product, kernel=None):
    """The result, and what it should be."""
    kernel = kernel or product.kernel()
    verify_kernel(kernel)
    a, b, wanted = operands(product)
    c = np.full(wanted.size, -1, np.float32)
    run_kernel(kernel, [a, b, c])
    return c.reshape(wanted.shape), wanted


@pytest.mark.parametrize(
    "product", [*QUICK, *(pytest.param(p, marks=pytest.mark.slow) for p in THOROUGH)], ids=str
)
def test_products(product):
    found, wanted = run(product)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5)


NOT_WAITED = "multiplies with it with no wait for the copy to it"
OVERWRITES = "overwrites it while a product of warpgroup 0 may read it"


@pytest.mark.parametrize(
    ("kind", "numbers", "problem"),
    [
        (Barrier, [0], r"race for 'ready\[\d\]'.* reads what is stored by thread 0"),
        (Barrier, [1], r"'ready\[0\]': thread 0 of block 0 begins a phase while others may wait"),
        (SignalInit, [1], r"'ready\[1\]': thread 0 of block 0 uses what is no signal yet"),
        (SignalWait, [0], rf"'tile_b\[0\]': thread 0 of block 0 {NOT_WAITED}"),
        (SignalExpect, [0], r"'ready\[0\]': thread 0 of block 0 waits for ever: 1 arrivals and"),
        (TileCopy, [1], r"'ready\[0\]': thread 0 of block 0 waits for ever: 0 arrivals and 2048"),
        (WgmmaFence, [0], r"'sums\[0\]': thread 0 .* with no WgmmaFence since it was touched"),
        (WgmmaCommit, [0], rf"'tile_a\[\d+\]': thread 0 of block 0 {OVERWRITES}"),
        (WgmmaWait, [0], rf"'tile_a\[\d+\]': thread 0 of block 0 {OVERWRITES}"),
        (WgmmaWait, [1], r"'sums\[0\]': thread 0 of block 0 reads it while a product is under way"),
    ],
)
def test_a_statement_that_is_missing(kind, numbers, problem):
    with pytest.raises(VerifyError, match=f"kernel 'product': .*{problem}"):
        run(SMALL, without(SMALL.kernel(), kind, numbers))


def change_parity(stmt, number):
    return [replace(stmt, parity=Lit(0))] if isinstance(stmt, SignalWait) else None


def change_bytes(stmt, number):
    return [replace(stmt, bytes=stmt.bytes - 16)] if isinstance(stmt, SignalExpect) else None


def wait_for_others(stmt, number):
    return [replace(stmt, sums=())] if isinstance(stmt, WgmmaWait) and number == 0 else None


def wait_in_part(stmt, number):
    if isinstance(stmt, WgmmaWait) and number == 0:
        return [replace(stmt, pending=2)]
    return None


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (change_parity, r"'ready\[0\]': thread 0 of block 0 waits for ever: .* in phase 2"),
        (change_bytes, r"'ready\[0\]': thread 0 of block 0 2048 bytes are more than what is ex"),
        (wait_for_others, r"'sums\[0\]': thread 0 .* but not for what it adds to"),
        (wait_in_part, OVERWRITES),
    ],
)
def test_a_statement_that_is_wrong(change, problem):
    with pytest.raises(VerifyError, match=problem):
        run(SMALL, rewritten(SMALL.kernel(), change))


def test_the_barrier_comes_behind_the_wait():
    kernel = SMALL.kernel()
    wait = next(s for s in all_statements(kernel.body) if isinstance(s, WgmmaWait))

    def change(stmt, number):
        if stmt is wait:
            return []
        return [stmt, wait] if isinstance(stmt, Barrier) and number == 1 else None

    with pytest.raises(VerifyError, match=OVERWRITES):
        run(SMALL, rewritten(kernel, change))


def test_the_other_warpgroup_must_have_waited_too():
    kernel = SMALL.kernel()
    (thread,) = nest_of(kernel).threads

    def change(stmt, number):
        # the first warpgroup waits, the second does not
        if isinstance(stmt, WgmmaWait) and number == 0:
            return [Bind(Var("first"), thread.var, 128, (stmt,))]
        return None

    with pytest.raises(VerifyError, match="while a product of warpgroup 1 may read it"):
        run(SMALL, rewritten(kernel, change))


def test_registers_of_a_factor_stay_as_they_are():
    product = Product("tf32", (64, 16, 96), (64, 16), groups=1, stages=3, held=True)
    with pytest.raises(VerifyError, match=r"'left\[0\]': .* stores to it while a product is under"):
        run(product, without(product.kernel(), WgmmaWait, [0]))


class Tile:
    """A kernel of one block in which ``body(tile)`` says what each thread does with a tile of some
    rows, of which a map brings eight at once, two signals, and registers."""

    def __init__(self, body, dtype=F32, rows=16):
        row = 128 // dtype.size_bytes
        elems = rows * row
        self.x = Buffer("x", dtype, elems, alignment=16)
        self.y = Buffer("y", dtype, elems)
        self.map = TensorMap("box", self.x, 0, (rows, row), (row, 1), (8, row))
        self.tile = Buffer("tile", dtype, elems, Space.SHARED, alignment=1024)
        self.ready = Buffer("ready", DType.U64, 3, Space.SHARED)  # the last is never made one
        self.sums = Buffer("sums", F32, 8, Space.REGISTER)
        self.block, self.thread = Var("block"), Var("thread")
        self.first = (Lit(0), Lit(0))
        start = [self.alone(SignalInit(self.ready, Lit(i), 1) for i in range(2)), Barrier()]
        nest = (Alloc(self.sums, seq(start, list(body(self)))),)
        nest = (For(self.thread, 128, nest, Kind.THREAD),)
        for buffer in (self.tile, self.ready):
            nest = (Alloc(buffer, nest),)
        nest = (For(self.block, 1, nest, Kind.BLOCK),)
        writes = frozenset({self.y})
        self.kernel = Kernel("tiles", (self.x, self.y), writes, nest, maps=(self.map,))

    def alone(self, stmts, thread=0):
        at = ix.sub(self.thread, ix.lit(thread))
        return Bind(Var("one"), at, 1, tuple(stmts))

    def bring(self, number=0, row=0, place=0):
        """A copy of the eight rows from ``row`` on, and what the signal ``number`` expects."""
        half = self.tile.elems // 2
        yield SignalExpect(self.ready, Lit(number), 1024)
        position = (Lit(row), self.first[1])
        yield TileCopy(self.map, position, self.tile, Lit(place * half), self.ready, Lit(number))

    def wait(self, parity=0, number=0):
        return SignalWait(self.ready, Lit(number), Lit(parity))

    def copy_out(self):
        """Each thread takes elements of the tile from their places to the result."""
        for i in range(0, self.tile.elems // 2, 128):
            at = ix.add(self.thread, i)
            yield Store(self.y, at, Load(self.tile, at))

    def run(self):
        verify_kernel(self.kernel)
        x = np.arange(self.x.elems).astype(self.x.dtype.numpy)
        y = np.zeros_like(x)
        run_kernel(self.kernel, [x, y])
        return x, y


def test_a_box_that_begins_outside():
    def body(t):
        t.first = (Lit(0), Lit(-4))
        yield from [t.alone(t.bring()), t.wait(), *t.copy_out()]

    x, y = Tile(body).run()
    rows = np.zeros((8, 32), np.float32)
    rows[:, 4:] = x.reshape(16, 32)[:8, :28]
    assert np.array_equal(rows.reshape(-1), y[swizzled(np.arange(256), 4)])


def test_a_copy_of_what_is_stored_to():
    tile = Tile(lambda t: [t.alone(t.bring()), t.wait(), *t.copy_out()])
    x = np.zeros(tile.x.elems, np.float32)
    with pytest.raises(VerifyError, match="copies what is stored to"):
        run_kernel(tile.kernel, [x, x])


def test_pieces_of_rows_are_exchanged():
    tile = Tile(lambda t: [t.alone(t.bring(row=12)), t.wait(), *t.copy_out()])
    x, y = tile.run()
    rows = np.concatenate([x.reshape(16, 32)[12:], np.zeros((4, 32), np.float32)])
    pieces = y[:256].reshape(8, 8, 4)
    for row in range(8):
        for piece in range(8):
            wanted = rows[row, piece * 4 : piece * 4 + 4]
            assert np.array_equal(pieces[row, piece ^ row], wanted)
    assert np.array_equal(rows.reshape(-1), y[swizzled(np.arange(256), 4)])


def test_one_thread_may_wait_for_all():
    tile = Tile(lambda t: [t.alone([*t.bring(), t.wait()]), Barrier(), *t.copy_out()])
    x, y = tile.run()
    assert np.array_equal(np.sort(y[:256]), x[:256])


def twice(t):
    """Two phases of one signal, for the first of which one thread waits."""
    yield t.alone([*t.bring(), t.wait(), *t.bring(row=8, place=1)])


SIGNAL_PROBLEMS = {
    "reads it with no wait for the copy": lambda t: [t.alone(t.bring()), *t.copy_out()],
    "thread 1 of block 0 reads it with no wait": lambda t: [
        t.alone([*t.bring(), t.wait()]), *t.copy_out()
    ],
    "stores to it with no wait for the copy": lambda t: [
        t.alone(t.bring()), t.alone([Store(t.tile, Lit(5), Lit(0.0, F32))], 3)
    ],
    "copies to it with no wait for the copy before": lambda t: [
        t.alone([*t.bring(), *t.bring(1, row=8)])
    ],
    "begins a phase with no wait for the one before": lambda t: [
        t.alone([*t.bring(), *t.bring(place=1)])
    ],
    "begins a phase while others may wait": lambda t: [
        t.alone(t.bring()), t.wait(), t.alone(t.bring(place=1))
    ],
    "may see the phase before the one that it waits for": lambda t: [
        *twice(t), t.wait(1)
    ],
    "waits for ever: 1 arrivals and 0 bytes": lambda t: [t.wait()],
    "waits for what is no signal yet": lambda t: [t.wait(number=2)],
    "uses what is no signal yet": lambda t: [t.alone(t.bring(2))],
    "a parity beyond 0 and 1": lambda t: [t.wait(2)],
    "more arrivals than the phase has": lambda t: [
        SignalExpect(t.ready, Lit(0), 16)
    ],
    "ends while a copy to it may be under way": lambda t: [t.alone(t.bring())],
    "copies to what is being copied to": lambda t: [
        t.alone([AsyncCopy(t.tile, Lit(0), t.x, Lit(0), 4)]), ProxyFence(), Barrier(),
        t.alone(t.bring()),
    ],
    "copies over what is stored with no ProxyFence": lambda t: [
        Store(t.tile, t.thread, Lit(0.0, F32)), Barrier(), t.alone(t.bring())
    ],
    "copies over what is read with no ProxyFence": lambda t: [
        t.alone(t.bring()), t.wait(), *t.copy_out(), Barrier(), t.alone(t.bring(1))
    ],
    "copies to what another copies to": lambda t: [
        Bind(Var("two"), t.thread, 2, (TileCopy(t.map, t.first, t.tile, Lit(0), t.ready, Lit(0)),))
    ],
}


@pytest.mark.parametrize("problem", SIGNAL_PROBLEMS)
def test_copies_and_signals(problem):
    with pytest.raises(VerifyError, match=f"kernel 'tiles': .*{problem}"):
        Tile(SIGNAL_PROBLEMS[problem]).run()


def test_what_has_been_waited_for_may_be_brought_anew():
    tile = Tile(
        lambda t: [
            t.alone(t.bring()), t.wait(), *t.copy_out(), ProxyFence(), Barrier(),
            t.alone(t.bring(row=8)), t.wait(1), *t.copy_out(), ProxyFence(), Barrier(),
            t.alone(t.bring()), t.wait(0),
        ]
    )
    x, y = tile.run()
    assert np.array_equal(np.sort(y[:256]), x[256:])


def multiply(t):
    """One product of what each thread has stored to the tiles."""
    zero = [Store(t.sums, Lit(i), Lit(0.0, F32)) for i in range(8)]
    return [*zero, WgmmaFence(), product(t), WgmmaCommit(), WgmmaWait(0, (t.sums,))]


def product(t):
    """The tile times the first eight of its rows."""
    return Wgmma("f16", 8, t.sums, Lit(0), t.tile, Lit(0), t.tile, Lit(0))


def fill(t):
    """Each thread stores eight elements."""
    return [Store(t.tile, ix.add(t.thread, 128 * i), Lit(1.0, F16)) for i in range(8)]


def copy(t):
    """Each thread copies eight elements."""
    at = ix.mul(t.thread, 8)
    return [AsyncCopy(t.tile, at, t.x, at, 8), AsyncCommit()]


PRODUCT_PROBLEMS = {
    "a product of a warpgroup without all of its threads": lambda t: [
        WgmmaFence(), Bind(Var("some"), t.thread, 96, (product(t),))
    ],
    "what is stored there with no ProxyFence and Barrier": lambda t: [
        *fill(t), Barrier(), *multiply(t)
    ],
    "reads it while a product is under way": lambda t: [
        *multiply(t)[:-1], Store(t.sums, Lit(1), Load(t.sums, Lit(0))),
    ],
    "stores to it while a product is under way": lambda t: [
        *multiply(t)[:-1], Store(t.sums, Lit(0), Lit(0.0, F32)),
    ],
    "adds to it while a product of another shape does": lambda t: [
        *multiply(t)[:-1], replace(product(t), columns=16)
    ],
    "threads of a warpgroup disagree": lambda t: [
        WgmmaFence(), replace(product(t), b_at=ix.mul(ix.mod(t.thread, 4, {}), 16))
    ],
    "ends while a product with it is under way": lambda t: multiply(t)[:-1],
    "overwrites it while a product of warpgroup 0": lambda t: [
        *fill(t), ProxyFence(), Barrier(), *multiply(t), *fill(t)
    ],
    "multiplies with what is being copied there": lambda t: [*copy(t), *multiply(t)],
    "no ProxyFence and Barrier": lambda t: [
        *copy(t), ProxyFence(), AsyncWait(0), Barrier(), *multiply(t)
    ],
}


@pytest.mark.parametrize("problem", PRODUCT_PROBLEMS)
def test_products_under_way(problem):
    with pytest.raises(VerifyError, match=f"kernel 'tiles': .*{problem}"):
        Tile(PRODUCT_PROBLEMS[problem], F16, 64).run()


@pytest.mark.parametrize("way", ["stored", "copied"])
def test_products_of_what_threads_bring_themselves(way):
    """A tile of rows r times itself: every element is a sum over rows as they lie."""

    def body(t):
        for i in range(0, 4096, 1024):
            at = ix.add(ix.mul(t.thread, 8), i)
            swizzled_at = Bin("xor", at, ix.mul(Bin("mod", ix.div(at, 64), Lit(8)), 8))
            if way == "copied":
                yield AsyncCopy(t.tile, swizzled_at, t.x, at, 8)
            else:
                yield from (
                    Store(t.tile, ix.add(swizzled_at, j), Load(t.x, ix.add(at, j)))
                    for j in range(8)
                )
        yield from [AsyncCommit(), AsyncWait(0)] if way == "copied" else []
        yield from [ProxyFence(), Barrier(), *multiply(t)]
        for i in range(4):
            value = Conv(Load(t.sums, Lit(i)), F16)
            yield Store(t.y, ix.add(ix.mul(t.thread, 4), i), value)

    tile = Tile(body, F16, 64)
    verify_kernel(tile.kernel)
    x = np.random.default_rng(1).normal(size=4096).astype(np.float16)
    y = np.zeros_like(x)
    run_kernel(tile.kernel, [x, y])
    rows = x.reshape(64, 64).astype(np.float64)[:, :16]
    across, down = result_layout(8)[::-1]
    wanted = (rows @ rows[:8].T)[down, across].reshape(-1)
    np.testing.assert_allclose(y[:512], wanted, rtol=1e-2, atol=1e-2)
