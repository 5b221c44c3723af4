"""Kernels of a GPU: in goes a loop-IR kernel of BLOCK and THREAD loops, out comes the text of an
LLVM function of the NVPTX back end.

BLOCK and THREAD variables are read from the registers of the machine, SHARED buffers lie one after
the other in the block's dynamic shared memory, and a Bind is a branch around its body.
"""

from __future__ import annotations

from collections.abc import Sequence

from aotc.codegen.emit import Emitter
from aotc.codegen.expressions import Value, aligned
from aotc.codegen.gpu_async import emit_copy_statement
from aotc.codegen.gpu_warpgroup import ARCH, emit_warpgroup_statement, fence_signals
from aotc.codegen.operators import intrinsic
from aotc.codegen.text import type_of
from aotc.codegen.writer import OpenLoop
from aotc.errors import VerifyError
from aotc.graph.types import DType
from aotc.loop.ir import (
    Alloc,
    Barrier,
    Bin,
    Bind,
    Buffer,
    Cmp,
    Conv,
    Expr,
    For,
    Kernel,
    Kind,
    Lit,
    Mma,
    Prefetch,
    Sel,
    Shuffle,
    Space,
    Stmt,
    Un,
    Var,
)
from aotc.loop.ir_async import (
    AsyncCommit,
    AsyncCopy,
    AsyncWait,
    LoadMatrix,
    SignalInit,
    TileCopy,
    Wgmma,
)
from aotc.loop.launch import (
    MAP_ALIGNMENT,
    MAP_BYTES,
    SHARED_ALIGNMENT,
    launch_of,
    nest_of,
)
from aotc.loop.mma import KINDS, RESULT_ELEMS
from aotc.loop.verify_warpgroup import WarpgroupStmt
from aotc.loop.walk import all_statements, fragments, post_order, product_registers
from aotc.target import Target

_NARROW = {"add": "add nuw nsw", "mul": "mul nuw nsw", "div": "udiv", "mod": "urem", "xor": "xor"}


#: A loop that stays as it is: ptxas unrolls others that are short, until registers are short.
_KEPT_LOOP = ", !llvm.loop !0"
_KEPT_LOOP_MEANS = '!0 = distinct !{!0, !1}\n!1 = !{!"llvm.loop.unroll.disable"}\n'


def shared_declarations(kernels: Sequence[Kernel]) -> str:
    """What a module with ``kernels`` has to declare once for all of them: shared memory, and what
    their notes on loops mean."""
    alignment = max((nest_of(k).shared_alignment for k in kernels), default=SHARED_ALIGNMENT)
    memory = f"@shared = external addrspace(3) global [0 x i8], align {alignment}\n"
    return memory + _KEPT_LOOP_MEANS


def emit_gpu_kernel(kernel: Kernel, target: Target, symbol: str) -> str:
    """The LLVM text of ``kernel``: an entry that takes a pointer per parameter, then its tensor
    maps by value. VerifyError when the kernel breaks the rules of the loop IR, or needs another
    architecture."""
    emitter = GpuEmitter(kernel, target)
    emitter.body(kernel.body)
    params = []
    for buffer in kernel.params:
        alias = "" if kernel.may_alias else "noalias "
        alignment = f"align {buffer.alignment}" if buffer.alignment else aligned(buffer)
        params.append(f"ptr {alias}captures(none) {alignment} {emitter.bases[buffer]}")
    for name in emitter.maps.values():
        # constant for the grid: copies take the address of the parameter itself
        layout = f"byval([{MAP_BYTES} x i8]) align {MAP_ALIGNMENT}"
        params.append(f'ptr {layout} "nvvm.grid_constant" {name}')
    block = ",".join(map(str, launch_of(kernel).block))
    # one block a multiprocessor is enough: ptxas must not spill to fit more
    attributes = f'nounwind "no-builtins" "nvvm.reqntid"="{block}" "nvvm.minctasm"="1"'
    head = f"define ptx_kernel void @{symbol}({', '.join(params)}) {attributes} {{\nentry:"
    return f"{head}\n{emitter.text()}\n  ret void\n}}\n"


