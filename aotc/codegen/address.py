"""Addresses: in go a buffer and an index expression, out comes the name of a pointer.

An address is the buffer's base, plus for each enclosing loop the part of the index that depends on
its variable (added at the head of that loop), plus a constant that addressing modes absorb.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field

from aotc.codegen.linear import IndexAnalysis
from aotc.codegen.writer import Key, Scope, Writer
from aotc.loop.ir import Buffer, Expr, Var


@dataclass(slots=True)
class _Parts:
    """An index sorted by where its terms can be computed; all in elements."""

    const: int
    loops: list[tuple[int, str, int]] = field(default_factory=list)  # depth, variable, factor
    hoisted: list[tuple[int, Key, Expr, int]] = field(default_factory=list)  # terms of one depth
    here: list[tuple[Expr, int]] = field(default_factory=list)  # terms that read memory


class Addresses(Writer):
    """Pointers to elements of buffers, each computed once in the scope that it belongs to."""

    def __init__(
        self, analysis: IndexAnalysis, bases: dict[Buffer, str], counter_bits: int
    ) -> None:
        super().__init__(counter_bits)
        self.analysis = analysis
        self.bases = bases

    @abstractmethod
    def index_term(self, term: Expr) -> str:
        """The text of a scalar index term that is not linear."""

    def address(self, buffer: Buffer, index: Expr) -> str:
        """A pointer to ``buffer[index]``; every variable in ``index`` has a scalar value now."""
        return self.displaced(*self.base_and_offset(buffer, index))

    def base_and_offset(self, buffer: Buffer, index: Expr) -> tuple[str, int]:
        """As `address`: a pointer, and how many bytes are to be added to it."""
        parts, size = self._parts(index), buffer.dtype.size_bytes
        pointer, current = self.bases[buffer], self.lines
        depths = {part[0] for part in parts.loops} | {part[0] for part in parts.hoisted}
        for depth in sorted(depths):
            scope = self.scopes[depth]
            self.lines = scope.head
            for at, name, coef in parts.loops:
                if at == depth:
                    pointer = self._advance(scope, pointer, name, coef * size)
            for at, key, term, coef in parts.hoisted:
                if at == depth:
                    if key not in scope.names:
                        scope.names[key] = self.index_term(term)
                    pointer = self._advance(scope, pointer, scope.names[key], coef * size)
        self.lines = current
        for term, coef in parts.here:
            offset = self.put(f"mul nsw i64 {self.index_term(term)}, {coef * size}")
            pointer = self.put(f"getelementptr i8, ptr {pointer}, i64 {offset}")
        return pointer, parts.const * size

    def _parts(self, index: Expr) -> _Parts:
        form = self.analysis.linear(index)
        parts = _Parts(form.const)
        for term, coef in form.terms:
            value = self.values.get(term) if isinstance(term, Var) else None
            if isinstance(value, int):
                parts.const += coef * value
            elif value is not None:
                parts.loops.append((value[1], value[0], coef))
            elif self.analysis.has_load(term):
                parts.here.append((term, coef))
            else:
                parts.hoisted.append((*self._home(term), term, coef))
        return parts

    def _home(self, term: Expr) -> tuple[int, Key]:
        """The depth of the scope that ``term`` belongs to, and what identifies its value there."""
        depth, unrolled = 0, []
        for var in self.analysis.variables(term):
            value = self.values[var]
            if isinstance(value, int):
                unrolled.append((id(var), value))
            else:
                depth = max(depth, value[1])
        return depth, (id(term), *sorted(unrolled))

    def displaced(self, pointer: str, offset_bytes: int) -> str:
        """``pointer`` plus a constant, in the block of its use: instructions absorb it."""
        if not offset_bytes:
            return pointer
        key = (pointer, offset_bytes)
        if key not in self.block_names:
            self.block_names[key] = self.put(
                f"getelementptr i8, ptr {pointer}, i64 {offset_bytes}"
            )
        return self.block_names[key]

    def _advance(self, scope: Scope, pointer: str, name: str, coef: int) -> str:
        """``pointer + name * coef`` bytes, once per scope; ``self.lines`` is the scope's head."""
        key = (pointer, name, coef)
        if key not in scope.names:
            offset = name if coef == 1 else self.put(f"mul nsw i64 {name}, {coef}")
            scope.names[key] = self.put(f"getelementptr i8, ptr {pointer}, i64 {offset}")
        return scope.names[key]
