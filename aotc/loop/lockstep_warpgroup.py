"""Copies by tensor maps and products of warpgroups, without a GPU: kernels with the statements of
loop/ir_async.py in, their stores out, or VerifyError for what would go wrong on some GPU.

A copy or a product happens at once here. What is under way on a GPU until somebody has waited for
it is known by element, and may not be touched before: no thread sees what another has waited for
without a barrier behind that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from aotc.errors import VerifyError
from aotc.loop.interpret import Memory
from aotc.loop.ir import Barrier, Buffer, Expr, Kernel, Lit, Space, Stmt, TensorMap
from aotc.loop.ir_async import (
    WARPGROUP,
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
from aotc.loop.launch import launch_of
from aotc.loop.lockstep import LockstepRun
from aotc.loop.lockstep_shadow import NOBODY, SEVERAL, Shadow
from aotc.loop.lockstep_signals import Problem, Signals
from aotc.loop.mma import KINDS
from aotc.loop.walk import all_statements
from aotc.loop.wgmma import (
    TILE_ALIGNMENT,
    left_of_fragments,
    multiply,
    result_elems,
    right_tile,
    row_tile,
    swizzled,
    to_tf32,
)


@dataclass
class _Tile:
    """What is known of each element of a SHARED buffer, in all blocks: the signal and its phase
    that brings it, by which group of products each warpgroup last reads it, the thread that stored
    to it last and when (by the clock), and the one that has read it since it was brought."""

    signals: Signals | None
    signal: np.ndarray
    phase: np.ndarray
    reads: np.ndarray
    writer: np.ndarray
    written: np.ndarray
    reader: np.ndarray
    read: np.ndarray

    @classmethod
    def of(cls, elems: int, warpgroups: int) -> _Tile:
        signal, phase, *others = (np.full(elems, NOBODY, np.int64) for _ in range(6))
        return cls(None, signal, phase, np.zeros((warpgroups, elems), np.int64), *others)

    def note_reader(self, at: np.ndarray, threads: np.ndarray, now: int) -> None:
        """Each of ``threads`` reads one element."""
        alone = (self.reader[at] == NOBODY) | (self.reader[at] == threads)
        self.reader[at] = np.where(alone, threads, SEVERAL)
        self.reader[at[self.reader[at] != threads]] = SEVERAL
        self.read[at] = now


@dataclass
class _Held:
    """What is known of each element of a REGISTER buffer of products, in all threads: the group
    that works on it (0: none), the shape of its products, and when the thread last touched it."""

    group: np.ndarray
    shape: np.ndarray
    touched: np.ndarray

    @classmethod
    def of(cls, elems: int) -> _Held:
        return cls(*(np.zeros(elems, np.int64) for _ in range(3)))


class WarpgroupRun(LockstepRun):
    """One run of a GPU kernel with all statements there are."""

    def __init__(self, kernel: Kernel, memory: dict[Buffer, Memory], serial_only: bool) -> None:
        super().__init__(kernel, memory, serial_only)
        self._clock = 0
        self._signals: dict[Buffer, Signals] = {}
        self._tiles: dict[Buffer, _Tile] = {}
        self._held: dict[Buffer, _Held] = {}
        self._roles = _roles(kernel)
        x, y, z = launch_of(kernel).grid
        threads = x * y * z * self._per_block if any(self._roles.values()) else 0
        # of each thread: groups of products committed, complete, and complete at the last barrier
        self._committed, self._complete, self._released = (
            np.zeros(threads, np.int64) for _ in range(3)
        )
        # when each thread has last fenced its registers, and its stores: at all, before a barrier
        self._fenced, self._shown, self._published = (
            np.full(threads, NOBODY, np.int64) for _ in range(3)
        )

    def statement(self, stmt: Stmt) -> None:
        """Runs one statement in all lanes."""
        self._clock += 1
        match stmt:
            case SignalInit() | SignalExpect() | SignalWait():
                self._signal(stmt)
            case TileCopy():
                self._copy_tile(stmt)
            case Wgmma():
                self._multiply(stmt)
            case WgmmaFence():
                self._expect_warpgroups("a fence of products")
                self._fenced[self._threads()] = self._clock
            case WgmmaCommit():
                self._expect_warpgroups("a group of products")
                self._committed[self._threads()] += 1
            case WgmmaWait():
                self._wait_for_products(stmt)
            case ProxyFence():
                self._shown[self._threads()] = self._clock
            case Barrier():
                super().statement(stmt)
                self._meet()
            case AsyncWait():
                self._wait_for_copies(stmt)
            case _:
                super().statement(stmt)

    def _meet(self) -> None:
        self._released, self._published = self._complete.copy(), self._shown.copy()
        for signals in self._signals.values():
            signals.meet()

    def _refuse(self, buffer: Buffer, at: int, thread: int, text: str) -> NoReturn:
        """VerifyError about what ``thread`` (of the grid) does to the element ``at`` of the memory
        of ``buffer``."""
        block, number = divmod(thread, self._per_block)
        raise VerifyError(
            f"kernel '{self._kernel.name}': '{buffer.name}[{at % buffer.elems}]': thread {number} "
            f"of block {block} {text}"
        )

    def _check(self, buffer: Buffer, at: np.ndarray, wrong: np.ndarray, text: str) -> None:
        """`_refuse` for the first element that ``wrong`` marks; ``at`` and ``wrong`` have a row for
        each lane, or for each warpgroup."""
        if wrong.any():
            wrong = np.broadcast_to(wrong, at.shape)
            row, column = (int(i) for i in np.argwhere(wrong)[0])
            lane = row * (self._lanes // at.shape[0])
            self._refuse(buffer, int(at[row, column]), int(self._threads()[lane]), text)

    def _expect_warpgroups(self, what: str) -> None:
        """VerifyError unless the lanes are whole warpgroups, one after the other."""
        self._expect_together(WARPGROUP, what)

    def _shadow(self, buffer: Buffer) -> Shadow:
        return self._shadow_of(buffer, self._memory[buffer])

    def _lanes_of(self, where: int | np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.asarray(where, np.int64), (self._lanes,))

    # Memory that comes into being and is touched.

    def _alloc(self, buffer: Buffer, body: Sequence[Stmt]) -> None:
        elems = self._lanes * buffer.elems
        if buffer in self._roles["signals"]:
            self._signals[buffer] = Signals(elems, self._per_block)
        if buffer in self._roles["tiles"]:
            self._tiles[buffer] = _Tile.of(elems, -(-self._per_block // WARPGROUP))
        if buffer in self._roles["registers"]:
            self._held[buffer] = _Held.of(elems)
        super()._alloc(buffer, body)
        self._expect_over(buffer)
        for known in (self._signals, self._tiles, self._held):
            known.pop(buffer, None)

    def _expect_over(self, buffer: Buffer) -> None:
        """VerifyError if something is under way to or from the memory of ``buffer``, which ends."""
        at = np.arange(self._lanes * buffer.elems).reshape(self._lanes, buffer.elems)
        if buffer in self._tiles:
            tile = self._tiles[buffer]
            # of no use to anybody if no thread has waited for it
            known = None if tile.signals is None else tile.signals.known.max(axis=1)
            coming = tile.signal != NOBODY
            if known is not None:
                coming &= known[tile.signal] <= tile.phase
            self._check(buffer, at, coming[at], "ends while a copy to it may be under way")
        if buffer in self._held:
            busy = self._held[buffer].group[at] > self._complete[self._threads()][:, None]
            self._check(buffer, at, busy, "ends while a product with it is under way")

    def _at(
        self, buffer: Buffer, where: int | np.ndarray, is_store: bool = False
    ) -> tuple[Memory, int | np.ndarray]:
        memory, where = super()._at(buffer, where, is_store)
        if buffer in self._held:
            self._touch_register(buffer, self._lanes_of(where)[:, None], is_store)
        elif buffer in self._tiles:
            self._touch_tile(buffer, self._lanes_of(where)[:, None], is_store)
        return memory, where

    def _touch_register(self, buffer: Buffer, at: np.ndarray, is_store: bool) -> None:
        held, threads = self._held[buffer], self._threads()[:, None]
        verb = "stores to" if is_store else "reads"
        # a register that is a left factor may be read
        busy = (held.group[at] > self._complete[threads]) & (is_store | (held.shape[at] > 0))
        self._check(buffer, at, busy, f"{verb} it while a product is under way")
        held.touched[at] = self._clock

    def _touch_tile(self, buffer: Buffer, at: np.ndarray, is_store: bool) -> None:
        tile, threads = self._tiles[buffer], self._threads()[:, None]
        verb = "stores to" if is_store else "reads"
        coming = self._coming(tile, at, threads % self._per_block)
        self._check(buffer, at, coming, f"{verb} it with no wait for the copy to it")
        if is_store:
            self._expect_unread(buffer, at, threads)
            tile.writer[at], tile.written[at] = threads, self._clock
        else:
            tile.note_reader(at[:, 0], threads[:, 0], self._clock)

    def _coming(
        self, tile: _Tile, at: np.ndarray, numbers: np.ndarray, together: int = 1
    ) -> np.ndarray:
        """Where a copy may be under way, as far as the threads with these ``numbers`` know; of
        groups of several ``together``, any of them."""
        signal = tile.signal[at]
        if tile.signals is None:
            return np.zeros(signal.shape, bool)
        known = tile.signals.known_to_all(together)[signal, numbers]
        found: np.ndarray = (signal != NOBODY) & (known <= tile.phase[at])
        return found

    def _expect_unread(self, buffer: Buffer, at: np.ndarray, threads: np.ndarray) -> None:
        """VerifyError where a product may still read what is now overwritten."""
        tile, block = self._tiles[buffer], threads // self._per_block * self._per_block
        for number, reads in enumerate(tile.reads):
            busy = reads[at] > self._released[block + number * WARPGROUP]
            text = f"overwrites it while a product of warpgroup {number} may read it"
            self._check(buffer, at, busy, f"{text} (WgmmaWait, then Barrier)")

    # Signals, and copies that complete them.

    def _signal(self, stmt: SignalInit | SignalExpect | SignalWait) -> None:
        is_init = isinstance(stmt, SignalInit)
        at = self._lanes_of(self._locate(stmt.buffer, stmt.at, {}, is_store=is_init)[1])
        signals, numbers = self._signals[stmt.buffer], self._threads() % self._per_block
        match stmt:
            case SignalInit(arrivals=arrivals):
                signals.init(at, arrivals)
                return
            case SignalExpect(bytes=count):
                problem = signals.expect(at, numbers, count)
            case SignalWait(parity=parity):
                problem = signals.wait(at, numbers, self._lanes_of(self._index(parity, {})))
        self._expect_fine(stmt.buffer, at, problem)
        signals.complete()

    def _expect_fine(self, signal: Buffer, at: np.ndarray, problem: Problem | None) -> None:
        if problem is not None:
            lane = problem.lane
            self._refuse(signal, int(at[lane]), int(self._threads()[lane]), problem.text)

    def _copy_tile(self, stmt: TileCopy) -> None:
        at = self._lanes_of(self._locate(stmt.signal, stmt.signal_at, {})[1])
        signals, threads = self._signals[stmt.signal], self._threads()
        bytes_ = int(np.prod(stmt.map.box)) * stmt.buffer.dtype.size_bytes
        problem = signals.bring(at, threads % self._per_block, bytes_)
        self._expect_fine(stmt.signal, at, problem)
        values = self._box(stmt.map, stmt.position)
        data, where = self._elements(stmt.buffer, stmt.at, np.arange(values.shape[1]), 1)
        counts = np.bincount(where.reshape(-1), minlength=data.size)
        self._check(stmt.buffer, where, counts[where] > 1, "copies to what another copies to")
        self._overwrite(stmt.buffer, where, threads[:, None])
        data[where] = values
        tile = self._tiles[stmt.buffer]
        if tile.signals is not signals and tile.signals is not None:
            raise VerifyError(
                f"kernel '{self._kernel.name}': '{stmt.buffer.name}' has signals in two buffers"
            )
        tile.signals = signals
        tile.signal[where], tile.phase[where] = at[:, None], signals.phase[at][:, None]
        tile.writer[where] = tile.reader[where] = NOBODY
        signals.complete()

    def _box(self, map_: TensorMap, position: Sequence[Expr]) -> np.ndarray:
        """The elements of the box of each lane: [lanes, elements]."""
        if map_.buffer in self._watched:
            self._refuse(map_.buffer, 0, int(self._threads()[0]), "copies what is stored to")
        shape = (self._lanes, *map_.box)
        inside, flat = np.ones(shape, bool), np.full(shape, map_.offset)
        for axis, (first, box) in enumerate(zip(position, map_.box, strict=True)):
            start = self._lanes_of(self._index(first, {}))
            places = start[:, None] + np.arange(box)
            places = places.reshape(-1, *(box if i == axis else 1 for i in range(len(map_.box))))
            inside = inside & (places >= 0) & (places < map_.dims[axis])
            flat = flat + places * map_.strides[axis]
        memory = self._memory[map_.buffer]
        found = np.where(inside, memory.data[np.where(inside, flat, 0)], memory.data.dtype.type(0))
        found = found.reshape(self._lanes, -1)
        return to_tf32(found) if map_.tf32 else found

    def _elements(
        self, buffer: Buffer, first: Expr, elems: np.ndarray, group: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The memory of a swizzled tile, and where ``elems`` lie in it that begin at ``first``: a
        row for each ``group`` lanes, which must agree where."""
        start = self._lanes_of(self._index(first, {})).reshape(-1, group)
        if (start != start[:, :1]).any():
            raise VerifyError(f"kernel '{self._kernel.name}': threads of a warpgroup disagree")
        flat = start[:, :1] + elems.reshape(-1)
        if flat.max() >= buffer.elems or flat.min() < 0 or buffer.alignment % TILE_ALIGNMENT:
            raise VerifyError(f"kernel '{self._kernel.name}': a tile outside '{buffer.name}'")
        memory = self._memory[buffer]
        replica = 0 if memory.replica is None else memory.replica[::group, None] * memory.elems
        return memory.data, swizzled(flat, buffer.dtype.size_bytes) + replica

    def _overwrite(self, buffer: Buffer, at: np.ndarray, threads: np.ndarray) -> None:
        """Each of ``threads`` begins to copy to a row of elements of ``buffer``."""
        tile = self._tiles[buffer]
        coming = self._coming(tile, at, threads % self._per_block)
        self._check(buffer, at, coming, "copies to it with no wait for the copy before")
        self._expect_unread(buffer, at, threads)
        hidden = (tile.writer[at] != NOBODY) & self._hidden(tile, at)
        self._check(buffer, at, hidden, "copies over what is stored with no ProxyFence and Barrier")
        reader, all_threads = tile.reader[at], self._published.reshape(-1, self._per_block)
        several = all_threads.min(axis=1)[threads // self._per_block]
        seen = np.where(reader == SEVERAL, several, self._published[reader])
        early = (reader != NOBODY) & (seen < tile.read[at])
        self._check(buffer, at, early, "copies over what is read with no ProxyFence and Barrier")
        shadow = self._shadow(buffer)
        self._check(buffer, at, shadow.copier[at] != NOBODY, "copies to what is being copied to")
        # from now on it is the wait for the signal that counts
        shadow.writer[at] = shadow.reader[at] = NOBODY

    def _hidden(self, tile: _Tile, at: np.ndarray) -> np.ndarray:
        """Where what a thread has stored is not yet seen by copies and products."""
        writer = tile.writer[at]
        hidden: np.ndarray = (writer != NOBODY) & (self._published[writer] < tile.written[at])
        return hidden

    def _wait_for_copies(self, stmt: AsyncWait) -> None:
        """What has been waited for counts as stored now."""
        before = {b: self._shadow(b).copier != NOBODY for b in self._tiles}
        super().statement(stmt)
        for buffer, copied in before.items():
            ended = copied & (self._shadow(buffer).copier == NOBODY)
            self._tiles[buffer].written[ended] = self._clock

    # Products.

    def _multiply(self, stmt: Wgmma) -> None:
        """The products of all warpgroups at once."""
        self._expect_warpgroups("a product of a warpgroup")
        kind, sums = KINDS[stmt.kind], self._fragment(stmt.d, stmt.d_at, result_elems(stmt.columns))
        right = self._factor(stmt.b, stmt.b_at, right_tile(stmt))
        if stmt.a.space is Space.REGISTER:
            where = self._fragment(stmt.a, stmt.a_at, kind.left_elems)
            self._expect_settled(stmt.a, where, 0)
            held = self._memory[stmt.a].data[where].reshape(-1, WARPGROUP, kind.left_elems)
            left = left_of_fragments(kind, held)
        else:
            left = self._factor(stmt.a, stmt.a_at, row_tile(kind, 64))
        shape = stmt.columns * stmt.d.elems + int(self._lanes_of(self._index(stmt.d_at, {}))[0])
        self._expect_settled(stmt.d, sums, shape + 1)
        data = self._memory[stmt.d].data
        before = data[sums].reshape(-1, WARPGROUP, sums.shape[1])
        data[sums] = multiply(kind, stmt.columns, left, right, before).reshape(sums.shape)

    def _fragment(self, buffer: Buffer, first: Expr, count: int) -> np.ndarray:
        """Where the elements of a fragment lie in the memory of ``buffer``: [lanes, elements]."""
        start = self._lanes_of(self._index(first, {}))
        if start.min() < 0 or start.max() + count > buffer.elems:
            raise VerifyError(f"kernel '{self._kernel.name}': beyond '{buffer.name}'")
        memory = self._memory[buffer]
        replica = 0 if memory.replica is None else memory.replica[:, None] * memory.elems
        where: np.ndarray = start[:, None] + np.arange(count) + replica
        return where

    def _expect_settled(self, buffer: Buffer, at: np.ndarray, shape: int) -> None:
        """VerifyError unless a product may begin with the registers ``at`` now; it is then under
        way. Several of one ``shape`` may be, where that is not 0."""
        held, threads = self._held[buffer], self._threads()[:, None]
        late = held.touched[at] >= self._fenced[threads]
        self._check(buffer, at, late, "multiplies with it with no WgmmaFence since it was touched")
        if shape:
            busy = held.group[at] > self._complete[threads]
            other = busy & (held.shape[at] != shape)
            self._check(buffer, at, other, "adds to it while a product of another shape does")
        held.group[at], held.shape[at] = self._committed[threads] + 1, shape

    def _factor(self, buffer: Buffer, first: Expr, elems: np.ndarray) -> np.ndarray:
        """A factor in shared memory, which is read until the group is complete: a matrix for each
        warpgroup."""
        data, where = self._elements(buffer, first, elems, WARPGROUP)
        tile, threads = self._tiles[buffer], self._threads()[::WARPGROUP, None]
        group = threads % self._per_block // WARPGROUP
        coming = self._coming(tile, where, group, WARPGROUP)
        self._check(buffer, where, coming, "multiplies with it with no wait for the copy to it")
        under_way = self._shadow(buffer).copier[where] != NOBODY
        self._check(buffer, where, under_way, "multiplies with what is being copied there")
        text = "multiplies with what is stored there with no ProxyFence and Barrier"
        self._check(buffer, where, self._hidden(tile, where), text)
        tile.reads[group, where] = self._committed[threads] + 1
        found: np.ndarray = data[where].reshape(-1, *elems.shape)
        return found

    def _wait_for_products(self, stmt: WgmmaWait) -> None:
        self._expect_warpgroups("a wait for products")
        threads = self._threads()
        for buffer, held in self._held.items():
            if buffer in stmt.sums:
                continue
            at = self._fragment(buffer, Lit(0), buffer.elems)
            busy = (held.group[at] > self._complete[threads][:, None]) & (held.shape[at] > 0)
            self._check(buffer, at, busy, "waits for a product, but not for what it adds to")
        ended = self._committed[threads] - stmt.pending
        self._complete[threads] = np.maximum(self._complete[threads], ended)


def _roles(kernel: Kernel) -> dict[str, set[Buffer]]:
    """The buffers of signals, of swizzled tiles, and of the registers of products."""
    roles: dict[str, set[Buffer]] = {"signals": set(), "tiles": set(), "registers": set()}
    for stmt in all_statements(kernel.body):
        match stmt:
            case SignalInit(buffer=buffer):
                roles["signals"].add(buffer)
            case TileCopy(buffer=buffer):
                roles["tiles"].add(buffer)
            case Wgmma(d=d, a=a, b=b):
                roles["registers"].add(d)
                roles["registers" if a.space is Space.REGISTER else "tiles"].add(a)
                roles["tiles"].add(b)
    return roles
