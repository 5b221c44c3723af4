"""Expressions: in go loop-IR expressions, out comes their value as text, computed by instructions.

In a vector loop an expression stays scalar while it does not depend on the lane, and is widened
where it meets one that does.
"""

from __future__ import annotations

import math

from aotc.codegen import operators
from aotc.codegen.address import Addresses
from aotc.codegen.dot import dot_product, short_products, sum_of_products, widened
from aotc.codegen.halves import half_to_single
from aotc.codegen.linear import IndexAnalysis
from aotc.codegen.lookup import ENTRIES, register_bytes
from aotc.codegen.lookup import look_up as look_up_bytes
from aotc.codegen.lookup import looked_up as looked_up_bytes
from aotc.codegen.nibbles import look_up, looked_up
from aotc.codegen.quantize import quantize, quantized_number, rounds_by_addition
from aotc.codegen.text import (
    literal,
    memory_type_of,
    prefix_mask,
    splat_constant,
    suffix_of,
    type_of,
    vector_constant,
)
from aotc.errors import VerifyError
from aotc.graph.types import DType
from aotc.loop.ir import (
    GROUP,
    VECTOR_TERMS,
    Bin,
    Bits,
    Buffer,
    Cmp,
    Conv,
    DotProduct,
    Expr,
    Fma,
    For,
    Lit,
    Load,
    Quantize,
    Sel,
    ShortProducts,
    Space,
    Un,
    Var,
    Widened,
)
from aotc.loop.walk import operands, post_order
from aotc.target import Target

# Loads with these steps between lanes are vector loads of the whole window and shuffles.
_SHUFFLED_STEPS = (-1, 2, 3, 4)


class Value:
    """A computed expression: its text, and whether that is a vector."""

    __slots__ = ("is_vector", "text")

    def __init__(self, text: str, is_vector: bool) -> None:
        self.text = text
        self.is_vector = is_vector


