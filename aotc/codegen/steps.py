"""Steps of a Program in, the LLVM lines that run them out: calls with addresses, branches, loops.

For threads every part runs the same lines. Steps in which no kernel is shared are left to the first
part; around shared kernels all parts take the same way, because each reads the same conditions
after a barrier, and nothing overwrites those before another one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aotc.codegen.signature import Status
from aotc.loop.ir import Kernel
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
    all_steps,
)
from aotc.loop.walk import has_parallel_loops
from aotc.memory.arena import MemoryPlan
from aotc.memory.constants import ConstantLayout


def constants_base(number: int) -> str:
    """What points to a stretch of the constants: %constants, %constants1, ..."""
    return f"%constants{number or ''}"


@dataclass(frozen=True, eq=False)
class Addresses:
    """Where storages lie: a base and an offset in bytes from it. ``workspaces`` are the bases of
    the plan's parts."""

    bases: dict[Storage, str]
    plan: MemoryPlan
    constants: ConstantLayout
    workspaces: Sequence[str] = ("%workspace",)

    @classmethod
    def of(
        cls,
        program: Program,
        plan: MemoryPlan,
        constants: ConstantLayout,
        workspaces: Sequence[str] = ("%workspace",),
    ) -> Addresses:
        """Inputs are %in0, %in1, ..., outputs %out0, ..."""
        bases: dict[Storage, str] = {}
        for prefix, tensors in (("in", program.inputs), ("out", program.outputs)):
            bases.update({item[2]: f"%{prefix}{i}" for i, item in enumerate(tensors)})
        return cls(bases, plan, constants, workspaces)

    def of_arg(self, arg: Arg) -> tuple[str, int]:
        """The base and the offset before any iteration."""
        storage = arg.storage
        if storage.role is Role.CONST:
            place = self.constants.offsets[storage]
            number, start = self.constants.part_of(place)
            return constants_base(number), arg.offset_bytes + place - start
        if storage.role is Role.ARENA:
            place = self.plan.offsets[storage]
            number, start = self.plan.part_of(place)
            return self.workspaces[number], arg.offset_bytes + place - start
        return self.bases[storage], arg.offset_bytes


