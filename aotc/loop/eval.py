"""The checked evaluator: a kernel or program and numpy arrays in, the bytes that the machine must
give out.

The meaning is every loop run serially in order with the arithmetic of loop/arith.py. For speed a
loop whose iterations provably touch disjoint memory runs all iterations at once, one lane each,
which gives the same bytes. Every index is checked; what nobody wrote reads as NaN or as all ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from aotc.errors import UsageError, VerifyError
from aotc.graph.types import DType
from aotc.loop import arith
from aotc.loop.disjoint import iterations_disjoint
from aotc.loop.index import Affine, affine
from aotc.loop.ir import (
    Alloc,
    Bin,
    Bits,
    Buffer,
    Cmp,
    Conv,
    DotProduct,
    Expr,
    Fma,
    For,
    Kernel,
    Lit,
    Load,
    Prefetch,
    Quantize,
    Sel,
    Stmt,
    Store,
    Un,
    Var,
)
from aotc.loop.program import (
    Arg,
    Call,
    Check,
    Counter,
    If,
    Loop,
    Program,
    Role,
    Step,
    Storage,
)
from aotc.loop.walk import operands, post_order

_MAX_LANES = 1 << 16
_MAX_LOCAL_BYTES = 1 << 26
_POISON_BYTE = 0xFF


def run_kernel(kernel: Kernel, arrays: Sequence[np.ndarray]) -> None:
    """Run ``kernel`` on one flat array per parameter, storing in place.

    Each array has the parameter's dtype and exactly its ``elems`` elements. VerifyError names the
    buffer of an index that is out of bounds or of an array that does not fit.
    """
    if len(arrays) != len(kernel.params):
        raise VerifyError(f"kernel '{kernel.name}' takes {len(kernel.params)} arrays")
    memory = {}
    for buffer, array in zip(kernel.params, arrays, strict=True):
        if array.shape != (buffer.elems,) or array.dtype != buffer.dtype.numpy:
            raise VerifyError(
                f"kernel '{kernel.name}': '{buffer.name}' is {buffer.dtype.value}[{buffer.elems}], "
                f"the array is {array.dtype}{list(array.shape)}"
            )
        memory[buffer] = _Memory(array, buffer.elems, None)
    written = [a for b, a in zip(kernel.params, arrays, strict=True) if b in kernel.writes]
    overlapping = any(
        np.may_share_memory(one, other)
        for one in written
        for other in arrays
        if one is not other
    ) or len({id(array) for array in arrays}) < len(arrays)
    _Run(kernel, memory, overlapping).block(kernel.body)


def run_program(program: Program, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run every step in order; the outputs by name, each of its declared dtype and shape.

    UsageError when an input is missing or of another type, or a check fails. Every storage is
    memory of its own.
    """
    machine = _Machine()
    for name, type_, storage in program.inputs:
        if name not in inputs:
            raise UsageError(f"input '{name}' is missing", remedy=f"pass an array of {type_}")
        given = inputs[name]
        if given.shape != type_.dims or given.dtype != type_.dtype.numpy:
            raise UsageError(f"input '{name}' is {given.dtype}{list(given.shape)}, not {type_}")
        machine.memory[storage] = _storage_bytes(storage, given)
    machine.block(program.steps)
    results = {}
    for name, type_, storage in program.outputs:
        raw = machine.memory.setdefault(storage, _storage_bytes(storage, storage.data))
        values = raw[: type_.size_bytes].view(type_.dtype.numpy)
        results[name] = values.reshape(type_.dims).copy()
    return results


