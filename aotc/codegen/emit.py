"""Code generation: in goes a loop-IR kernel, out comes the text of one LLVM function that does just that.

Nothing is decided here: every loop kind is executed as stated. SERIAL and PARALLEL loops become counted
loops, UNROLLED loops are repeated, a VECTOR loop is computed once with vector values. Addresses are byte
offsets: for each loop the part of an index that depends on its variable is added once at the head of the
loop, and what is left is a constant that the machine's addressing modes absorb.
"""

from __future__ import annotations

from aotc.codegen import operators
from aotc.codegen.linear import IndexAnalysis
from aotc.codegen.registers import read_elements
from aotc.codegen.text import (
    literal,
    memory_type_of,
    prefix_mask,
    splat_constant,
    type_of,
    vector_constant,
)
from aotc.errors import VerifyError
from aotc.graph.types import DType
from aotc.loop.ir import (
    Alloc,
    Bin,
    Bits,
    Buffer,
    Cmp,
    Conv,
    Expr,
    Fma,
    For,
    Kernel,
    Kind,
    Lit,
    Load,
    Prefetch,
    Sel,
    Space,
    Stmt,
    Store,
    Un,
    Var,
)
from aotc.target import Target


def emit_kernel(kernel: Kernel, target: Target, symbol: str, private: bool = True) -> str:
    """The LLVM text of ``kernel`` as a function ``void symbol(ptr, ...)``, one pointer per parameter.

    The text stands alone (LLVM declares the intrinsics by itself): a module is a concatenation. Pointers
    need only the alignment of their element type. VerifyError when the kernel breaks the loop IR's rules.
    """
    return _Emitter(kernel).function(target, symbol, private)


class _Scope:
    """The body of a run-time loop (or of the function): lines, lines at its head, and cached names."""

    def __init__(self) -> None:
        self.head: list = []
        self.lines: list = [self.head]
        self.names: dict[tuple, str] = {}


class _Value:
    """A computed expression: its text, and whether that is a vector."""

    __slots__ = ("text", "is_vector")

    def __init__(self, text: str, is_vector: bool) -> None:
        self.text = text
        self.is_vector = is_vector