class GpuEmitter(Emitter):
    """Walks the statements of one kernel."""

    def __init__(self, kernel: Kernel, target: Target) -> None:
        super().__init__(kernel, target)
        self._open_loops = 0
        self._kernel = kernel
        nest = nest_of(kernel)
        self.maps = {map_: f"%map{number}" for number, map_ in enumerate(kernel.maps)}
        self._product_registers = {
            buffer
            for stmt in all_statements(kernel.body)
            if isinstance(stmt, Wgmma)
            for buffer, _, _ in product_registers(stmt)
        }
        self._held: list[Buffer] = []  # of these, those in scope
        self._new_signals = False  # that only this thread knows of
        body, self.lines = self.lines, self.scopes[0].head
        for axis, loop in zip("xyz", reversed(nest.blocks), strict=False):
            self._read(loop.var, f"ctaid.{axis}")
        for axis, loop in zip("xyz", reversed(nest.threads), strict=False):
            self._read(loop.var, f"tid.{axis}")
        self.lines = body
        for buffer, offset in nest.offsets().items():
            start = "addrspacecast (ptr addrspace(3) @shared to ptr)"
            self.bases[buffer] = f"getelementptr (i8, ptr {start}, i64 {offset})"

    def _read(self, var: Var, register: str) -> None:
        narrow = self.put(f"call i32 @llvm.nvvm.read.ptx.sreg.{register}()")
        self.values[var] = (self.put(f"zext nneg i32 {narrow} to i64"), 0)

    def statement(self, stmt: Stmt) -> None:
        """Emits one statement."""
        match stmt:
            case For(kind=Kind.BLOCK | Kind.THREAD):
                self.body(stmt.body)
            case Alloc(buffer=buffer) if buffer.space is Space.SHARED:
                self.body(stmt.body)
            case Bind():
                self._bind(stmt)
            case Barrier():
                self._fence_signals()
                self.do("call void @llvm.nvvm.barrier.cta.sync.aligned.all(i32 0)")
            case Mma():
                self._mma(stmt)
            case AsyncCopy() | AsyncCommit() | AsyncWait() | LoadMatrix():
                self.memo = {}
                emit_copy_statement(self, stmt)
            case _ if isinstance(stmt, WarpgroupStmt):
                if self._target.cpu != ARCH:
                    raise VerifyError(
                        f"kernel '{self._kernel.name}' has instructions of {ARCH}, "
                        f"and is compiled for {self._target.cpu}"
                    )
                self.memo = {}
                if isinstance(stmt, TileCopy):
                    self._fence_signals()
                emit_warpgroup_statement(self, stmt, self.maps, self._held)
                self._new_signals |= isinstance(stmt, SignalInit)
            case Prefetch():
                pass  # the caches of a GPU are not asked ahead
            case _:
                super().statement(stmt)

    def loop_note(self, loop: For) -> str:
        """Loops from barrier to barrier are kept: what such a loop does at once is laid out in its
        body."""
        meets = any(isinstance(stmt, Barrier) for stmt in all_statements(loop.body))
        return _KEPT_LOOP if meets else ""

    def _fence_signals(self) -> None:
        """Shows all signals that the thread has made, once, to others and to copies."""
        if self._new_signals:
            fence_signals(self)
        self._new_signals = False

    def _allocate(self, stmt: Alloc) -> None:
        if stmt.buffer not in self._product_registers:
            super()._allocate(stmt)
            return
        self._held.append(stmt.buffer)
        super()._allocate(stmt)
        self._held.remove(stmt.buffer)

    def _mma(self, mma: Mma) -> None:
        """The instruction on registers: elements of 16 bits go two to a register."""
        self.memo = {}
        kind = KINDS[mma.kind]
        (result, *factors) = [
            (self.address(buffer, first), count) for buffer, first, count in fragments(mma)
        ]
        inputs = []
        for pointer, count in factors:
            for word in range(kind.words(count)):
                place = self.displaced(pointer, 4 * word)
                inputs.append(f"i32 {self.put(f'load i32, ptr {place}')}")
        places = [self.displaced(result[0], 4 * i) for i in range(RESULT_ELEMS)]
        sums = [f"float {self.put(f'load float, ptr {place}')}" for place in places]
        numbers = iter(range(2 * RESULT_ELEMS + len(inputs)))

        def operand(count: int) -> str:
            return "{" + ", ".join(f"${next(numbers)}" for _ in range(count)) + "}"

        words = (RESULT_ELEMS, *(kind.words(count) for _, count in factors), RESULT_ELEMS)
        text = f"mma.sync.aligned.{kind.instruction} {', '.join(map(operand, words))};"
        constraints = ["=f"] * RESULT_ELEMS + ["r"] * len(inputs)
        constraints += [str(i) for i in range(RESULT_ELEMS)]
        ty = "{ " + ", ".join(["float"] * RESULT_ELEMS) + " }"
        found = self.put(
            f'call {ty} asm "{text}", "{",".join(constraints)}"'
            f"({', '.join([*inputs, *sums])}) convergent nounwind memory(none)"
        )
        self.forget(mma.d)
        for i, place in enumerate(places):
            self.do(f"store float {self.put(f'extractvalue {ty} {found}, {i}')}, ptr {place}")

    def _compute(self, expr: Expr) -> Value:
        if isinstance(expr, Un) and expr.fn == "tf32":
            return self._to_tf32(expr.x)
        extreme = _extreme(expr)
        if extreme is not None:
            name, *values = extreme
            texts, lanes = self._together(*values)
            return Value(intrinsic(self.put, name, type_of(expr.dtype, lanes), *texts), lanes > 0)
        if isinstance(expr, Conv) and (expr.x.dtype, expr.dtype) == (DType.F32, DType.F16):
            return self._to_half(expr)
        if not isinstance(expr, Shuffle):
            return super()._compute(expr)
        if self.vector is not None or expr.dtype.size_bytes != 4:
            raise VerifyError(f"no code generation for a shuffle of {expr.dtype.value} here")
        x, source = self.expr(expr.x).text, self.expr(expr.i).text
        kind = "f32" if expr.dtype.is_float else "i32"
        lane, ty = self.put(f"trunc i64 {source} to i32"), type_of(expr.dtype)
        call = f"call {ty} @llvm.nvvm.shfl.sync.idx.{kind}(i32 -1, {ty} {x}, i32 {lane}, i32 31)"
        return Value(self.put(call), False)

    def _to_half(self, expr: Conv) -> Value:
        """Pairs are converted by one instruction, which LLVM does not find by itself."""
        value, lanes = self.expr(expr.x), self.lanes
        if not value.is_vector or lanes % 2:
            return super()._compute(expr)
        ty, pairs = type_of(DType.F32, lanes), []
        for lane in range(0, lanes, 2):
            low, high = (
                self.put(f"extractelement {ty} {value.text}, i64 {lane + i}") for i in range(2)
            )
            pairs.append(
                self.put(f"call <2 x half> @llvm.nvvm.ff2f16x2.rn(float {high}, float {low})")
            )
        if lanes == 2:
            return Value(pairs[0], True)
        words = "poison"
        for i, pair in enumerate(pairs):
            word = self.put(f"bitcast <2 x half> {pair} to i32")
            words = self.put(f"insertelement <{len(pairs)} x i32> {words}, i32 {word}, i64 {i}")
        half = type_of(DType.F16, lanes)
        return Value(self.put(f"bitcast <{len(pairs)} x i32> {words} to {half}"), True)

    def _to_tf32(self, x: Expr) -> Value:
        value, lanes = self.expr(x), self.lanes

        def rounded(text: str) -> str:
            bits = self.put(f"call i32 @llvm.nvvm.f2tf32.rna(float {text})")
            return self.put(f"bitcast i32 {bits} to float")

        if not value.is_vector:
            return Value(rounded(value.text), False)
        ty, total = type_of(DType.F32, lanes), "poison"
        for lane in range(lanes):
            one = rounded(self.put(f"extractelement {ty} {value.text}, i64 {lane}"))
            total = self.put(f"insertelement {ty} {total}, float {one}, i64 {lane}")
        return Value(total, True)

    def _is_crowded_step(self, loop: For) -> bool:
        return False  # ptxas orders the loads of a thread

    def begin_loop(self, var: Var, first: str = "0") -> OpenLoop:
        """Opens a counted loop."""
        self._open_loops += 1
        return super().begin_loop(var, first)

    def end_loop(self, var: Var, loop: OpenLoop, beyond: str, note: str = "") -> None:
        """Closes it."""
        self._open_loops -= 1
        super().end_loop(var, loop, beyond, note)

    def _bind(self, bind: Bind) -> None:
        self.memo = {}
        low, high = self.analysis.limits(bind.value)
        narrow = self._narrow(bind.value)
        if narrow is not None:
            if self._open_loops and any(map(_is_remainder, post_order((bind.value,)))):
                # or else LLVM counts on, and subtracts a multiple of a quotient of 64 bits
                hidden = 'asm "mov.b32 $0, $1;", "=r,r"'
                narrow = self.put(f"call i32 {hidden}(i32 {narrow}) nounwind memory(none)")
            text = self.put(f"zext nneg i32 {narrow} to i64")
        else:
            text = self.expr(bind.value).text
        condition = None
        if low < 0 or high >= bind.extent:
            condition = self.put(f"icmp ult i64 {text}, {bind.extent}")
        opened = self.begin_bind(bind.var, text, condition)
        self.body(bind.body)
        self._fence_signals()
        self.end_bind(bind.var, opened)

    def _narrow(self, expr: Expr) -> str | None:
        """``expr`` computed in 32 bits, which all of it fits; None if it does not."""
        low, high = self.analysis.limits(expr)
        if low < 0 or high >= 2**31:
            return None
        match expr:
            case Lit(value=value):
                return str(int(value))
            case Var():
                found = self.values[expr]
                if isinstance(found, int):
                    return str(found)
                return self.put(f"trunc nuw i64 {found[0]} to i32")
            case Bin(fn=fn, a=a, b=b) if fn in _NARROW and expr.dtype is DType.I64:
                left, right = self._narrow(a), self._narrow(b)
                nonzero = self.analysis.limits(b)[0] > 0
                if left is None or right is None or (fn in ("div", "mod") and not nonzero):
                    return None
                return self.put(f"{_NARROW[fn]} i32 {left}, {right}")
        return None