class StepWriter:
    """Writes steps; ``fail`` ends the function when a check does not hold."""

    def __init__(
        self, addresses: Addresses, symbols: dict[Kernel, str], fail: Callable[[StepWriter], None]
    ) -> None:
        self.lines: list[str] = []
        self._addresses = addresses
        self._symbols = symbols
        self._fail = fail
        self._count = 0
        self._counters: dict[Counter, str] = {}

    def fresh(self, stem: str) -> str:
        """A name that is not in use."""
        self._count += 1
        return f"{stem}{self._count}"

    def do(self, line: str) -> None:
        self.lines.append(f"  {line}")

    def put(self, stem: str, text: str) -> str:
        """Appends an instruction with a result; gives the result's name."""
        name = f"%{self.fresh(stem)}"
        self.do(f"{name} = {text}")
        return name

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")

    def block(self, steps: Sequence[Step]) -> None:
        """Runs ``steps`` in order."""
        for step in steps:
            self.step(step)

    def step(self, step: Step) -> None:
        """Runs one step."""
        match step:
            case Call():
                self.call(step)
            case If():
                self.branch(step)
            case Loop():
                self.loop(step)
            case Check():
                self.check(step)

    def call(self, call: Call) -> None:
        """The call of one kernel with the addresses of its arguments."""
        args = [f"ptr {self.address(arg)}" for arg in call.args]
        if has_parallel_loops(call.kernel.body):
            args += self.share()
        self.do(f"call void @{self._symbols[call.kernel]}({', '.join(args)})")

    def share(self) -> list[str]:
        """Which part of a shared kernel is asked for: all of it."""
        return ["i64 0", "i64 1"]

    def address(self, arg: Arg) -> str:
        base, offset = self._addresses.of_arg(arg)
        for counter, step_bytes in arg.moves:
            moved = self.put("m", f"mul nsw i64 {self._counters[counter]}, {step_bytes}")
            base = self.put("a", f"getelementptr i8, ptr {base}, i64 {moved}")
        return self.put("a", f"getelementptr i8, ptr {base}, i64 {offset}") if offset else base

    def flag(self, arg: Arg) -> str:
        """The bool at ``arg`` as an i1."""
        byte = self.put("b", f"load i8, ptr {self.address(arg)}, align 1")
        return self.put("b", f"icmp ne i8 {byte}, 0")

    def store_count(self, value: str, arg: Arg) -> None:
        """Stores an i64 that counts iterations."""
        self.do(f"store i64 {value}, ptr {self.address(arg)}, align 8")

    def check(self, check: Check) -> None:
        holds, passed, failed = self.flag(check.condition), self.fresh("pass"), self.fresh("fail")
        self.do(f"br i1 {holds}, label %{passed}, label %{failed}")
        self.label(failed)
        self._fail(self)
        self.label(passed)

    def branch(self, step: If) -> None:
        then, other, end = self.fresh("then"), self.fresh("else"), self.fresh("endif")
        self.do(f"br i1 {self.flag(step.condition)}, label %{then}, label %{other}")
        for name, steps in ((then, step.then), (other, step.other)):
            self.label(name)
            self.block(steps)
            self.do(f"br label %{end}")
        self.label(end)

    def loop(self, loop: Loop) -> None:
        head, body, end = self.fresh("head"), self.fresh("body"), self.fresh("end")
        enter, latch = self.fresh("enter"), self.fresh("latch")
        count, following = f"%{self.fresh('i')}", f"%{self.fresh('i')}"
        limit = self.trips(loop)
        self.before_loop(loop)
        self.do(f"br label %{enter}")
        self.label(enter)
        self.do(f"br label %{head}")
        self.label(head)
        self.do(f"{count} = phi i64 [ 0, %{enter} ], [ {following}, %{latch} ]")
        more = self.put("b", f"icmp slt i64 {count}, {limit}")
        self._counters[loop.counter] = count
        if loop.going is not None:
            asked = self.fresh("ask")
            self.do(f"br i1 {more}, label %{asked}, label %{end}")
            self.label(asked)
            more = self.flag(loop.going)
        self.do(f"br i1 {more}, label %{body}, label %{end}")
        self.label(body)
        self.loop_body(loop, count)
        self.do(f"br label %{latch}")
        self.label(latch)
        self.do(f"{following} = add nsw i64 {count}, 1")
        self.do(f"br label %{head}")
        self.label(end)
        del self._counters[loop.counter]
        self.after_loop(loop, count)

    def trips(self, loop: Loop) -> str:
        """The most iterations that the loop may do, an i64."""
        if loop.trips is None:
            return str(loop.limit)
        asked = self.put("n", f"load i64, ptr {self.address(loop.trips)}, align 8")
        fewer = self.put("b", f"icmp slt i64 {asked}, {loop.limit}")
        return self.put("n", f"select i1 {fewer}, i64 {asked}, i64 {loop.limit}")

    def before_loop(self, loop: Loop) -> None:
        """What stands before the head of the loop."""

    def loop_body(self, loop: Loop, count: str) -> None:
        """One iteration."""
        if loop.index is not None:
            self.store_count(count, loop.index)
        self.block(loop.body)

    def after_loop(self, loop: Loop, count: str) -> None:
        """What stands behind the loop."""
        if loop.done is not None:
            self.store_count(count, loop.done)