class _Emitter:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.analysis = IndexAnalysis()
        self.read_elements = read_elements(kernel, self.analysis)
        self.bases = {buffer: f"%p{number}" for number, buffer in enumerate(kernel.params)}
        self.count = 0
        self.block = "entry"
        self.scopes = [_Scope()]
        self.lines = self.scopes[0].lines  # where instructions go now
        # A variable's value: an int when unrolled, else (name, depth of its scope). Lanes are not in here.
        self.values: dict[Var, int | tuple[str, int]] = {}
        self.vector: For | None = None
        self.memo: dict[Expr, _Value] = {}
        self.index_depth = 0

    # Text

    def fresh(self, stem: str = "t") -> str:
        self.count += 1
        return f"{stem}{self.count}"

    def put(self, instruction: str) -> str:
        name = f"%{self.fresh()}"
        self.lines.append(f"  {name} = {instruction}")
        return name

    def do(self, instruction: str) -> None:
        self.lines.append(f"  {instruction}")

    def function(self, target: Target, symbol: str, private: bool) -> str:
        params = []
        for buffer in self.kernel.params:
            attributes = "" if self.kernel.may_alias else " noalias"
            if buffer not in self.kernel.writes:
                attributes += " readonly"
            align = buffer.dtype.size_bytes
            params.append(f"ptr{attributes} captures(none) align {align} {self.bases[buffer]}")
        self.body(self.kernel.body)
        width = f'"prefer-vector-width"="{target.vector_bits}" ' if target.vector_bits > 128 else ""
        if target.vector_bits > 256:
            width += f'"min-legal-vector-width"="{target.vector_bits}" '
        linkage = "internal " if private else ""
        # no-builtins: loops must not become calls of memset or memcpy, which nobody provides.
        head = (
            f"define {linkage}void @{symbol}({', '.join(params)}) "
            f'noinline nounwind "no-builtins" {width}{{\nentry:'
        )
        return "\n".join([head, *_flatten(self.scopes[0].lines), "  ret void", "}", ""])

    # Statements

    def body(self, stmts: tuple[Stmt, ...]) -> None:
        for stmt in stmts:
            match stmt:
                case Store():
                    self.memo = {}
                    self.store(stmt)
                case For():
                    self.loop(stmt)
                case Alloc():
                    self.allocate(stmt.buffer)
                    self.body(stmt.body)
                case Prefetch():
                    self.memo = {}
                    self.prefetch(stmt)
                case _:
                    raise VerifyError(f"statement {type(stmt).__name__} has no code generation")

    def loop(self, loop: For) -> None:
        if loop.kind is Kind.VECTOR:
            if self.vector is not None:
                raise VerifyError(f"vector loop '{loop.var.name}' inside a vector loop")
            self.vector = loop
            self.body(loop.body)
            self.vector = None
        elif loop.kind is Kind.UNROLLED or loop.extent == 1:
            for value in range(loop.extent):
                self.values[loop.var] = value
                self.body(loop.body)
            del self.values[loop.var]
        else:
            self.counted_loop(loop)

    def counted_loop(self, loop: For) -> None:
        if self.vector is not None:
            raise VerifyError(f"loop '{loop.var.name}' inside a vector loop is not unrolled")
        label, end, before = self.fresh("loop"), self.fresh("end"), self.block
        self.do(f"br label %{label}")
        self.lines.append(f"{label}:")
        phi_at = len(self.lines)
        self.lines.append("")
        outer, self.block = self.lines, label
        name = f"%{self.fresh('i')}"
        scope = _Scope()
        outer.append(scope.lines)
        self.scopes.append(scope)
        self.values[loop.var] = (name, len(self.scopes) - 1)
        self.lines = scope.lines
        self.body(loop.body)
        following = self.put(f"add nuw nsw i64 {name}, 1")
        done = self.put(f"icmp eq i64 {following}, {loop.extent}")
        self.do(f"br i1 {done}, label %{end}, label %{label}")
        outer[phi_at] = f"  {name} = phi i64 [ 0, %{before} ], [ {following}, %{self.block} ]"
        del self.values[loop.var]
        self.scopes.pop()
        self.lines, self.block = outer, end
        self.lines.append(f"{end}:")

    def allocate(self, buffer: Buffer) -> None:
        if buffer in self.bases:
            return
        # Slack of one cache line: a vector access with inactive lanes may run past the last element.
        elems = buffer.elems + 64 // buffer.dtype.size_bytes
        name = f"%{self.fresh('a')}"
        self.scopes[0].head.append(
            f"  {name} = alloca [{elems} x {memory_type_of(buffer.dtype)}], align 64"
        )
        self.bases[buffer] = name

    def prefetch(self, stmt: Prefetch) -> None:
        pointer = self.address(stmt.buffer, stmt.index)
        self.do(f"call void @llvm.prefetch.p0(ptr {pointer}, i32 0, i32 {4 - stmt.level}, i32 1)")

    def store(self, stmt: Store) -> None:
        value = self.expr(stmt.value)
        if value.is_vector or self.lane_step(stmt.index) != 0:
            self.store_lanes(stmt, value)
            return
        if self.vector is not None:
            raise VerifyError(f"all lanes of a vector loop store to one element of '{stmt.buffer.name}'")
        text = self.to_memory(stmt.buffer.dtype, 0, value.text)
        pointer = self.address(stmt.buffer, stmt.index)
        self.do(f"store {memory_type_of(stmt.buffer.dtype)} {text}, ptr {pointer}{_align(stmt.buffer)}")

    def store_lanes(self, stmt: Store, value: _Value) -> None:
        loop, buffer = self.vector_loop(), stmt.buffer
        lanes, ty = loop.lanes, memory_type_of(buffer.dtype, loop.lanes)
        step = self.lane_step(stmt.index)
        if step == 0:
            raise VerifyError(f"all lanes of a vector loop store to one element of '{buffer.name}'")
        text = self.to_memory(buffer.dtype, lanes, self.widen(value, stmt.value.dtype))
        if step != 1:
            for lane in range(loop.extent):
                element = self.put(f"extractelement {ty} {text}, i64 {lane}")
                pointer = self.lane_address(buffer, stmt.index, lane)
                self.do(f"store {memory_type_of(buffer.dtype)} {element}, ptr {pointer}{_align(buffer)}")
            return
        pointer = self.lane_address(buffer, stmt.index, 0)
        if loop.extent < lanes and buffer.space is not Space.REGISTER:
            mask = f"<{lanes} x i1> {prefix_mask(loop.extent, lanes)}"
            self.do(
                f"call void @llvm.masked.store.{operators.suffix_of(ty)}.p0"
                f"({ty} {text}, ptr{_align(buffer, '')} {pointer}, {mask})"
            )
            return
        if loop.extent < lanes and self.inactive_lanes_matter(buffer, stmt.index):
            old = self.put(f"load {ty}, ptr {pointer}{_align(buffer)}")
            mask = f"<{lanes} x i1> {prefix_mask(loop.extent, lanes)}"
            text = self.put(f"select {mask}, {ty} {text}, {ty} {old}")
        self.do(f"store {ty} {text}, ptr {pointer}{_align(buffer)}")

    def inactive_lanes_matter(self, buffer: Buffer, index: Expr) -> bool:
        """Whether somebody reads an element of a REGISTER buffer under an inactive lane of this access."""
        read, loop = self.read_elements[buffer], self.vector_loop()
        form = self.analysis.linear(index)
        first = form.const
        for term, coef in form.terms:
            value = 0 if term is loop.var else self.values.get(term)  # type: ignore[call-overload]
            if read is None or not isinstance(value, int):
                return True
            first += coef * value
        assert read is not None
        return any(first + lane in read for lane in range(loop.extent, loop.lanes))

    # Expressions

    def vector_loop(self) -> For:
        assert self.vector is not None
        return self.vector

    @property
    def lanes(self) -> int:
        return self.vector.lanes if self.vector is not None else 0

    def expr(self, expr: Expr) -> _Value:
        found = self.memo.get(expr)
        if found is None:
            found = self.compute(expr)
            self.memo[expr] = found
        return found

    def compute(self, expr: Expr) -> _Value:
        match expr:
            case Lit():
                return _Value(literal(expr.value, expr.dtype), False)
            case Load():
                return self.load(expr)
            case Bits():
                x = self.expr(expr.x)
                lanes = self.lanes if x.is_vector else 0
                text = operators.bitcast(self.put, expr.x.dtype, expr.dtype, lanes, x.text)
                return _Value(text, x.is_vector)
            case Conv():
                x = self.expr(expr.x)
                lanes = self.lanes if x.is_vector else 0
                text = operators.convert(self.put, expr.x.dtype, expr.dtype, lanes, x.text)
                return _Value(text, x.is_vector)
            case Un():
                x = self.expr(expr.x)
                lanes = self.lanes if x.is_vector else 0
                return _Value(operators.unary(self.put, expr.fn, expr.dtype, lanes, x.text), x.is_vector)
            case Var():
                return self.integer(expr)
            case Bin():
                return self.binary(expr)
            case Cmp():
                (a, b), lanes = self.together(expr.a, expr.b)
                text = operators.compare(self.put, expr.fn, expr.a.dtype, lanes, a, b)
                return _Value(text, lanes > 0)
            case Fma():
                (a, b, c), lanes = self.together(expr.a, expr.b, expr.c)
                text = operators.fused_multiply_add(self.put, expr.dtype, lanes, a, b, c)
                return _Value(text, lanes > 0)
            case Sel():
                return self.select(expr)
        raise VerifyError(f"expression {type(expr).__name__} has no code generation")

    def select(self, expr: Sel) -> _Value:
        cond = self.expr(expr.cond)
        if cond.is_vector:
            lanes = self.lanes
            a, b = (self.widen(self.expr(x), x.dtype) for x in (expr.a, expr.b))
        else:
            (a, b), lanes = self.together(expr.a, expr.b)
        cond_lanes = lanes if cond.is_vector else 0
        text = operators.select(self.put, expr.dtype, lanes, cond.text, cond_lanes, a, b)
        return _Value(text, lanes > 0)

    def binary(self, expr: Bin) -> _Value:
        if expr.dtype is DType.I64 and expr.fn in ("add", "sub", "mul"):
            form = self.analysis.linear(expr)
            if form.terms != ((expr, 1),):
                return self.integer(expr)
        (a, b), lanes = self.together(expr.a, expr.b)
        is_index = self.index_depth and expr.fn in ("div", "mod") and not self.analysis.has_load(expr)
        if is_index and isinstance(expr.b, Lit):
            divisor = int(expr.b.value)
            text = operators.divide_never_negative(self.put, expr.fn, lanes, a, divisor)
        else:
            is_number = isinstance(expr.b, Lit) and expr.b.value == expr.b.value
            text = operators.binary(self.put, expr.fn, expr.dtype, lanes, a, b, is_number)
        return _Value(text, lanes > 0)

    def integer(self, expr: Expr) -> _Value:
        """A linear int64 expression: run-time terms summed as scalars, the lane variable as a constant."""
        form = self.analysis.linear(expr)
        const, step = form.const, 0
        total: _Value | None = None
        for term, coef in form.terms:
            if self.vector is not None and term is self.vector.var:
                step = coef
                continue
            value = self.values.get(term) if isinstance(term, Var) else None
            if isinstance(value, int):
                const += coef * value
                continue
            part = _Value(value[0], False) if value else self.expr(term)
            if coef != 1:
                factor = self.widen(_Value(str(coef), False), DType.I64) if part.is_vector else str(coef)
                ty = type_of(DType.I64, self.lanes if part.is_vector else 0)
                part = _Value(self.put(f"mul {ty} {part.text}, {factor}"), part.is_vector)
            total = part if total is None else self.sum(total, part)
        offset = _Value(str(const), False)
        if step:
            texts = [str(const + step * lane) for lane in range(self.lanes)]
            offset = _Value(vector_constant(texts, "i64"), True)
        if total is None:
            return offset
        return self.sum(total, offset) if step or const else total

    def sum(self, a: _Value, b: _Value) -> _Value:
        if a.is_vector or b.is_vector:
            ty = type_of(DType.I64, self.lanes)
            a, b = (_Value(self.widen(x, DType.I64), True) for x in (a, b))
            return _Value(self.put(f"add {ty} {a.text}, {b.text}"), True)
        return _Value(self.put(f"add i64 {a.text}, {b.text}"), False)

    def together(self, *exprs: Expr) -> tuple[tuple[str, ...], int]:
        """Operands that meet in one instruction: all scalars, or all vectors if one of them is."""
        values = [self.expr(x) for x in exprs]
        if not any(value.is_vector for value in values):
            return tuple(value.text for value in values), 0
        widened = (self.widen(v, x.dtype) for v, x in zip(values, exprs, strict=True))
        return tuple(widened), self.lanes

    def widen(self, value: _Value, dtype: DType) -> str:
        """The value in every lane."""
        if value.is_vector:
            return value.text
        scalar, ty = type_of(dtype), type_of(dtype, self.lanes)
        if not value.text.startswith("%"):
            return splat_constant(value.text, scalar)
        first = self.put(f"insertelement {ty} poison, {scalar} {value.text}, i64 0")
        zeros = f"<{self.lanes} x i32> zeroinitializer"
        return self.put(f"shufflevector {ty} {first}, {ty} poison, {zeros}")

    # Memory

    def to_memory(self, dtype: DType, lanes: int, text: str) -> str:
        if dtype is not DType.BOOL:
            return text
        return self.put(f"zext {type_of(dtype, lanes)} {text} to {memory_type_of(dtype, lanes)}")

    def from_memory(self, dtype: DType, lanes: int, text: str) -> str:
        if dtype is not DType.BOOL:
            return text
        zero = "zeroinitializer" if lanes else "0"
        return self.put(f"icmp ne {memory_type_of(dtype, lanes)} {text}, {zero}")

    def lane_step(self, index: Expr) -> int | None:
        """How many elements the index moves from lane to lane; None when that is not a constant."""
        if self.vector is None:
            return 0
        step, var = 0, self.vector.var
        for term, coef in self.analysis.linear(index).terms:
            if term is var:
                step = coef
            elif var in self.analysis.variables(term):
                return None
        return step

    def load(self, expr: Load) -> _Value:
        buffer, step = expr.buffer, self.lane_step(expr.index)
        if step == 0:
            pointer = self.address(buffer, expr.index)
            text = self.put(f"load {memory_type_of(buffer.dtype)}, ptr {pointer}{_align(buffer)}")
            return _Value(self.from_memory(buffer.dtype, 0, text), False)
        loop = self.vector_loop()
        if step != 1:
            return self.load_lanes(expr)
        ty = memory_type_of(buffer.dtype, loop.lanes)
        pointer = self.lane_address(buffer, expr.index, 0)
        if loop.extent < loop.lanes and buffer.space is not Space.REGISTER:
            mask = f"<{loop.lanes} x i1> {prefix_mask(loop.extent, loop.lanes)}"
            text = self.put(
                f"call {ty} @llvm.masked.load.{operators.suffix_of(ty)}.p0"
                f"(ptr{_align(buffer, '')} {pointer}, {mask}, {ty} zeroinitializer)"
            )
        else:
            text = self.put(f"load {ty}, ptr {pointer}{_align(buffer)}")
        return _Value(self.from_memory(buffer.dtype, loop.lanes, text), True)

    def load_lanes(self, expr: Load) -> _Value:
        """A vector from one scalar load per active lane."""
        loop, buffer = self.vector_loop(), expr.buffer
        element, ty = memory_type_of(buffer.dtype), memory_type_of(buffer.dtype, loop.lanes)
        text = "poison" if loop.extent == loop.lanes else "zeroinitializer"
        for lane in range(loop.extent):
            pointer = self.lane_address(buffer, expr.index, lane)
            scalar = self.put(f"load {element}, ptr {pointer}{_align(buffer)}")
            text = self.put(f"insertelement {ty} {text}, {element} {scalar}, i64 {lane}")
        return _Value(self.from_memory(buffer.dtype, loop.lanes, text), True)

    def lane_address(self, buffer: Buffer, index: Expr, lane: int) -> str:
        """The address that one lane accesses, computed with the lane variable bound to a constant."""
        loop, memo = self.vector_loop(), self.memo
        self.vector, self.memo = None, {}
        self.values[loop.var] = lane
        pointer = self.address(buffer, index)
        del self.values[loop.var]
        self.vector, self.memo = loop, memo
        return pointer

    def address(self, buffer: Buffer, index: Expr) -> str:
        """A pointer to one element: base, plus each loop's share at the head of that loop, plus a constant."""
        size, const = buffer.dtype.size_bytes, 0
        loops: dict[int, tuple[str, int]] = {}
        hoisted: list[tuple[int, tuple, Expr, int]] = []
        here: list[tuple[Expr, int]] = []
        form = self.analysis.linear(index)
        const = form.const
        for term, coef in form.terms:
            value = self.values.get(term) if isinstance(term, Var) else None
            if isinstance(value, int):
                const += coef * value
            elif value is not None:
                loops[value[1]] = (value[0], coef)
            elif self.analysis.has_load(term):
                here.append((term, coef))
            else:
                depth, key = self.dependence(term)
                hoisted.append((depth, key, term, coef))
        return self.chain(buffer, loops, hoisted, here, const * size)

    def dependence(self, term: Expr) -> tuple[int, tuple]:
        """The scope that ``term`` belongs to, and what identifies its value within that scope."""
        depth, key = 0, []
        for var in self.analysis.variables(term):
            value = self.values[var]
            if isinstance(value, int):
                key.append((id(var), value))
            else:
                depth = max(depth, value[1])
        return depth, (id(term), *sorted(key))

    def chain(
        self,
        buffer: Buffer,
        loops: dict[int, tuple[str, int]],
        hoisted: list[tuple[int, tuple, Expr, int]],
        here: list[tuple[Expr, int]],
        const_bytes: int,
    ) -> str:
        size, pointer = buffer.dtype.size_bytes, self.bases[buffer]
        last = max([*loops, *(depth for depth, *_ in hoisted)], default=0)
        current = self.lines
        for depth in range(last + 1):
            scope = self.scopes[depth]
            self.lines = scope.head
            if depth in loops:
                name, coef = loops[depth]
                pointer = self.cached(scope, pointer, name, coef * size)
            for at, key, term, coef in hoisted:
                if at == depth:
                    name = scope.names.get(key) or self.index_text(term)
                    scope.names[key] = name
                    pointer = self.cached(scope, pointer, name, coef * size)
        self.lines = self.scopes[last].head if not here else current
        for term, coef in here:
            offset = self.put(f"mul nsw i64 {self.index_text(term)}, {coef * size}")
            pointer = self.put(f"getelementptr i8, ptr {pointer}, i64 {offset}")
        if const_bytes:
            if here:
                pointer = self.put(f"getelementptr i8, ptr {pointer}, i64 {const_bytes}")
            else:
                pointer = self.cached(self.scopes[last], pointer, str(const_bytes), 1)
        self.lines = current
        return pointer

    def cached(self, scope: _Scope, pointer: str, name: str, coef: int) -> str:
        """``pointer + name * coef`` bytes, computed once in ``scope`` (whose head is written to now)."""
        key = (pointer, name, coef)
        found = scope.names.get(key)
        if found is None:
            offset = name if coef == 1 else self.put(f"mul nsw i64 {name}, {coef}")
            found = self.put(f"getelementptr i8, ptr {pointer}, i64 {offset}")
            scope.names[key] = found
        return found

    def index_text(self, term: Expr) -> str:
        """A scalar index term, in which div and mod are of values that are never negative."""
        memo, vector = self.memo, self.vector
        self.memo, self.vector = {}, None
        self.index_depth += 1
        text = self.expr(term).text
        self.index_depth -= 1
        self.memo, self.vector = memo, vector
        return text


def _align(buffer: Buffer, comma: str = ",") -> str:
    return f"{comma} align {buffer.dtype.size_bytes}"


def _flatten(lines: list) -> list[str]:
    flat: list[str] = []
    for line in lines:
        if isinstance(line, list):
            flat.extend(_flatten(line))
        else:
            flat.append(line)
    return flat
