"""The checked evaluator: a kernel or program and numpy arrays in, the bytes that the machine must
give out (loop/interpret.py; for kernels of a GPU loop/lockstep.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from aotc.errors import UsageError, VerifyError
from aotc.graph.types import DType
from aotc.loop.interpret import POISON_BYTE, Memory, Run
from aotc.loop.ir import Buffer, Kernel
from aotc.loop.launch import is_gpu_kernel
from aotc.loop.lockstep_warpgroup import WarpgroupRun
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
        memory[buffer] = Memory(array, buffer.elems, None)
    written = [a for b, a in zip(kernel.params, arrays, strict=True) if b in kernel.writes]
    overlapping = any(
        np.may_share_memory(one, other)
        for one in written
        for other in arrays
        if one is not other
    ) or len({id(array) for array in arrays}) < len(arrays)
    run = WarpgroupRun if is_gpu_kernel(kernel) else Run
    run(kernel, memory, overlapping).block(kernel.body)


def run_program(
    program: Program,
    inputs: Mapping[str, np.ndarray],
    memory: Mapping[Storage, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """Run every step in order; the outputs by name, each of its declared dtype and shape.

    UsageError when an input is missing or of another type, or a check fails. Every storage is
    memory of its own, but for those of which the bytes are given in ``memory``.
    """
    machine = _Machine()
    machine.memory.update(memory or {})
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
    raw = np.full(storage.size_bytes, POISON_BYTE, np.uint8)
    if values is not None:
        data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        if data.size > raw.size:
            raise VerifyError(f"storage '{storage.name}' is smaller than its values")
        raw[: data.size] = data
    return raw
