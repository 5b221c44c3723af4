"""Code generation: in goes a loop-IR kernel, out comes the text of the LLVM function it states.

Nothing is decided here: every loop kind is executed as stated. SERIAL loops become counted
loops, PARALLEL loops count through the caller's share of their range, UNROLLED loops are repeated,
a VECTOR loop is computed once with vector values.
"""

from __future__ import annotations

from collections.abc import Collection

from aotc.codegen.expressions import Expressions, aligned
from aotc.codegen.linear import IndexAnalysis
from aotc.codegen.mve import scatter_bytes
from aotc.codegen.registers import most_lanes, read_elements, stores_in
from aotc.codegen.small import is_small
from aotc.codegen.text import memory_type_of, prefix_mask, suffix_of
from aotc.codegen.tiles import configuration, emit_tile_statement
from aotc.errors import VerifyError
from aotc.graph.types import DType
from aotc.loop.ir import (
    Alloc,
    Buffer,
    Expr,
    For,
    Kernel,
    Kind,
    Prefetch,
    ShortProducts,
    Space,
    Stmt,
    Store,
)
from aotc.loop.tiles import TileStmt, tiles_in
from aotc.loop.walk import has_parallel_loops
from aotc.target import DotProducts, Target

_CACHE_LINE_BYTES = 64


def emit_kernel(
    kernel: Kernel,
    target: Target,
    symbol: str,
    private: bool = True,
    overlapping: Collection[Buffer] = (),
) -> str:
    """The LLVM text of ``kernel``: a function ``void symbol(ptr, ...)``, a pointer per parameter,
    and, if it has PARALLEL loops, ``i64 part, i64 parts``: the caller's share of them. Parameters
    that are ``overlapping`` may share some of their memory.

    The text stands alone (LLVM declares intrinsics by itself), so a module is a concatenation.
    Pointers need only the alignment of their element type. VerifyError when the kernel breaks the
    rules of the loop IR.
    """
    emitter = Emitter(kernel, target)
    emitter.body(kernel.body)
    params = []
    for buffer in kernel.params:
        # Not readonly: a fence orders loads of unmarked parameters only (see _is_crowded_step).
        alias = "" if kernel.may_alias or buffer in overlapping else "noalias "
        params.append(f"ptr {alias}captures(none) {aligned(buffer)} {emitter.bases[buffer]}")
    if has_parallel_loops(kernel.body):
        params += ["i64 %part", "i64 %parts"]
    # no-builtins: loops must not become calls of memset or memcpy, which nobody provides.
    inline = private and not target.compact and is_small(kernel)
    attributes = f'{"alwaysinline" if inline else "noinline"} nounwind "no-builtins"'
    if target.vector_bits > 128:
        attributes += f' "prefer-vector-width"="{target.vector_bits}"'
        attributes += f' "min-legal-vector-width"="{target.vector_bits}"'
    if target.compact:
        attributes += " minsize optsize"
    linkage = "internal " if private else ""
    head = f"define {linkage}void @{symbol}({', '.join(params)}) {attributes} {{\nentry:"
    tail = "  ret void\n}\n"
    tiles = tiles_in(kernel.body)
    if tiles:
        shapes = f"{symbol}.tiles"
        head = f"{configuration(shapes, tiles)}{head}"
        head += f"\n  call void @llvm.x86.ldtilecfg(ptr @{shapes})"
        tail = f"  call void @llvm.x86.tilerelease()\n{tail}"
    return f"{head}\n{emitter.text()}\n{tail}"


