"""A Program, its MemoryPlan and inputs in, time, arithmetic and bytes of every kernel out.

Each call is timed where it stands in the order of the run, in the memory that the plan gives it, so
that it finds the caches as a run leaves them.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aotc.codegen.emit import emit_kernel
from aotc.codegen.machine import compile_module
from aotc.compiled import aligned_bytes, check_host, link_object
from aotc.debug.count import count_bytes, count_flop
from aotc.debug.peak import SWEEP_BYTES, fma_kernel, sweep_kernel
from aotc.loop.ir import Buffer, Kernel
from aotc.loop.program import Program, Role, Storage, counted_calls
from aotc.memory.arena import MemoryPlan
from aotc.memory.constants import lay_out_constants
from aotc.memory.overlap import overlapping_params
from aotc.target import Target

_ALIGNMENT = 64


@dataclass(frozen=True)
class KernelTime:
    """One kernel: seconds, flop and bytes are of all its calls in one run together."""

    name: str
    recipe: str
    calls: int
    seconds: float
    flop: int
    bytes_touched: int


@dataclass(frozen=True)
class Profile:
    """The kernels, slowest first, and what one core reaches: FLOP and bytes per second."""

    kernels: tuple[KernelTime, ...]
    peak_flops: float
    bandwidth: float
    rounds: int


def profile_program(
    program: Program,
    plan: MemoryPlan,
    target: Target,
    inputs: Mapping[str, np.ndarray],
    *,
    budget_seconds: float = 1.0,
) -> Profile:
    """Times each kernel of ``program`` on one thread: the least of several rounds of whole runs.

    ``inputs`` are arrays of the program's types by input name. A call inside a loop is timed as in
    the first iteration and counted as often as the loop is likely to run; both sides of a branch
    count. UsageError when this machine cannot run code for ``target``.
    """
    check_host(target)
    memory = _Memory(program, plan, inputs)
    counted = list(counted_calls(program.steps))
    calls = [
        (call.kernel, [memory.address(a.storage) + a.offset_bytes for a in call.args])
        for call, _ in counted
    ]
    overlapping = overlapping_params([(program, plan.offsets)])
    best, rounds = _least_seconds(calls, target, budget_seconds, overlapping)
    peak, bandwidth = _measure_machine(target)
    totals: dict[Kernel, tuple[int, float]] = {}
    for (call, times), seconds in zip(counted, best, strict=True):
        count, total = totals.get(call.kernel, (0, 0.0))
        totals[call.kernel] = (count + times, total + times * seconds)
    kernels = [
        KernelTime(k.name, k.recipe, n, s, n * count_flop(k), n * count_bytes(k))
        for k, (n, s) in totals.items()
    ]
    kernels.sort(key=lambda kernel: -kernel.seconds)
    return Profile(tuple(kernels), peak, bandwidth, rounds)


class _Memory:
    """Homes of all storages: the workspace as planned, everything else by itself."""

    def __init__(
        self, program: Program, plan: MemoryPlan, inputs: Mapping[str, np.ndarray]
    ) -> None:
        self._plan = plan
        self._workspace = aligned_bytes(plan.arena_bytes, _ALIGNMENT)
        self._homes: dict[Storage, np.ndarray] = {}
        for name, _, storage in program.inputs:
            self._fill(storage, inputs[name])
        for _, _, storage in program.outputs:
            self._homes.setdefault(storage, aligned_bytes(storage.size_bytes, _ALIGNMENT))
        # constants of equal bytes are one, as in the object: how warm they are depends on it
        first: dict[tuple[int, int], Storage] = {}
        for storage, offset in lay_out_constants(program).offsets.items():
            same = first.setdefault((offset, storage.size_bytes), storage)
            if same is storage:
                assert storage.data is not None
                self._fill(storage, storage.data)
            self._homes[storage] = self._homes[same]

    def _fill(self, storage: Storage, values: np.ndarray) -> None:
        home = aligned_bytes(storage.size_bytes, _ALIGNMENT)
        home[:] = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        self._homes[storage] = home

    def address(self, storage: Storage) -> int:
        if storage.role is Role.ARENA:
            return int(self._workspace.ctypes.data) + self._plan.offsets[storage]
        return int(self._homes[storage].ctypes.data)


def _least_seconds(
    calls: Sequence[tuple[Kernel, Sequence[int]]],
    target: Target,
    budget_seconds: float,
    overlapping: Mapping[Kernel, Collection[Buffer]],
) -> tuple[list[float], int]:
    """Seconds of each call, the least of all rounds, without what calling from Python costs."""
    symbols = {kernel: f"kernel{i}" for i, kernel in enumerate(dict.fromkeys(k for k, _ in calls))}
    parts = [f'target triple = "{target.triple}"']
    parts += [
        emit_kernel(kernel, target, symbol, overlapping=overlapping[kernel])
        for kernel, symbol in symbols.items()
    ]
    # The addresses are part of the code, so that all calls cost Python the same: that of nothing.
    parts.append("define void @nothing() nounwind {\n  ret void\n}")
    for number, (kernel, addresses) in enumerate(calls):
        args = ", ".join(f"ptr inttoptr (i64 {address} to ptr)" for address in addresses)
        body = f"  call void @{symbols[kernel]}({args})\n  ret void"
        parts.append(f"define void @call{number}() nounwind {{\n{body}\n}}")
    engine = link_object(compile_module("\n\n".join(parts), target))

    def function(symbol: str) -> Callable[[], None]:
        return ctypes.CFUNCTYPE(None)(engine.get_function_address(symbol))

    nothing = function("nothing")
    overhead = min(_seconds(nothing) for _ in range(200))
    functions = [function(f"call{number}") for number in range(len(calls))]
    best = [float("inf")] * len(functions)
    deadline = time.perf_counter() + budget_seconds
    rounds = 0
    while rounds < 5 or (rounds < 400 and time.perf_counter() < deadline):
        for number, run in enumerate(functions):
            best[number] = min(best[number], _seconds(run))
        rounds += 1
    return [max(seconds - overhead, 1e-9) for seconds in best], rounds


def _seconds(function: Callable[[], None]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def _measure_machine(target: Target) -> tuple[float, float]:
    """FLOP per second from registers and bytes per second from memory, of one core."""
    kernel = fma_kernel(target)
    return count_flop(kernel) / _seconds_alone(kernel, target, 0.1), read_bandwidth(target)


def read_bandwidth(target: Target, size_bytes: int = SWEEP_BYTES) -> float:
    """Bytes per second that one core reads of ``size_bytes``, over and over."""
    kernel = sweep_kernel(target, size_bytes)
    return count_bytes(kernel) / _seconds_alone(kernel, target, 0.2)


def _seconds_alone(kernel: Kernel, target: Target, budget: float) -> float:
    # Ones, not zeros: pages never written to are all one page, which a cache holds.
    arrays = [np.ones(buffer.elems, np.float32) for buffer in kernel.params]
    call = (kernel, [int(array.ctypes.data) for array in arrays])
    (seconds,), _ = _least_seconds([call], target, budget, {kernel: ()})
    return seconds