class _Machine:
    """The memory of one run of a program, and how often each loop under way has gone round."""

    def __init__(self) -> None:
        self.memory: dict[Storage, np.ndarray] = {}
        self._counters: dict[Counter, int] = {}

    def block(self, steps: Sequence[Step]) -> None:
        """Run the steps in order."""
        for step in steps:
            match step:
                case Call(kernel=kernel, args=args):
                    views = zip(kernel.params, args, strict=True)
                    run_kernel(kernel, [self._view(arg, b, kernel) for b, arg in views])
                case If(condition=condition, then=then, other=other):
                    self.block(then if self._scalar(condition, DType.BOOL)[0] else other)
                case Loop():
                    self._loop(step)
                case Check(condition=condition, sentence=sentence):
                    if not self._scalar(condition, DType.BOOL)[0]:
                        raise UsageError(sentence)

    def _loop(self, loop: Loop) -> None:
        trips = loop.limit
        if loop.trips is not None:
            trips = min(trips, int(self._scalar(loop.trips, DType.I64)[0]))
        done = 0
        while done < trips:
            if loop.going is not None and not self._scalar(loop.going, DType.BOOL)[0]:
                break
            self._counters[loop.counter] = done
            if loop.index is not None:
                self._scalar(loop.index, DType.I64)[0] = done
            self.block(loop.body)
            done += 1
        self._counters.pop(loop.counter, None)
        if loop.done is not None:
            self._scalar(loop.done, DType.I64)[0] = done

    def _scalar(self, arg: Arg, dtype: DType) -> np.ndarray:
        return self._elements(arg, dtype, 1, "a step's argument")

    def _view(self, arg: Arg, buffer: Buffer, kernel: Kernel) -> np.ndarray:
        if arg.storage.role is Role.CONST and buffer in kernel.writes:
            raise VerifyError(f"kernel '{kernel.name}' writes to the constant '{arg.storage.name}'")
        what = f"kernel '{kernel.name}': '{buffer.name}'"
        return self._elements(arg, buffer.dtype, buffer.elems, what)

    def _elements(self, arg: Arg, dtype: DType, elems: int, what: str) -> np.ndarray:
        """``elems`` elements where ``arg`` points now."""
        storage = arg.storage
        if storage not in self.memory:
            if storage.role is Role.CONST and storage.data is None:
                raise VerifyError(f"constant '{storage.name}' has no data")
            self.memory[storage] = _storage_bytes(storage, storage.data)
        start = arg.offset_bytes
        for counter, step_bytes in arg.moves:
            if counter not in self._counters:
                raise VerifyError(f"{what} moves with '{counter.name}', outside that loop")
            start += self._counters[counter] * step_bytes
        end = start + elems * dtype.size_bytes
        if start < 0 or end > storage.size_bytes:
            raise VerifyError(
                f"{what} ends at byte {end} of storage '{storage.name}', "
                f"which has {storage.size_bytes}"
            )
        return self.memory[storage][start:end].view(dtype.numpy)


def _storage_bytes(storage: Storage, values: np.ndarray | None) -> np.ndarray:
    """Fresh poisoned memory of the storage's size that starts with ``values``."""
    raw = np.full(storage.size_bytes, _POISON_BYTE, np.uint8)
    if values is not None:
        data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        if data.size > raw.size:
            raise VerifyError(f"storage '{storage.name}' is smaller than its values")
        raw[: data.size] = data
    return raw


@dataclass(frozen=True)
class _Memory:
    """A buffer's elements; a private one has a replica per lane of its scope, and ``replica`` says
    for each current lane which one it sees (None: there is one for all)."""

    data: np.ndarray
    elems: int
    replica: np.ndarray | None

    def repeated(self, count: int) -> _Memory:
        """The same memory as ``count`` times as many lanes see it."""
        assert self.replica is not None
        return _Memory(self.data, self.elems, np.repeat(self.replica, count))