class PartWriter(StepWriter):
    """Writes what each part of a pool runs, with barriers where one part may need what another has
    written.

    ``_pending`` says what has happened since the last barrier: nothing (None), something that only
    the first part did (False), or something that all parts took part in (True). The names %part,
    %parts, %is_first, %barrier and %self exist, and %status if the program has checks.
    """

    def __init__(self, addresses: Addresses, symbols: dict[Kernel, str]) -> None:
        super().__init__(addresses, symbols, _leave_alone)
        self._pending: bool | None = None
        self._alone = False
        self.left = ""

    def block(self, steps: Sequence[Step]) -> None:
        if self._alone:
            super().block(steps)
            return
        waiting: list[Step] = []
        for step in steps:
            if _is_shared(step):
                self._first_part(waiting)
                waiting = []
                self.step(step)
            else:
                waiting.append(step)
        self._first_part(waiting)

    def call(self, call: Call) -> None:
        if not self._alone:
            self._meet(shared=True)
        super().call(call)

    def share(self) -> list[str]:
        return ["i64 %part", "i64 %parts"]

    def branch(self, step: If) -> None:
        if self._alone:
            super().branch(step)
            return
        self._meet(shared=True)
        then, other, end = self.fresh("then"), self.fresh("else"), self.fresh("endif")
        self.do(f"br i1 {self.flag(step.condition)}, label %{then}, label %{other}")
        for name, steps in ((then, step.then), (other, step.other)):
            self.label(name)
            self._pending = True  # parts may still be reading the condition
            self.block(steps)
            self._settle()
            self.do(f"br label %{end}")
        self.label(end)

    def trips(self, loop: Loop) -> str:
        if not self._alone and loop.trips is not None:
            self._meet(shared=True)
        return super().trips(loop)

    def before_loop(self, loop: Loop) -> None:
        if not self._alone:
            self._settle()

    def loop_body(self, loop: Loop, count: str) -> None:
        if self._alone:
            super().loop_body(loop, count)
            return
        self._pending = None if loop.going is None else True
        if loop.index is not None:
            index = loop.index
            self._first_part_does(lambda: self.store_count(count, index))
        self.block(loop.body)
        self._settle()

    def after_loop(self, loop: Loop, count: str) -> None:
        if self._alone:
            super().after_loop(loop, count)
            return
        self._pending = None if loop.going is None else True
        if loop.done is not None:
            done = loop.done
            self._first_part_does(lambda: self.store_count(count, done))

    def _meet(self, shared: bool) -> None:
        """A barrier if what comes may need what other parts did, or disturb what they do."""
        if self._pending is not None and (shared or self._pending):
            self._barrier()
        self._pending = shared

    def _settle(self) -> None:
        """A barrier unless nothing happened since the last one."""
        if self._pending is not None:
            self._barrier()
        self._pending = None

    def _barrier(self) -> None:
        self.do("call void %barrier(ptr %self)")

    def _first_part_does(self, action: Callable[[], None]) -> None:
        self._meet(shared=False)
        alone, after = self.fresh("alone"), self.fresh("after")
        self.do(f"br i1 %is_first, label %{alone}, label %{after}")
        self.label(alone)
        self._alone, self.left = True, after
        action()
        self._alone = False
        self.do(f"br label %{after}")
        self.label(after)

    def _first_part(self, steps: Sequence[Step]) -> None:
        """Steps without shared kernels; all parts leave if a check among them failed."""
        if not steps:
            return
        self._first_part_does(lambda: self.block(steps))
        if any(isinstance(step, Check) for step in all_steps(steps)):
            self._meet(shared=True)
            status = self.put("s", "load i32, ptr %status, align 4")
            fine = self.put("b", f"icmp eq i32 {status}, {Status.OK.value}")
            stay, leave = self.fresh("stay"), self.fresh("leave")
            self.do(f"br i1 {fine}, label %{stay}, label %{leave}")
            self.label(leave)
            self.do("ret void")
            self.label(stay)


def return_failure(writer: StepWriter) -> None:
    """What a failed check does in the entry for one thread."""
    writer.do(f"ret i32 {Status.OUT_OF_BOUNDS.value}")


def _leave_alone(writer: StepWriter) -> None:
    """What a failed check does in the first part, while the others wait for it."""
    assert isinstance(writer, PartWriter)
    writer.do(f"store i32 {Status.OUT_OF_BOUNDS.value}, ptr %status, align 4")
    writer.do(f"br label %{writer.left}")


def _is_shared(step: Step) -> bool:
    """Whether all parts take part in the step."""
    return any(
        isinstance(inner, Call) and has_parallel_loops(inner.kernel.body)
        for inner in all_steps([step])
    )
