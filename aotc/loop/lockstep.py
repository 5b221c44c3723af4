"""GPU kernels at work without a GPU: a kernel of BLOCK and THREAD loops and the memory of its
buffers in, its stores out, or VerifyError for what would go wrong on some GPU.

All threads of some blocks run at once, a lane each, and every statement in all of them before the
next. What a GPU may do in another order is checked: two threads that touch one element, one of
them storing to it, with no barrier between, are a race. So are two blocks, barrier or not.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from aotc.errors import VerifyError
from aotc.loop.interpret import MAX_LANES, Memory, Run
from aotc.loop.ir import (
    Barrier,
    Bind,
    Buffer,
    Expr,
    For,
    Kernel,
    Kind,
    Mma,
    Shuffle,
    Space,
    Stmt,
    Var,
)
from aotc.loop.ir_async import (
    MATRIX_ROWS,
    AsyncCommit,
    AsyncCopy,
    AsyncWait,
    LoadMatrix,
)
from aotc.loop.launch import WARP, launch_of
from aotc.loop.lockstep_shadow import NOBODY, SEVERAL, Copies, Shadow
from aotc.loop.mma import KINDS, multiply
from aotc.loop.walk import fragments, has_barrier

#: Shared memory of blocks that run at once; some hundred bytes are known of each element.
_MAX_SHARED_BYTES = 1 << 22


def _address(memory: Memory) -> int:
    address: int = memory.data.__array_interface__["data"][0]
    return address


class LockstepRun(Run):
    """One run of a GPU kernel."""

    def __init__(self, kernel: Kernel, memory: dict[Buffer, Memory], serial_only: bool) -> None:
        super().__init__(kernel, memory, serial_only)
        launch = launch_of(kernel)
        x, y, z = launch.block
        self._per_block = x * y * z
        # blocks that run at once at most
        self._room = min(
            MAX_LANES // self._per_block, _MAX_SHARED_BYTES // max(launch.shared_bytes, 1)
        )
        self._block_numbers = np.zeros(1, np.int64)
        self._thread_numbers = np.zeros(1, np.int64)
        self._barriers = 0
        self._bound = 0
        self._copies = Copies()
        self._shadows: dict[int, Shadow] = {}
        # a parameter that is only read may be the memory of one that is written
        written = {_address(memory[buffer]) for buffer in kernel.writes}
        self._watched = {b for b in kernel.params if _address(memory[b]) in written}

    def statement(self, stmt: Stmt) -> None:
        """Runs one statement in all lanes."""
        match stmt:
            case Bind():
                self._bind(stmt)
            case Barrier():
                if self._bound:
                    raise VerifyError(f"kernel '{self._kernel.name}': a barrier inside a Bind")
                self._barriers += 1
            case Mma():
                self._mma(stmt)
            case AsyncCopy():
                self._begin_copy(stmt)
            case AsyncCommit():
                self._copies.commit(self._threads())
            case AsyncWait(pending=pending):
                self._copies.wait(self._threads(), pending, self._barriers)
            case LoadMatrix():
                self._load_matrix(stmt)
            case _:
                super().statement(stmt)

    def _threads(self) -> np.ndarray:
        """The number of each lane's thread among all threads of the grid."""
        numbers = self._block_numbers * self._per_block + self._thread_numbers
        return np.broadcast_to(numbers, (self._lanes,))

    def _begin_copy(self, stmt: AsyncCopy) -> None:
        """The copy, after which nobody may touch the elements until it has ended."""
        values: dict[int, np.ndarray] = {}
        valid = None if stmt.valid is None else self._eval(stmt.valid, values)
        source, target = (
            np.asarray(self._index(at, values)) for at in (stmt.source_at, stmt.at)
        )
        for t in range(stmt.elems):
            memory, where = self._at(stmt.source, source + t)
            found = memory.data[where]
            if valid is not None:
                found = np.where(valid, found, found.dtype.type(0))
            memory, where = self._at(stmt.buffer, target + t, is_store=True)
            memory.data[where] = found
            where = np.broadcast_to(where, (self._lanes,))
            self._copies.begin(self._shadows[id(stmt.buffer)], where, self._threads())

    def _load_matrix(self, stmt: LoadMatrix) -> None:
        """The loads of all warps at once. Each thread reads the words that it gets."""
        self._expect_whole_warps("a load of matrices")
        elems = 4 // stmt.source.dtype.size_bytes  # of a word
        starts = np.broadcast_to(np.asarray(self._index(stmt.at, {})), (self._lanes,))
        to = np.asarray(self._index(stmt.to_at, {}))
        lane = np.arange(self._lanes)
        thread = lane % WARP
        for number, e in itertools.product(range(stmt.count), range(elems)):
            row, column = thread // 4, thread % 4 * elems + e
            if stmt.transposed:
                row, column = column, row
            first = starts[lane - thread + MATRIX_ROWS * number + row]
            memory, where = self._at(stmt.source, first + column)
            found = memory.data[where]
            memory, where = self._at(stmt.to, to + number * elems + e, is_store=True)
            memory.data[where] = found

    def _mma(self, stmt: Mma) -> None:
        """The product in all warps at once."""
        self._expect_whole_warps("a product of a warp")
        values: dict[int, np.ndarray] = {}
        places = []
        for buffer, first, count in fragments(stmt):
            memory, start = self._locate(buffer, first, values)
            if np.max(self._index(first, values)) + count > memory.elems:
                raise VerifyError(f"kernel '{self._kernel.name}': beyond '{buffer.name}'")
            starts = np.broadcast_to(np.asarray(start), (self._lanes,))
            places.append((memory.data, starts[:, None] + np.arange(count)))
        d, a, b = (data[where].reshape(-1, WARP, where.shape[1]) for data, where in places)
        data, where = places[0]
        data[where] = multiply(KINDS[stmt.kind], a, b, d).reshape(where.shape)

    def _expect_whole_warps(self, what: str) -> None:
        self._expect_together(WARP, what)

    def _expect_together(self, count: int, what: str) -> None:
        """VerifyError unless the lanes are whole groups of ``count`` threads, one after the other.
        """
        numbers = self._thread_numbers
        whole = self._lanes % count == 0 and bool(
            np.all(numbers.reshape(-1, count) == numbers[::count, None] + np.arange(count))
            and np.all(numbers[::count] % count == 0)
        )
        if not whole:
            raise VerifyError(f"kernel '{self._kernel.name}': {what} without all of its threads")

    def _eval_node(self, expr: Expr, values: dict[int, np.ndarray]) -> np.ndarray:
        if not isinstance(expr, Shuffle):
            return super()._eval_node(expr, values)
        self._expect_whole_warps("a shuffle")
        x, sources = (
            np.broadcast_to(values[id(part)], (self._lanes,)) for part in (expr.x, expr.i)
        )
        if sources.min() < 0 or sources.max() >= WARP:
            raise VerifyError(f"kernel '{self._kernel.name}': a shuffle from beyond the warp")
        first = np.arange(self._lanes) // WARP * WARP
        found: np.ndarray = x[first + sources]
        return found

    def _loop(self, loop: For) -> None:
        if loop.kind in (Kind.BLOCK, Kind.THREAD):
            # blocks in chunks that the threads then multiply; all threads of a block at once
            chunk = max(1, self._room // self._lanes) if loop.kind is Kind.BLOCK else loop.extent
            for start in range(0, loop.extent, chunk):
                with self._spread(loop, start, min(start + chunk, loop.extent)):
                    self.block(loop.body)
            return
        if id(loop) not in self._disjoint and has_barrier(loop.body):
            self._disjoint[id(loop)] = False
        super()._loop(loop)

    @contextmanager
    def _spread(self, loop: For, start: int, stop: int) -> Iterator[None]:
        """A lane for each iteration of a BLOCK or THREAD loop."""
        with self._expanded(loop.var, start, stop):
            before = self._block_numbers, self._thread_numbers
            position = self._vars[loop.var]
            if loop.kind is Kind.BLOCK:
                self._block_numbers = self._block_numbers * loop.extent + position
            else:
                self._thread_numbers = self._thread_numbers * loop.extent + position
            yield
            self._block_numbers, self._thread_numbers = before

    @contextmanager
    def _expanded(self, var: Var, start: int, stop: int) -> Iterator[None]:
        before = self._block_numbers, self._thread_numbers
        self._block_numbers, self._thread_numbers = (
            np.repeat(numbers, stop - start) for numbers in before
        )
        with super()._expanded(var, start, stop):
            yield
        self._block_numbers, self._thread_numbers = before

    def _bind(self, stmt: Bind) -> None:
        """The body in the lanes in which the value is in range."""
        value = self._index(stmt.value, {})
        values = np.broadcast_to(np.asarray(value, np.int64), (self._lanes,))
        active = np.flatnonzero((values >= 0) & (values < stmt.extent))
        if not active.size:
            return
        before = self._vars, self._memory, self._lanes, self._block_numbers, self._thread_numbers
        self._vars = {
            var: at if isinstance(at, int) else at[active] for var, at in self._vars.items()
        }
        self._vars[stmt.var] = values[active]
        self._memory = {
            buffer: m if m.replica is None else Memory(m.data, m.elems, m.replica[active])
            for buffer, m in self._memory.items()
        }
        self._lanes = active.size
        self._block_numbers = self._block_numbers[active]
        self._thread_numbers = self._thread_numbers[active]
        some = active.size < values.size
        self._bound += some
        self.block(stmt.body)
        self._bound -= some
        self._vars, self._memory, self._lanes, self._block_numbers, self._thread_numbers = before

    def _alloc(self, buffer: Buffer, body: Sequence[Stmt]) -> None:
        if buffer.space is Space.SHARED:
            self._watched.add(buffer)
        super()._alloc(buffer, body)
        if buffer.space is Space.SHARED:
            self._watched.remove(buffer)
            shadow = self._shadows.pop(id(buffer), None)
            if shadow is not None:
                self._copies.forget(shadow)

    def _at(
        self, buffer: Buffer, where: int | np.ndarray, is_store: bool = False
    ) -> tuple[Memory, int | np.ndarray]:
        memory, where = super()._at(buffer, where, is_store)
        if buffer in self._watched:
            self._touch(buffer, memory, where, is_store)
        return memory, where

    def _describe(self, wrong: np.ndarray) -> str:
        """Which thread it is that ``wrong`` marks first."""
        lane = int(np.flatnonzero(np.broadcast_to(wrong, (self._lanes,)))[0])
        block, thread = self._block_numbers[lane], self._thread_numbers[lane]
        return f" (block {block}, thread {thread})"

    def _shadow_of(self, buffer: Buffer, memory: Memory) -> Shadow:
        # parameters that are one memory have one shadow
        key = id(buffer) if buffer.space is Space.SHARED else _address(memory)
        if key not in self._shadows:
            self._shadows[key] = Shadow.of(memory.data.size)
        return self._shadows[key]

    def _touch(
        self, buffer: Buffer, memory: Memory, where: int | np.ndarray, is_store: bool
    ) -> None:
        """Remembers who touches which element, and refuses races."""
        shadow = self._shadow_of(buffer, memory)
        at = np.broadcast_to(np.asarray(where, np.int64), (self._lanes,))
        blocks = self._block_numbers
        me = blocks * self._per_block + self._thread_numbers
        now = self._barriers

        def conflict(others: np.ndarray, bad: np.ndarray, what: str) -> None:
            if bad.any():
                lane = int(np.flatnonzero(bad)[0])
                self._race(buffer, memory, int(at[lane]), int(me[lane]), int(others[lane]), what)

        def apart(who: np.ndarray, when: np.ndarray) -> np.ndarray:
            """Where ``who``, then, and this lane, now, may come in either order."""
            foreign = (who != me) & (who >= 0)
            met = (who // self._per_block == blocks) & (when < now)
            found: np.ndarray = foreign & ~met
            return found

        verb = "stores" if is_store else "reads"
        copier = shadow.copier[at]
        if (copier != NOBODY).any():
            lane = int(np.flatnonzero(copier != NOBODY)[0])
            what = f"{verb} {'to ' * is_store}what is being copied there by"
            self._race(buffer, memory, int(at[lane]), int(me[lane]), int(copier[lane]), what)
        writer = shadow.writer[at]
        conflict(writer, apart(writer, shadow.written[at]), f"{verb} what is stored by")
        if is_store:
            reader, when = shadow.reader[at], shadow.read[at]
            several = (reader == SEVERAL) & (when == now)
            conflict(reader, apart(reader, when) | several, "stores to what is read by")
            readers = shadow.readers[at]
            foreign = (readers != NOBODY) & (readers != blocks)
            conflict(reader, foreign, "stores to what is read by")
            shadow.writer[at], shadow.written[at] = me, now
            conflict(shadow.writer[at], shadow.writer[at] != me, "stores to the same as")
            return
        fresh = (shadow.read[at] != now) | (shadow.reader[at] == NOBODY)
        shadow.reader[at[fresh]] = me[fresh]
        shadow.read[at] = now
        shadow.reader[at[shadow.reader[at] != me]] = SEVERAL
        fresh = shadow.readers[at] == NOBODY
        shadow.readers[at[fresh]] = blocks[fresh]
        shadow.readers[at[shadow.readers[at] != blocks]] = SEVERAL

    def _race(
        self, buffer: Buffer, memory: Memory, at: int, me: int, other: int, what: str
    ) -> None:
        def name(thread: int) -> str:
            if thread < 0:
                return "several threads"
            block, number = divmod(thread, self._per_block)
            return f"thread {number} of block {block}"

        raise VerifyError(
            f"kernel '{self._kernel.name}': a race for '{buffer.name}[{at % memory.elems}]': "
            f"{name(me)} {what} {name(other)}, with no barrier between"
        )