class _Run:
    """One kernel run: ``lanes`` iterations at once, each variable an int (the same in all lanes) or
    one value a lane."""

    def __init__(self, kernel: Kernel, memory: dict[Buffer, _Memory], serial_only: bool) -> None:
        self._kernel = kernel
        self._memory = memory
        self._serial_only = serial_only
        self._vars: dict[Var, int | np.ndarray] = {}
        self._lanes = 1
        self._forms: dict[int, Affine | None] = {}
        self._literals: dict[int, np.ndarray] = {}
        self._orders: dict[int, list[Expr]] = {}
        self._disjoint: dict[int, bool] = {}

    def block(self, body: Sequence[Stmt]) -> None:
        """Run the statements in order."""
        for stmt in body:
            match stmt:
                case Store():
                    self._store(stmt)
                case For():
                    self._loop(stmt)
                case Alloc(buffer=buffer, body=inner):
                    self._alloc(buffer, inner)
                case Prefetch():
                    pass
                case _:
                    raise VerifyError(f"kernel '{self._kernel.name}': {stmt!r} is no statement")

    def _alloc(self, buffer: Buffer, body: Sequence[Stmt]) -> None:
        size = self._lanes * buffer.elems
        raw = np.full(size * buffer.dtype.size_bytes, _POISON_BYTE, np.uint8)
        replica = np.arange(self._lanes) if self._lanes > 1 else None
        self._memory[buffer] = _Memory(raw.view(buffer.dtype.numpy), buffer.elems, replica)
        self.block(body)
        del self._memory[buffer]

    def _loop(self, loop: For) -> None:
        if id(loop) not in self._disjoint:
            self._disjoint[id(loop)] = not self._serial_only and iterations_disjoint(loop)
        chunk = 1
        if self._disjoint[id(loop)]:
            room = _MAX_LOCAL_BYTES // max(_local_bytes(loop.body), 1)
            chunk = max(min(_MAX_LANES, room) // self._lanes, 1)
        if chunk == 1 or loop.extent == 1:
            for value in range(loop.extent):
                self._vars[loop.var] = value
                self.block(loop.body)
        else:
            for start in range(0, loop.extent, chunk):
                with self._expanded(loop.var, start, min(start + chunk, loop.extent)):
                    self.block(loop.body)
        self._vars.pop(loop.var, None)

    @contextmanager
    def _expanded(self, var: Var, start: int, stop: int) -> Iterator[None]:
        """Every lane becomes stop-start lanes, one for each value of ``var``."""
        count = stop - start
        before = self._vars, self._memory, self._lanes
        self._vars = {
            v: value if isinstance(value, int) else np.repeat(value, count)
            for v, value in before[0].items()
        }
        self._vars[var] = np.tile(np.arange(start, stop, dtype=np.int64), self._lanes)
        self._memory = {
            buffer: m if m.replica is None else m.repeated(count) for buffer, m in before[1].items()
        }
        self._lanes *= count
        try:
            yield
        finally:
            self._vars, self._memory, self._lanes = before

    def _store(self, stmt: Store) -> None:
        values: dict[int, np.ndarray] = {}
        value = self._eval(stmt.value, values)
        memory, where = self._locate(stmt.buffer, stmt.index, values)
        memory.data[where] = value if isinstance(where, np.ndarray) else value[0]

    def _locate(
        self, buffer: Buffer, index: Expr, values: dict[int, np.ndarray]
    ) -> tuple[_Memory, int | np.ndarray]:
        """The buffer's memory and the checked position in it, one a lane or one for all."""
        memory = self._memory.get(buffer)
        if memory is None:
            raise VerifyError(f"kernel '{self._kernel.name}': no buffer '{buffer.name}' in scope")
        where = self._index(index, values)
        low, high = (where, where) if isinstance(where, int) else (where.min(), where.max())
        if low < 0 or high >= memory.elems:
            bad = int(low if low < 0 else high)
            raise VerifyError(
                f"kernel '{self._kernel.name}': index {bad} is outside '{buffer.name}', "
                f"which has {memory.elems} elements"
            )
        if memory.replica is not None:
            where = memory.replica * memory.elems + where
        return memory, where

    def _group(
        self, buffer: Buffer, index: Expr, terms: int, values: dict[int, np.ndarray]
    ) -> list[np.ndarray]:
        """The ``terms`` elements of ``buffer`` from ``index`` on, which a dot product reads."""
        memory, first = self._locate(buffer, index, values)
        if np.max(first) + terms > memory.elems:
            raise VerifyError(
                f"kernel '{self._kernel.name}': a group from {np.max(first)} is not inside "
                f"'{buffer.name}', which has {memory.elems} elements"
            )
        return [np.atleast_1d(memory.data[first + t]) for t in range(terms)]

    def _index(self, index: Expr, values: dict[int, np.ndarray]) -> int | np.ndarray:
        form = self._form(index)
        if form is None:
            found = self._eval(index, values)
            return int(found[0]) if found.size == 1 else found
        total: int | np.ndarray = form.const
        for var, factor in form.terms:
            total = total + self._var(var) * factor
        return total

    def _form(self, index: Expr) -> Affine | None:
        if id(index) not in self._forms:
            self._forms[id(index)] = affine(index)
        return self._forms[id(index)]

    def _var(self, var: Var) -> int | np.ndarray:
        if var not in self._vars:
            raise VerifyError(f"kernel '{self._kernel.name}': variable '{var.name}' out of scope")
        return self._vars[var]

    def _eval(self, root: Expr, values: dict[int, np.ndarray]) -> np.ndarray:
        """The value in each lane, or one element when it is the same in all of them. ``values``
        keeps what this statement has computed so far."""
        if id(root) not in self._orders:
            self._orders[id(root)] = post_order((root,), self._operands)
        for expr in self._orders[id(root)]:
            if id(expr) not in values:
                values[id(expr)] = self._eval_node(expr, values)
        return values[id(root)]

    def _operands(self, expr: Expr) -> tuple[Expr, ...]:
        """What must be computed first; an affine index takes a shorter way."""
        affine_load = isinstance(expr, Load) and self._form(expr.index) is not None
        return () if affine_load else operands(expr)

    def _eval_node(self, expr: Expr, values: dict[int, np.ndarray]) -> np.ndarray:
        match expr:
            case Lit(value=value, dtype=dtype):
                if id(expr) not in self._literals:
                    self._literals[id(expr)] = np.array([value], dtype.numpy)
                return self._literals[id(expr)]
            case Var():
                return np.atleast_1d(np.asarray(self._var(expr), np.int64))
            case Load(buffer=buffer, index=index):
                memory, where = self._locate(buffer, index, values)
                return np.atleast_1d(memory.data[where])
            case DotProduct(c=c):
                first, second = (
                    self._group(buffer, i, expr.terms, values) for buffer, i in expr.reads
                )
                return arith.dot_product(first, second, values[id(c)])
            case Un(fn=fn, x=x):
                return arith.unary(fn, values[id(x)])
            case Bin(fn=fn, a=a, b=b):
                return arith.binary(fn, values[id(a)], values[id(b)])
            case Fma(a=a, b=b, c=c):
                return arith.fma(values[id(a)], values[id(b)], values[id(c)])
            case Cmp(fn=fn, a=a, b=b):
                return arith.compare(fn, values[id(a)], values[id(b)])
            case Sel(cond=cond, a=a, b=b):
                return np.where(values[id(cond)], values[id(a)], values[id(b)])
            case Conv(x=x, dtype=dtype):
                return arith.convert(values[id(x)], dtype)
            case Quantize(x=x, zero=zero, low=low, high=high, dtype=dtype):
                return arith.quantize(values[id(x)], zero, low, high, dtype)
            case Bits(x=x, dtype=dtype):
                return arith.reinterpret(values[id(x)], dtype)
        raise VerifyError(f"kernel '{self._kernel.name}': {expr!r} is no expression")


def _local_bytes(body: Sequence[Stmt]) -> int:
    """Bytes of the largest set of private buffers alive at once in ``body``."""
    most = 0
    for stmt in body:
        own = stmt.buffer.elems * stmt.buffer.dtype.size_bytes if isinstance(stmt, Alloc) else 0
        most = max(most, own + _local_bytes(getattr(stmt, "body", ())))
    return most