def _is_remainder(expr: Expr) -> bool:
    """Whether it is one that takes more than a mask."""
    if not isinstance(expr, Bin) or expr.fn != "mod" or not isinstance(expr.b, Lit):
        return False
    divisor = int(expr.b.value)
    return divisor & (divisor - 1) != 0


def _extreme(expr: Expr) -> tuple[str, Expr, Expr] | None:
    """The instruction and the operands, if ``expr`` is the larger or the smaller of two numbers as
    a GPU has it: one of them is a literal other than 0 and NaN, or zeros are ordered."""
    match expr:
        case Bin(fn="maximum", a=a, b=b):
            return "maximum", a, b
        case Bin(fn="min" | "max" as fn, a=a, b=Lit() as limit):
            return (f"{fn}imum", a, limit) if _is_limit(limit) else None
        case Sel(cond=Cmp(fn="lt" | "gt" as fn, a=Lit() as limit, b=x), a=chosen, b=other):
            if chosen is limit and other is x and _is_limit(limit):
                return "minimum" if fn == "lt" else "maximum", x, limit
    return None


def _is_limit(limit: Lit) -> bool:
    return limit.dtype is DType.F32 and (limit.value > 0 or limit.value < 0)


def check_shared_memory(kernel: Kernel, limit_bytes: int, arch: str) -> None:
    """VerifyError when a block of ``kernel`` needs more shared memory than ``limit_bytes``."""
    needed = launch_of(kernel).shared_bytes
    if needed > limit_bytes:
        raise VerifyError(
            f"kernel '{kernel.name}' needs {needed} bytes of shared memory, {arch} has "
            f"{limit_bytes} for a block"
        )
