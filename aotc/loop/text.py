"""Readable text of kernels and programs: loop IR in, C-like lines with stable numbering out.

An expression that a statement reaches twice, or that nests deep, is printed once before the
statement, as ``let %t0 = ...``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from aotc.graph.types import DType
from aotc.loop.index import Affine, affine
from aotc.loop.ir import (
    Alloc,
    Barrier,
    Bin,
    Bind,
    Bits,
    Buffer,
    Cmp,
    Conv,
    DotProduct,
    Expr,
    Fma,
    For,
    Kernel,
    Kind,
    Lit,
    Load,
    Mma,
    Prefetch,
    Quantize,
    Sel,
    ShortProducts,
    Shuffle,
    Stmt,
    Store,
    Un,
    Var,
    Widened,
)
from aotc.loop.ir_async import (
    AsyncCommit,
    AsyncCopy,
    AsyncWait,
    LoadMatrix,
    ProxyFence,
    SignalExpect,
    SignalInit,
    SignalWait,
    TileCopy,
    Wgmma,
    WgmmaCommit,
    WgmmaFence,
    WgmmaWait,
)
from aotc.loop.program import Arg, Call, Check, If, Loop, Program, Step
from aotc.loop.tiles import Tile, TileDot, TileLoad, TileStmt, TileStore, TileZero
from aotc.loop.walk import fragments, operands, post_order

_INDENT = "  "
_MAX_DEPTH = 8
_SHORT = {
    DType.BOOL: "bool",
    DType.I8: "i8",
    DType.I16: "i16",
    DType.I32: "i32",
    DType.I64: "i64",
    DType.U8: "u8",
    DType.U16: "u16",
    DType.U32: "u32",
    DType.U64: "u64",
    DType.F16: "f16",
    DType.F32: "f32",
    DType.F64: "f64",
}
_INFIX = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "mod": "%",
    "and": "&",
    "or": "|",
    "xor": "^",
    "shl": "<<",
    "shr": ">>",
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
}


def print_kernel(kernel: Kernel) -> str:
    """The whole kernel, one statement a line, with a final newline."""
    return "\n".join(_Printer().kernel(kernel)) + "\n"


def print_stmt(stmt: Stmt) -> str:
    """One statement with everything in it; buffers and variables from outside by their names."""
    return "\n".join(_Printer().block((stmt,), 0))


def print_program(program: Program) -> str:
    """The signature, the steps in order and then the text of each kernel."""
    lines = [f"program {program.name}"]
    lines += [f"{_INDENT}input  {n}: {t} = {s.name}" for n, t, s in program.inputs]
    lines += [f"{_INDENT}output {n}: {t} = {s.name}" for n, t, s in program.outputs]
    lines += _steps(program.steps, 1)
    texts = (print_kernel(kernel) for kernel in program.kernels())
    return "\n".join(lines) + "\n" + "".join(f"\n{text}" for text in texts)


def _steps(steps: Sequence[Step], depth: int) -> Iterator[str]:
    pad = _INDENT * depth
    for step in steps:
        match step:
            case Call():
                yield pad + _call(step)
            case If(condition=condition, then=then, other=other):
                yield f"{pad}if {_arg(condition)}:"
                yield from _steps(then, depth + 1)
                yield f"{pad}else:"
                yield from _steps(other, depth + 1)
            case Loop(counter=counter, limit=limit, trips=trips, body=body):
                end = str(limit) if trips is None else f"min({limit}, {_arg(trips)})"
                going = "" if step.going is None else f" while {_arg(step.going)}"
                index = "" if step.index is None else f", stored in {_arg(step.index)}"
                yield f"{pad}for {counter.name} in 0..{end}{going}{index}:"
                yield from _steps(body, depth + 1)
                if step.done is not None:
                    yield f"{pad}iterations done stored in {_arg(step.done)}"
            case Check(condition=condition, sentence=sentence):
                yield f"{pad}check {_arg(condition)}  // {sentence}"


def _call(call: Call) -> str:
    args = ", ".join(_arg(arg) for arg in call.args)
    params = call.kernel.params
    pairs = [f"{params[w].name} over {params[r].name}" for w, r in call.in_place]
    note = f"  // in place: {', '.join(pairs)}" if pairs else ""
    return f"call {call.kernel.name}({args}){note}"


def _arg(arg: Arg) -> str:
    storage = arg.storage
    place = f"+{arg.offset_bytes}" if arg.offset_bytes else ""
    place += "".join(f"+{counter.name}*{step_bytes}" for counter, step_bytes in arg.moves)
    return f"{storage.role.value} {storage.name}{place}"


class _Names:
    """Distinct printed names for objects alive at once: ``i``, then ``i.1``, ``i.2`` for others so
    named."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}

    def enter(self, thing: Var | Buffer) -> str:
        taken = set(self._names.values())
        name, number = thing.name, 0
        while name in taken:
            number += 1
            name = f"{thing.name}.{number}"
        self._names[id(thing)] = name
        return name

    def leave(self, thing: Var | Buffer) -> None:
        self._names.pop(id(thing), None)

    def of(self, thing: Var | Buffer) -> str:
        return self._names.get(id(thing), thing.name)