class Expressions(Addresses):
    """Computes expressions with what ``target`` has; ``vector`` is the vector loop that is being
    emitted, if any."""

    def __init__(
        self, analysis: IndexAnalysis, bases: dict[Buffer, str], target: Target
    ) -> None:
        super().__init__(analysis, bases, target.address_bits)
        self._target = target
        self.vector: For | None = None
        # Of elements of registers: the block that stored last, and what, if that is a literal.
        self._literals: dict[Buffer, dict[int | None, tuple[str, str | None]]] = {}
        self.memo: dict[Expr, Value] = {}  # of the statement that is being emitted

    def vector_loop(self) -> For:
        """The vector loop that is being emitted."""
        assert self.vector is not None
        return self.vector

    @property
    def lanes(self) -> int:
        """Physical lanes of vector values here; 0 outside vector loops."""
        return self.vector.lanes if self.vector is not None else 0

    def expr(self, expr: Expr) -> Value:
        """The value of an expression, computed once per statement."""
        if expr not in self.memo:
            # Operands first and without recursion: fused chains nest deeper than Python's stack.
            for node in post_order((expr,), self._needed):
                if node not in self.memo:
                    self.memo[node] = self._compute(node)
        return self.memo[expr]

    def _needed(self, expr: Expr) -> tuple[Expr, ...]:
        """What must be computed before ``expr``; an index is not, it becomes an address."""
        if expr in self.memo or isinstance(expr, (Load, Widened)) or self._is_linear(expr):
            return ()
        nibble = looked_up(expr, self.lanes, self._target)
        if nibble is not None:
            return (nibble.word,)
        codes = self._codes_as_number(expr)
        if codes is not None:
            return (codes.x,)
        return (expr.c,) if isinstance(expr, DotProduct) else operands(expr)

    def _codes_as_number(self, expr: Expr) -> Quantize | None:
        """The quantisation of whose codes ``expr`` makes float32, where that needs no codes."""
        if not isinstance(expr, Conv) or expr.dtype is not DType.F32 or expr.x in self.memo:
            return None
        codes = expr.x
        if not isinstance(codes, Quantize) or not codes.is_number:
            return None
        return codes if rounds_by_addition(self._target, self.lanes) else None

    def _is_linear(self, expr: Expr) -> bool:
        """Whether ``expr`` is a sum or product that ``_integer`` takes apart."""
        if expr.dtype is not DType.I64 or not isinstance(expr, (Bin, Un)):
            return False
        return self.analysis.linear(expr).terms != ((expr, 1),)

    def _compute(self, expr: Expr) -> Value:
        if self._is_linear(expr):
            return self._integer(expr)
        nibble = looked_up(expr, self.lanes, self._target)
        if nibble is not None:
            word = self.widen(self.expr(nibble.word), DType.I32)
            return Value(look_up(self.put, nibble, word), True)
        match expr:
            case Lit():
                return Value(literal(expr.value, expr.dtype), False)
            case Load():
                return self._load(expr)
            case DotProduct():
                return self._dot_product(expr)
            case Widened(buffer=buffer, index=index):
                word = self._load_group(buffer, index).text
                style, signed = self._target.dot_products, buffer.dtype.is_signed
                return Value(widened(self.put, style, word, signed), False)
            case Var():
                return self._integer(expr)
            case Bin():
                return self._binary(expr)
            case Sel():
                return self._select(expr)
        codes = self._codes_as_number(expr)
        if codes is not None:
            (text,), lanes = self._together(codes.x)
            return Value(quantized_number(self.put, codes, lanes, text), lanes > 0)
        texts, lanes = self._together(*operands(expr))
        match expr:
            case Un(fn=fn):
                bits = self._target.rounding_bits
                text = operators.unary(self.put, fn, expr.dtype, lanes, texts[0], bits)
            case Cmp(fn=fn, a=a):
                text = operators.compare(self.put, fn, a.dtype, lanes, *texts)
            case Fma():
                text = operators.fused_multiply_add(self.put, expr.dtype, lanes, *texts)
            case Conv(x=x) if self._by_integers(x.dtype, expr.dtype):
                text = half_to_single(self.put, lanes, texts[0])
            case Conv(x=x):
                saturates = self._target.saturates
                text = operators.convert(self.put, x.dtype, expr.dtype, lanes, texts[0], saturates)
            case ShortProducts(a=a):
                style, bits = self._target.dot_products, a.dtype.size_bits
                text = short_products(self.put, style, bits, *texts)
            case Quantize():
                text = quantize(self.put, expr, self._target, lanes, texts[0])
            case Bits(x=x):
                text = operators.bitcast(self.put, x.dtype, expr.dtype, lanes, *texts)
            case _:
                raise VerifyError(f"no code generation for expression {type(expr).__name__}")
        return Value(text, lanes > 0)

    def _by_integers(self, source: DType, dtype: DType) -> bool:
        """Whether a conversion would be a call of a function that nobody provides."""
        return source is DType.F16 and dtype is DType.F32 and not self._target.widens_half

    def _select(self, expr: Sel) -> Value:
        cond = self.expr(expr.cond)
        if cond.is_vector:
            lanes = self.lanes
            a, b = (self.widen(self.expr(x), x.dtype) for x in (expr.a, expr.b))
        else:
            (a, b), lanes = self._together(expr.a, expr.b)
        cond_lanes = lanes if cond.is_vector else 0
        text = operators.select(self.put, expr.dtype, lanes, cond.text, cond_lanes, a, b)
        return Value(text, lanes > 0)

    def _binary(self, expr: Bin) -> Value:
        (a, b), lanes = self._together(expr.a, expr.b)
        dtype = expr.dtype
        if expr.fn in ("div", "mod") and dtype is DType.I64 and self.analysis.never_negative(expr):
            dtype = DType.U64  # the same result with fewer instructions
        is_number = isinstance(expr.b, Lit) and expr.b.value == expr.b.value
        text = operators.binary(self.put, expr.fn, dtype, lanes, a, b, is_number)
        return Value(text, lanes > 0)

    def _integer(self, expr: Expr) -> Value:
        """A linear int64 expression: terms summed as scalars, then the lanes as a constant."""
        form = self.analysis.linear(expr)
        const, step = form.const, 0
        total: Value | None = None
        for term, coef in form.terms:
            if self.vector is not None and term is self.vector.var:
                step = coef
                continue
            value = self.values.get(term) if isinstance(term, Var) else None
            if isinstance(value, int):
                const += coef * value
                continue
            part = Value(value[0], False) if value else self.expr(term)
            if coef != 1:
                lanes = self.lanes if part.is_vector else 0
                factor = operators.constant(coef, DType.I64, lanes)
                product = self.put(f"mul {type_of(DType.I64, lanes)} {part.text}, {factor}")
                part = Value(product, part.is_vector)
            total = part if total is None else self._sum(total, part)
        offset = Value(str(const), False)
        if step:
            texts = [str(const + step * lane) for lane in range(self.lanes)]
            offset = Value(vector_constant(texts, "i64"), True)
        if total is None:
            return offset
        return self._sum(total, offset) if step or const else total

    def _sum(self, a: Value, b: Value) -> Value:
        if a.is_vector or b.is_vector:
            ty = type_of(DType.I64, self.lanes)
            a, b = (Value(self.widen(x, DType.I64), True) for x in (a, b))
            return Value(self.put(f"add {ty} {a.text}, {b.text}"), True)
        return Value(self.put(f"add i64 {a.text}, {b.text}"), False)

    def _together(self, *exprs: Expr) -> tuple[tuple[str, ...], int]:
        """Operands that meet in one instruction: all scalars, or all vectors if one of them is."""
        values = [self.expr(x) for x in exprs]
        if not any(value.is_vector for value in values):
            return tuple(value.text for value in values), 0
        widened = (self.widen(v, x.dtype) for v, x in zip(values, exprs, strict=True))
        return tuple(widened), self.lanes

    def widen(self, value: Value, dtype: DType) -> str:
        """The value in every lane."""
        if value.is_vector:
            return value.text
        scalar, ty = type_of(dtype), type_of(dtype, self.lanes)
        if not value.text.startswith("%"):
            return splat_constant(value.text, scalar)
        first = self.put(f"insertelement {ty} poison, {scalar} {value.text}, i64 0")
        zeros = f"<{self.lanes} x i32> zeroinitializer"
        return self.put(f"shufflevector {ty} {first}, {ty} poison, {zeros}")

    def to_memory(self, dtype: DType, lanes: int, text: str) -> str:
        if dtype is not DType.BOOL:
            return text
        return self.put(f"zext {type_of(dtype, lanes)} {text} to {memory_type_of(dtype, lanes)}")

    def _from_memory(self, dtype: DType, lanes: int, text: str) -> str:
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

    def remember(self, buffer: Buffer, index: Expr, text: str) -> None:
        """Takes note of a scalar ``text`` that the present block stores to a register."""
        known = self._literals.setdefault(buffer, {})
        known[self._constant(index)] = (self.block, None if text.startswith("%") else text)

    def forget(self, buffer: Buffer) -> None:
        """Takes note of a vector that is stored to ``buffer``."""
        self._literals.pop(buffer, None)

    def _stored_literal(self, buffer: Buffer, index: Expr) -> str | None:
        if buffer.space is not Space.REGISTER or self.vector is not None:
            return None
        known = self._literals.get(buffer, {})
        block, text = known.get(self._constant(index), ("", None))
        return text if block == self.block else None

    def _constant(self, index: Expr) -> int | None:
        """The number that ``index`` is here; None when it is not constant."""
        form = self.analysis.linear(index)
        total = form.const
        for term, coef in form.terms:
            value = self.values.get(term) if isinstance(term, Var) else None
            if not isinstance(value, int):
                return None
            total += coef * value
        return total

    def _load(self, expr: Load) -> Value:
        buffer, step = expr.buffer, self.lane_step(expr.index)
        if step == 0:
            literal_ = self._stored_literal(buffer, expr.index)
            if literal_ is not None:
                return Value(literal_, False)
            pointer = self.address(buffer, expr.index)
            ty = memory_type_of(buffer.dtype)
            text = self.put(f"load {ty}, ptr {pointer}, {aligned(buffer)}")
            return Value(self._from_memory(buffer.dtype, 0, text), False)
        loop = self.vector_loop()
        if step in _SHUFFLED_STEPS and loop.extent == loop.lanes:
            return self._load_window(expr, step)
        places = looked_up_bytes(expr, self.lanes, self._target) if step is None else None
        if places is not None:
            return self._look_up(buffer, places)
        if step != 1:
            return self._load_lanes(expr)
        ty = memory_type_of(buffer.dtype, loop.lanes)
        pointer = self.lane_address(buffer, expr.index, 0)
        if loop.extent < loop.lanes and buffer.space is not Space.REGISTER:
            mask = f"<{loop.lanes} x i1> {prefix_mask(loop.extent, loop.lanes)}"
            text = self.put(
                f"call {ty} @llvm.masked.load.{suffix_of(ty)}.p0"
                f"(ptr {aligned(buffer)} {pointer}, {mask}, {ty} zeroinitializer)"
            )
        else:
            alignment = self.vector_alignment(buffer, expr.index)
            text = self.put(f"load {ty}, ptr {pointer}, {alignment}")
        return Value(self._from_memory(buffer.dtype, loop.lanes, text), True)

    def vector_alignment(self, buffer: Buffer, index: Expr) -> str:
        """The alignment of the first lane of an access, as far as the buffer's own tells it."""
        if not buffer.alignment:
            return aligned(buffer)
        form, lane = self.analysis.linear(index), self.vector_loop().var
        parts = (coef * self.analysis.divisor(t) for t, coef in form.terms if t is not lane)
        elems = math.gcd(form.const, *parts)
        return f"align {math.gcd(buffer.alignment, elems * buffer.dtype.size_bytes)}"

    def _dot_product(self, expr: DotProduct) -> Value:
        if expr.terms != GROUP:
            a, b = (self._load_terms(*read, expr.terms) for read in expr.reads)
            return Value(sum_of_products(self.put, a, b, self.expr(expr.c).text), False)
        words = [self._load_group(buffer, first) for buffer, first in expr.reads]
        c = self.expr(expr.c)
        style, signed = self._target.dot_products, expr.a.dtype.is_signed
        if not (c.is_vector or any(word.is_vector for word in words)):
            text = dot_product(self.put, style, signed, 0, words[0].text, words[1].text, c.text)
            return Value(text, False)
        a, b, total = (self.widen(value, DType.I32) for value in (*words, c))
        return Value(dot_product(self.put, style, signed, self.lanes, a, b, total), True)

    def _load_terms(self, buffer: Buffer, first: Expr, terms: int) -> str:
        """A vector of the ``terms`` bytes from ``first`` on, and zeros."""
        if self.vector is not None or terms > VECTOR_TERMS:
            raise VerifyError(f"no dot product of {terms} elements of '{buffer.name}'")
        pointer, ty = self.address(buffer, first), f"<{VECTOR_TERMS} x i8>"
        if terms == VECTOR_TERMS:
            return self.put(f"load {ty}, ptr {pointer}, {aligned(buffer)}")
        mask = f"<{VECTOR_TERMS} x i1> {prefix_mask(terms, VECTOR_TERMS)}"
        return self.put(
            f"call {ty} @llvm.masked.load.{suffix_of(ty)}.p0"
            f"(ptr {aligned(buffer)} {pointer}, {mask}, {ty} zeroinitializer)"
        )

    def _load_group(self, buffer: Buffer, first: Expr) -> Value:
        """The four bytes from ``first`` on as one word; in lanes that are four bytes apart, or in
        all lanes the same."""
        step = self.lane_step(first)
        if step == 0:
            pointer = self.address(buffer, first)
            return Value(self.put(f"load i32, ptr {pointer}, {aligned(buffer)}"), False)
        loop = self.vector_loop()
        if step != GROUP or loop.extent < loop.lanes:
            raise VerifyError(f"the groups of '{buffer.name}' do not lie side by side")
        pointer = self.lane_address(buffer, first, 0)
        return Value(self.put(f"load <{loop.lanes} x i32>, ptr {pointer}, {aligned(buffer)}"), True)

    def _load_window(self, expr: Load, step: int) -> Value:
        """Lanes a small constant step apart: the vectors from the first to the last lane, shuffled.

        Nothing outside that window is read, so this is in bounds whenever each lane is.
        """
        lanes, buffer, parts = self.lanes, expr.buffer, abs(step)
        ty = memory_type_of(buffer.dtype, lanes)
        lowest = self.lane_address(buffer, expr.index, 0 if step > 0 else lanes - 1)
        starts = [part * lanes for part in range(parts - 1)] + [(parts - 1) * (lanes - 1)]
        places = [parts * (lane if step > 0 else lanes - 1 - lane) for lane in range(lanes)]
        owners = [min(place // lanes, parts - 1) for place in places]
        text = ""
        for part, start in enumerate(starts):
            pointer = self.displaced(lowest, start * buffer.dtype.size_bytes)
            vector = self.put(f"load {ty}, ptr {pointer}, {aligned(buffer)}")
            if not part and parts > 1:
                text = vector
                continue
            mask = []
            for lane, (owner, place) in enumerate(zip(owners, places, strict=True)):
                kept = place if part <= 1 else lane  # until the first shuffle, lanes are unsorted
                taken = place - start + (lanes if part else 0)
                mask.append("poison" if owner > part else str(taken if owner == part else kept))
            text = self.put(
                f"shufflevector {ty} {text or vector}, {ty} {vector}, "
                f"<{lanes} x i32> {vector_constant(mask, 'i32')}"
            )
        return Value(self._from_memory(buffer.dtype, lanes, text), True)

    def _look_up(self, table: Buffer, places: Expr) -> Value:
        """The bytes of ``table`` at ``places``."""
        width = register_bytes(self._target)
        first = self.address(table, Lit(0))
        parts = [
            self.put(f"load <{width} x i8>, ptr {self.displaced(first, start)}, align 1")
            for start in range(0, ENTRIES, width)
        ]
        text = self.widen(self.expr(places), DType.U8)
        return Value(look_up_bytes(self.put, self._target, parts, self.lanes, text), True)

    def _load_lanes(self, expr: Load) -> Value:
        """A vector from one scalar load per active lane."""
        loop, buffer = self.vector_loop(), expr.buffer
        element, ty = memory_type_of(buffer.dtype), memory_type_of(buffer.dtype, loop.lanes)
        text = "poison" if loop.extent == loop.lanes else "zeroinitializer"
        for lane in range(loop.extent):
            pointer = self.lane_address(buffer, expr.index, lane)
            scalar = self.put(f"load {element}, ptr {pointer}, {aligned(buffer)}")
            text = self.put(f"insertelement {ty} {text}, {element} {scalar}, i64 {lane}")
        return Value(self._from_memory(buffer.dtype, loop.lanes, text), True)

    def lane_address(self, buffer: Buffer, index: Expr, lane: int) -> str:
        """The address that one lane accesses; the lane variable is a constant in it."""
        loop, memo = self.vector_loop(), self.memo
        self.vector, self.memo = None, {}
        self.values[loop.var] = lane
        pointer = self.address(buffer, index)
        del self.values[loop.var]
        self.vector, self.memo = loop, memo
        return pointer

    def index_term(self, term: Expr) -> str:
        """The text of a term that is the same in all lanes."""
        memo, vector = self.memo, self.vector
        self.memo, self.vector = {}, None
        text = self.expr(term).text
        self.memo, self.vector = memo, vector
        return text


def aligned(buffer: Buffer) -> str:
    """The alignment that any element of ``buffer`` has."""
    return f"align {buffer.dtype.size_bytes}"
