"""Text of one LLVM function under construction: in go instructions, out comes the function's body.

A run-time loop has a scope: its lines, and lines at its head, to which values can be added later that
depend on nothing deeper. That is how an address is computed once for all its uses in a loop.
"""

from __future__ import annotations

from aotc.loop.ir import Var

Lines = list["str | Lines"]
Key = tuple[object, ...]


class Scope:
    """The body of a run-time loop, or of the function: lines, head lines, and names known in it."""

    def __init__(self) -> None:
        self.head: Lines = []
        self.lines: Lines = [self.head]
        self.names: dict[Key, str] = {}


class Writer:
    """Appends instructions; keeps the scopes and the values of the loop variables."""

    def __init__(self) -> None:
        self.scopes = [Scope()]
        self.lines = self.scopes[0].lines  # where instructions go now
        self.block = "entry"
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

    def begin_loop(self, var: Var) -> int:
        """Opens a counted loop over ``var``; returns the position of its header for ``end_loop``."""
        label = self.fresh("loop")
        self.do(f"br label %{label}")
        self.lines.append(f"{label}:")
        header = len(self.lines)
        self.lines.append(self.block)  # end_loop puts the phi here
        scope = Scope()
        self.lines.append(scope.lines)
        self.scopes.append(scope)
        self.values[var] = (f"%{self.fresh('i')}", len(self.scopes) - 1)
        self.lines, self.block = scope.lines, label
        return header

    def end_loop(self, var: Var, header: int, extent: int) -> None:
        """Closes the loop: the test is at the bottom, because a loop runs at least once."""
        value = self.values.pop(var)
        assert isinstance(value, tuple)
        following = self.put(f"add nuw nsw i64 {value[0]}, 1")
        done = self.put(f"icmp eq i64 {following}, {extent}")
        last, end = self.block, self.fresh("end")
        self.scopes.pop()
        outer = self.scopes[-1].lines
        label = str(outer[header - 1])[:-1]
        self.do(f"br i1 {done}, label %{end}, label %{label}")
        before = outer[header]
        incoming = f"[ 0, %{before} ], [ {following}, %{last} ]"
        outer[header] = f"  {value[0]} = phi i64 {incoming}"
        self.lines, self.block = outer, end
        self.lines.append(f"{end}:")

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