class _Printer:
    def __init__(self) -> None:
        self._names = _Names()
        self._temporaries: dict[int, str] = {}

    def kernel(self, kernel: Kernel) -> Iterator[str]:
        params = []
        for buffer in kernel.params:
            mode = "out " if buffer in kernel.writes else ""
            params.append(mode + self._declare(buffer))
        alias = " may_alias" if kernel.may_alias else ""
        yield f"kernel {kernel.name}({', '.join(params)}){alias}:"
        for map_ in kernel.maps:
            start = f"{self._names.of(map_.buffer)}[{map_.offset} ..]"
            shape = f"{list(map_.dims)} by {list(map_.strides)}, boxes {list(map_.box)}"
            yield f"{_INDENT}map {map_.name} of {start}: {shape}{' in tf32' if map_.tf32 else ''}"
        yield from self.block(kernel.body, 1)

    def _declare(self, buffer: Buffer) -> str:
        if isinstance(buffer, Tile):
            shape = f"[{buffer.rows}][{buffer.columns}]"
            name = self._names.enter(buffer)
            return f"{name}: {_SHORT[buffer.dtype]}{shape} in {buffer.number}"
        aligned = f" aligned {buffer.alignment}" if buffer.alignment else ""
        return f"{self._names.enter(buffer)}: {_SHORT[buffer.dtype]}[{buffer.elems}]{aligned}"

    def block(self, body: Sequence[Stmt], depth: int) -> Iterator[str]:
        for stmt in body:
            yield from self._statement(stmt, depth)

    def _statement(self, stmt: Stmt, depth: int) -> Iterator[str]:
        pad = _INDENT * depth
        match stmt:
            case Store(buffer=buffer, index=index, value=value):
                yield from self._lets((index, value), pad)
                place = f"{self._names.of(buffer)}[{self._index(index)}]"
                yield f"{pad}{place} = {self._outer(value)}"
            case Prefetch(buffer=buffer, index=index, level=level):
                yield from self._lets((index,), pad)
                yield f"{pad}prefetch L{level} {self._names.of(buffer)}[{self._index(index)}]"
            case For(var=var, extent=extent, body=body, kind=kind, lanes=lanes):
                note = {Kind.SERIAL: "", Kind.VECTOR: f" vector({lanes})"}
                label = note.get(kind, f" {kind.value}")
                yield f"{pad}for {self._names.enter(var)} in 0..{extent}{label}:"
                yield from self.block(body, depth + 1)
                self._names.leave(var)
            case Bind(var=var, value=value, extent=extent, body=body):
                yield from self._lets((value,), pad)
                text = self._index(value)
                yield f"{pad}with {self._names.enter(var)} = {text} if in 0..{extent}:"
                yield from self.block(body, depth + 1)
                self._names.leave(var)
            case Barrier():
                yield f"{pad}barrier"
            case Mma(kind=mma):
                d, a, b = (
                    f"{self._names.of(buffer)}[{self._index(first)} ..]"
                    for buffer, first, _ in fragments(stmt)
                )
                yield f"{pad}{d} += mma<{mma}>({a}, {b})"
            case TileStmt():
                yield from self._tile_statement(stmt, pad)
            case AsyncCopy() | AsyncCommit() | AsyncWait() | LoadMatrix():
                yield from self._copy_statement(stmt, pad)
            case SignalInit() | SignalExpect() | SignalWait() | TileCopy():
                yield from self._signal_statement(stmt, pad)
            case Wgmma() | WgmmaFence() | WgmmaCommit() | WgmmaWait() | ProxyFence():
                yield from self._product_statement(stmt, pad)
            case Alloc(buffer=buffer, body=body):
                yield f"{pad}{buffer.space.value} {self._declare(buffer)}:"
                yield from self.block(body, depth + 1)
                self._names.leave(buffer)
            case _:
                yield f"{pad}{stmt!r}"

    def _tile_statement(self, stmt: TileStmt, pad: str) -> Iterator[str]:
        name = self._names.of
        match stmt:
            case TileZero(tile=tile):
                yield f"{pad}{name(tile)} = 0"
            case TileLoad(tile=tile, buffer=buffer, index=index, stride=stride):
                yield from self._lets((index,), pad)
                place = f"{name(buffer)}[{self._index(index)} .., rows {stride} apart]"
                yield f"{pad}{name(tile)} = {place}"
            case TileStore(tile=tile, buffer=buffer, index=index, stride=stride):
                yield from self._lets((index,), pad)
                place = f"{name(buffer)}[{self._index(index)} .., rows {stride} apart]"
                yield f"{pad}{place} = {name(tile)}"
            case TileDot(c=c, a=a, b=b):
                yield f"{pad}{name(c)} += tile_dot4({name(a)}, {name(b)})"

    def _copy_statement(
        self, stmt: AsyncCopy | AsyncCommit | AsyncWait | LoadMatrix, pad: str
    ) -> Iterator[str]:
        name = self._names.of
        match stmt:
            case AsyncCopy(buffer=buffer, at=at, source=source, source_at=source_at):
                condition = () if stmt.valid is None else (stmt.valid,)
                yield from self._lets((at, source_at, *condition), pad)
                places = f"{name(buffer)}[{self._index(at)} ..]", self._index(source_at)
                note = "".join(f" if {self._outer(valid)}, else 0" for valid in condition)
                text = f"{places[0]} = {stmt.elems} of {name(source)}[{places[1]} ..]{note}"
                yield f"{pad}begin {text}"
            case AsyncCommit():
                yield f"{pad}commit copies"
            case AsyncWait(pending=pending):
                yield f"{pad}wait for copies, all but {pending}"
            case LoadMatrix(to=to, to_at=to_at, source=source, at=at, count=count):
                yield from self._lets((at,), pad)
                kind = f"{count}, transposed" if stmt.transposed else str(count)
                place = f"{name(source)}[{self._index(at)} ..]"
                yield f"{pad}{name(to)}[{self._index(to_at)} ..] = matrices<{kind}>({place})"

    def _signal_statement(
        self, stmt: SignalInit | SignalExpect | SignalWait | TileCopy, pad: str
    ) -> Iterator[str]:
        name = self._names.of
        if isinstance(stmt, TileCopy):
            yield from self._lets((*stmt.position, stmt.at, stmt.signal_at), pad)
            place = ", ".join(self._index(axis) for axis in stmt.position)
            signal = f"{name(stmt.signal)}[{self._index(stmt.signal_at)}]"
            target = f"{name(stmt.buffer)}[{self._index(stmt.at)} ..]"
            yield f"{pad}begin {target} = box of {stmt.map.name} at ({place}), signals {signal}"
            return
        parity = (stmt.parity,) if isinstance(stmt, SignalWait) else ()
        yield from self._lets((stmt.at, *parity), pad)
        signal = f"{name(stmt.buffer)}[{self._index(stmt.at)}]"
        match stmt:
            case SignalInit(arrivals=arrivals):
                yield f"{pad}signal {signal} of {arrivals} arrivals"
            case SignalExpect(bytes=count):
                yield f"{pad}arrive at {signal}, expect {count} bytes"
            case SignalWait():
                yield f"{pad}wait for {signal} in phase {self._index(stmt.parity)}"

    def _product_statement(
        self, stmt: Wgmma | WgmmaFence | WgmmaCommit | WgmmaWait | ProxyFence, pad: str
    ) -> Iterator[str]:
        name = self._names.of
        match stmt:
            case Wgmma(kind=kind, columns=columns):
                yield from self._lets((stmt.d_at, stmt.a_at, stmt.b_at), pad)
                places = ((stmt.d, stmt.d_at), (stmt.a, stmt.a_at), (stmt.b, stmt.b_at))
                d, a, b = (f"{name(buffer)}[{self._index(at)} ..]" for buffer, at in places)
                across = f", columns {stmt.b_step} apart" if stmt.b_step else ""
                yield f"{pad}begin {d} += wgmma<{kind}, {columns}>({a}, {b}{across})"
            case WgmmaFence():
                yield f"{pad}fence registers of products"
            case WgmmaCommit():
                yield f"{pad}commit products"
            case WgmmaWait(pending=pending, sums=sums):
                names = ", ".join(name(buffer) for buffer in sums)
                yield f"{pad}wait for products in {names}, all but {pending}"
            case ProxyFence():
                yield f"{pad}fence shared memory"

    def _lets(self, roots: Sequence[Expr], pad: str) -> Iterator[str]:
        """One line for each expression that the statement reaches more than once, or that nests
        too deep for one line, operands first."""
        order = post_order(roots, _printed_operands)
        uses = Counter(id(operand) for expr in order for operand in _printed_operands(expr))
        depths: dict[int, int] = {}
        self._temporaries = {}
        for expr in order:
            depth = 1 + max((depths[id(x)] for x in _printed_operands(expr)), default=-1)
            depths[id(expr)] = depth
            deep = depth >= _MAX_DEPTH and uses[id(expr)] > 0
            if deep or (uses[id(expr)] > 1 and not isinstance(expr, Lit)):
                text = self._outer(expr)
                name = f"%t{len(self._temporaries)}"
                self._temporaries[id(expr)] = name
                depths[id(expr)] = 0
                yield f"{pad}let {name} = {text}"

    def _outer(self, expr: Expr) -> str:
        """The text without the parentheses that only an operand needs."""
        text = self._expr(expr)
        bare = isinstance(expr, (Bin, Cmp)) and id(expr) not in self._temporaries
        return text[1:-1] if bare and text.startswith("(") else text

    def _index(self, index: Expr) -> str:
        form = affine(index)
        return self._affine(form) if form is not None else self._outer(index)

    def _affine(self, form: Affine) -> str:
        parts = []
        for var, c in form.terms:
            name = self._names.of(var)
            size = name if abs(c) == 1 else f"{name}*{abs(c)}"
            parts.append(("- " if c < 0 else "+ ") + size)
        if form.const or not parts:
            parts.append(f"{'-' if form.const < 0 else '+'} {abs(form.const)}")
        text = " ".join(parts)
        return text[2:] if text.startswith("+ ") else "-" + text[2:]

    def _expr(self, expr: Expr) -> str:
        if id(expr) in self._temporaries:
            return self._temporaries[id(expr)]
        match expr:
            case Lit():
                return _literal(expr)
            case Var():
                return self._names.of(expr)
            case Load(buffer=buffer, index=index):
                return f"{self._names.of(buffer)}[{self._index(index)}]"
            case Bin(fn=fn, a=a, b=b) | Cmp(fn=fn, a=a, b=b):
                left, right = self._expr(a), self._expr(b)
                infix = _INFIX.get(fn)
                return f"({left} {infix} {right})" if infix else f"{fn}({left}, {right})"
            case DotProduct(c=c):
                groups = (f"{self._names.of(b)}[{self._index(i)} ..]" for b, i in expr.reads)
                return f"dot{expr.terms}({', '.join(groups)}, {self._outer(c)})"
            case Widened(buffer=buffer, index=index):
                return f"widened({self._names.of(buffer)}[{self._index(index)} ..])"
            case ShortProducts():
                name = "short_products"
            case Un(fn=fn, x=x):
                return f"{fn}({self._outer(x)})"
            case Quantize(x=x, zero=zero, low=low, high=high, dtype=dtype):
                limits = f"{zero}, {low}..{high}"
                return f"quantize<{_SHORT[dtype]}>({self._outer(x)}, {limits})"
            case Fma():
                name = "fma"
            case Sel():
                name = "select"
            case Shuffle():
                name = "shuffle"
            case Conv(dtype=dtype):
                name = _SHORT[dtype]
            case Bits(dtype=dtype):
                name = f"bits<{_SHORT[dtype]}>"
            case _:
                return repr(expr)
        return f"{name}({', '.join(self._outer(operand) for operand in operands(expr))})"


def _printed_operands(expr: Expr) -> tuple[Expr, ...]:
    """The operands that print as expressions of their own: none for an affine index."""
    return tuple(x for x in operands(expr) if affine(x) is None)


def _literal(lit: Lit) -> str:
    if lit.dtype is DType.BOOL:
        return "true" if lit.value else "false"
    if lit.dtype is DType.I64:
        return str(int(lit.value))
    if lit.dtype.is_float:
        short = lit.dtype.numpy.type(lit.value)
        return str(short) + ("" if lit.dtype is DType.F32 else f":{_SHORT[lit.dtype]}")
    return f"{int(lit.value)}:{_SHORT[lit.dtype]}"