class Emitter(Expressions):
    """Walks the statements of one kernel."""

    def __init__(self, kernel: Kernel, target: Target) -> None:
        names = {buffer: f"%p{number}" for number, buffer in enumerate(kernel.params)}
        super().__init__(IndexAnalysis(kernel), names, target)
        self._read_elements = read_elements(kernel, self.analysis)
        self._most_lanes = most_lanes(kernel.body)
        self._register_bits = target.vector_bits * target.vector_registers
        self._accumulator_bits = 0  # of the REGISTER buffers in scope

    def body(self, stmts: tuple[Stmt, ...]) -> None:
        """Emits statements in order."""
        for stmt in stmts:
            self.statement(stmt)

    def statement(self, stmt: Stmt) -> None:
        """Emits one statement."""
        match stmt:
            case Store():
                self.memo = {}
                self._store(stmt)
            case For():
                self._loop(stmt)
            case Alloc():
                self._allocate(stmt)
            case Prefetch():
                self.memo = {}
                self._prefetch(stmt)
            case TileStmt():
                self.memo = {}
                emit_tile_statement(self, stmt)
            case _:
                raise VerifyError(f"no code generation for statement {type(stmt).__name__}")

    def _loop(self, loop: For) -> None:
        if loop.kind is Kind.VECTOR:
            if self.vector is not None:
                raise VerifyError(f"vector loop '{loop.var.name}' inside a vector loop")
            self.vector = loop
            self.body(loop.body)
            self.vector = None
        elif loop.kind is Kind.PARALLEL:
            if self.vector is not None:
                raise VerifyError(f"parallel loop '{loop.var.name}' inside a vector loop")
            share = self.begin_share(loop.extent)
            opened = self.begin_loop(loop.var, share.first)
            self.body(loop.body)
            self.end_loop(loop.var, opened, share.beyond)
            self.end_share(share)
        elif loop.kind is Kind.UNROLLED or loop.extent == 1:
            is_crowded = self._is_crowded_step(loop)
            # pairs of int16 are also kept apart from what is loaded for all of them before
            first = 0 if _multiplies_pairs(stores_in(loop.body)) else 1
            for value in range(loop.extent):
                if is_crowded and value >= first:
                    self.do('fence syncscope("singlethread") acq_rel')
                self.values[loop.var] = value
                self.body(loop.body)
            self.values.pop(loop.var, None)
        else:
            if self.vector is not None:
                raise VerifyError(f"loop '{loop.var.name}' inside a vector loop is not unrolled")
            opened = self.begin_loop(loop.var)
            self.body(loop.body)
            self.end_loop(loop.var, opened, str(loop.extent), self.loop_note(loop))

    def loop_note(self, loop: For) -> str:
        """What is told to those who translate the LLVM text about a loop, behind its jump."""
        return ""

    def _is_crowded_step(self, loop: For) -> bool:
        """Whether ``loop`` repeats reduction steps while accumulators fill most registers.

        LLVM would then share loads between steps (a convolution's steps overlap) and start loads of
        one step in another, and for lack of registers store accumulators to the stack. A fence for
        the compiler only (it is no instruction) between the steps keeps them as they are written.
        """
        stores = stores_in(loop.body)
        # pairs of int16 take general registers, which are full whatever the tile
        if _multiplies_pairs(stores):
            return True
        if self._accumulator_bits * 2 <= self._register_bits:
            return False
        return any(store.buffer.space is Space.REGISTER for store in stores) and not any(
            loop.var in self.analysis.variables(store.index) for store in stores
        )

    def _allocate(self, stmt: Alloc) -> None:
        buffer = stmt.buffer
        if buffer.space is Space.TILE:
            self.body(stmt.body)
            return
        if buffer not in self.bases:  # else it is there from an earlier copy of an unrolled body
            # With slack: inactive lanes of a vector access may run past the last element.
            elems = buffer.elems + self._most_lanes
            name = f"%{self.fresh('a')}"
            array = f"[{elems} x {memory_type_of(buffer.dtype)}]"
            self.scopes[0].head.append(f"  {name} = alloca {array}, align {_CACHE_LINE_BYTES}")
            self.bases[buffer] = name
        bits = buffer.elems * buffer.dtype.size_bytes * 8
        bits = bits if buffer.space is Space.REGISTER else 0
        self._accumulator_bits += bits
        self.body(stmt.body)
        self._accumulator_bits -= bits

    def _prefetch(self, stmt: Prefetch) -> None:
        if self.lane_step(stmt.index) != 0:
            pointer = self.lane_address(stmt.buffer, stmt.index, 0)
        else:
            pointer = self.address(stmt.buffer, stmt.index)
        self.do(f"call void @llvm.prefetch.p0(ptr {pointer}, i32 0, i32 {4 - stmt.level}, i32 1)")

    def _store(self, stmt: Store) -> None:
        buffer, value = stmt.buffer, self.expr(stmt.value)
        if self.vector is None:
            text = self.to_memory(buffer.dtype, 0, value.text)
            pointer = self.address(buffer, stmt.index)
            ty = memory_type_of(buffer.dtype)
            self.do(f"store {ty} {text}, ptr {pointer}, {aligned(buffer)}")
            if buffer.space is Space.REGISTER:
                self.remember(buffer, stmt.index, text)
            return
        self.forget(buffer)
        text = self.to_memory(buffer.dtype, self.lanes, self.widen(value, stmt.value.dtype))
        step = self.lane_step(stmt.index)
        if step == 0 and self.vector.extent > 1:
            raise VerifyError(f"all lanes of a vector loop store to one element of '{buffer.name}'")
        if step == 1:
            self._store_vector(buffer, stmt.index, text)
        elif step is not None and self._scatters(buffer, step):
            pointer = self.lane_address(buffer, stmt.index, 0)
            scatter_bytes(self.do, self.put, pointer, step, self.lanes, text)
        else:
            self._store_lanes(buffer, stmt.index, text)

    def _scatters(self, buffer: Buffer, step: int) -> bool:
        """Whether an instruction stores all lanes ``step`` bytes apart."""
        loop = self.vector_loop()
        full = loop.extent == loop.lanes and loop.lanes in (4, 8)
        near = 0 < step * loop.lanes < 1 << 16
        mve = self._target.dot_products is DotProducts.MVE
        return mve and full and near and buffer.dtype in (DType.I8, DType.U8)

    def _store_lanes(self, buffer: Buffer, index: Expr, text: str) -> None:
        """One scalar store per active lane."""
        loop, element = self.vector_loop(), memory_type_of(buffer.dtype)
        ty = memory_type_of(buffer.dtype, loop.lanes)
        for lane in range(loop.extent):
            scalar = self.put(f"extractelement {ty} {text}, i64 {lane}")
            pointer = self.lane_address(buffer, index, lane)
            self.do(f"store {element} {scalar}, ptr {pointer}, {aligned(buffer)}")

    def _store_vector(self, buffer: Buffer, index: Expr, text: str) -> None:
        loop, ty = self.vector_loop(), memory_type_of(buffer.dtype, self.lanes)
        pointer = self.lane_address(buffer, index, 0)
        if loop.extent == 1 < loop.lanes and buffer.space is not Space.REGISTER:
            # LLVM 22 stores the whole lane where a masked store of one lane also narrows it
            self._store_lanes(buffer, index, text)
            return
        if loop.extent < loop.lanes:
            mask = f"<{loop.lanes} x i1> {prefix_mask(loop.extent, loop.lanes)}"
            if buffer.space is not Space.REGISTER:
                self.do(
                    f"call void @llvm.masked.store.{suffix_of(ty)}.p0"
                    f"({ty} {text}, ptr {aligned(buffer)} {pointer}, {mask})"
                )
                return
            if self._inactive_lanes_matter(buffer, index):
                old = self.put(f"load {ty}, ptr {pointer}, {aligned(buffer)}")
                text = self.put(f"select {mask}, {ty} {text}, {ty} {old}")
        self.do(f"store {ty} {text}, ptr {pointer}, {self.vector_alignment(buffer, index)}")

    def _inactive_lanes_matter(self, buffer: Buffer, index: Expr) -> bool:
        """Whether anybody reads an element of a REGISTER buffer under an inactive lane."""
        read, loop = self._read_elements[buffer], self.vector_loop()
        form = self.analysis.linear(index)
        first = form.const
        for term, coef in form.terms:
            value = 0 if term is loop.var else self.values.get(term)  # type: ignore[call-overload]
            if not isinstance(value, int):
                return True
            first += coef * value
        return read is None or any(
            first + lane in read for lane in range(loop.extent, loop.lanes)
        )


def _multiplies_pairs(stores: Collection[Store]) -> bool:
    return any(isinstance(store.value, ShortProducts) for store in stores)
