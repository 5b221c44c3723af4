"""Text of one LLVM function under construction: in go instructions, out comes the function's body.

A run-time loop has a scope: its lines, and lines at its head, to which values can be added later
that depend on nothing deeper. That is how an address is computed once for all its uses in a loop.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from aotc.loop.ir import Var

Lines = list["str | Lines"]
Key = tuple[object, ...]


class Scope:
    """The body of a run-time loop, or of the function: lines, head lines, and names known in it."""

    def __init__(self) -> None:
        self.head: Lines = []
        self.lines: Lines = [self.head]
        self.names: dict[Key, str] = {}


@dataclass(slots=True)
class OpenLoop:
    """A loop whose end is not written yet; ``header`` is where its phi will stand. ``counter`` is
    the variable, or what it widens."""

    counter: str
    type: str
    label: str
    before: str
    outer: Lines
    first: str
    header: Lines = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Share:
    """The part of a PARALLEL loop that one caller runs: from ``first`` up to before ``beyond``."""

    first: str
    beyond: str
    end: str


@dataclass(frozen=True, slots=True)
class OpenBind:
    """A bound variable in scope: where instructions went before, and the label after a test."""

    outer: Lines
    end: str | None


class Writer:
    """Appends instructions; keeps the scopes and the values of the loop variables, which are i64.
    Where registers have ``counter_bits`` 32, loops of known extents count in an i32."""

    def __init__(self, counter_bits: int) -> None:
        self._counter_bits = counter_bits
        self.scopes = [Scope()]
        self.lines = self.scopes[0].lines  # where instructions go now
        self.block = "entry"
        self.block_names: dict[Key, str] = {}  # known since the current block began
        # Of an unrolled variable its number, else its name and the depth of its scope.
        self.values: dict[Var, int | tuple[str, int]] = {}
        self._count = 0

    def fresh(self, stem: str = "t") -> str:
        """A name that is not in use."""
        self._count += 1
        return f"{stem}{self._count}"

    def put(self, instruction: str) -> str:
        """Appends an instruction with a result and gives the result's name."""
        name = f"%{self.fresh()}"
        self.lines.append(f"  {name} = {instruction}")
        return name

    def do(self, instruction: str) -> None:
        """Appends an instruction without a result."""
        self.lines.append(f"  {instruction}")

    def begin_share(self, extent: int) -> Share:
        """Opens the caller's share of ``extent`` iterations, to be closed by
        ``end_share``: iteration i belongs to part p when extent*p/parts <= i <
        extent*(p+1)/parts. It may be empty."""
        after = self.put("add nuw nsw i64 %part, 1")
        bounds = []
        for part in ("%part", after):
            scaled = self.put(f"mul nuw nsw i64 {part}, {extent}")
            bounds.append(self.put(f"udiv i64 {scaled}, %parts"))
        some = self.put(f"icmp ult i64 {bounds[0]}, {bounds[1]}")
        label, end = self.fresh("share"), self.fresh("shared")
        self.do(f"br i1 {some}, label %{label}, label %{end}")
        self.lines.append(f"{label}:")
        self._begin_block(self.lines, label)
        return Share(bounds[0], bounds[1], end)

    def end_share(self, share: Share) -> None:
        """Closes what ``begin_share`` opened."""
        self.do(f"br label %{share.end}")
        self.lines.append(f"{share.end}:")
        self._begin_block(self.lines, share.end)

    def begin_loop(self, var: Var, first: str = "0") -> OpenLoop:
        """Opens a counted loop over ``var`` from ``first``, to be closed by ``end_loop``."""
        bits = 64 if first.startswith("%") else self._counter_bits
        name, label = f"%{self.fresh('i')}", self.fresh("loop")
        loop = OpenLoop(name, f"i{bits}", label, self.block, self.lines, first)
        self.do(f"br label %{loop.label}")
        self.lines.append(f"{loop.label}:")
        self.lines.append(loop.header)
        scope = Scope()
        self.lines.append(scope.lines)
        self.scopes.append(scope)
        self._begin_block(scope.lines, loop.label)
        variable = name
        if bits < 64:
            variable = f"%{self.fresh('i')}"
            scope.head.append(f"  {variable} = zext nneg i{bits} {name} to i64")
        self.values[var] = (variable, len(self.scopes) - 1)
        return loop

    def end_loop(self, var: Var, loop: OpenLoop, beyond: str, note: str = "") -> None:
        """Closes the loop: the test is at the bottom, because a loop runs at least once. ``note``
        stands behind the jump."""
        following = self.put(f"add nuw nsw {loop.type} {loop.counter}, 1")
        done = self.put(f"icmp eq {loop.type} {following}, {beyond}")
        end = self.fresh("end")
        self.do(f"br i1 {done}, label %{end}, label %{loop.label}{note}")
        incoming = f"[ {loop.first}, %{loop.before} ], [ {following}, %{self.block} ]"
        loop.header.append(f"  {loop.counter} = phi {loop.type} {incoming}")
        del self.values[var]
        self.scopes.pop()
        self._begin_block(loop.outer, end)
        self.lines.append(f"{end}:")

    def begin_bind(self, var: Var, name: str, condition: str | None) -> OpenBind:
        """Opens what is done with ``var`` being the value ``name`` (and only if ``condition``
        holds), to be closed by ``end_bind``."""
        outer, end = self.lines, None
        if condition is not None:
            label, end = self.fresh("bound"), self.fresh("end")
            self.do(f"br i1 {condition}, label %{label}, label %{end}")
            self.lines.append(f"{label}:")
        scope = Scope()
        self.lines.append(scope.lines)
        self.scopes.append(scope)
        if condition is not None:
            self._begin_block(scope.lines, label)
        self.lines = scope.lines
        self.values[var] = (name, len(self.scopes) - 1)
        return OpenBind(outer, end)

    def end_bind(self, var: Var, opened: OpenBind) -> None:
        """Closes what ``begin_bind`` opened."""
        del self.values[var]
        self.scopes.pop()
        if opened.end is None:
            self.lines = opened.outer
            return
        self.do(f"br label %{opened.end}")
        self._begin_block(opened.outer, opened.end)
        self.lines.append(f"{opened.end}:")

    def _begin_block(self, lines: Lines, label: str) -> None:
        self.lines, self.block, self.block_names = lines, label, {}

    def text(self) -> str:
        """All lines so far."""
        return "\n".join(_flatten(self.scopes[0].lines))


def _flatten(lines: Lines) -> list[str]:
    flat: list[str] = []
    for line in lines:
        if isinstance(line, str):
            flat.append(line)
        else:
            flat.extend(_flatten(line))
    return flat
