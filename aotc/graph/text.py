"""The graph as text: a graph in, one line per node out, and back again.

    graph "net"
    %0 = parameter "x" : float32[2,3]
    %1 = constant [0.5] : float32[]
    %2 = constant #9f3c... : float32[3,64]
    %3 = dot(%0, %2) : float32[2,64] @ "fc1"
    %4 = transpose(%3, perm=(1, 0)) : float32[64,2]
    check "too long" = %5
    return "y" = %4

Attributes stand after the operands, `@` gives the node that the user knows. Small constants are
printed as values, large ones as the digest of their bytes. A nested graph is an attribute whose
lines stand between braces: ``then={``, its lines, ``}``. Printing, parsing and printing again gives
the same text.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.graph import ops
from aotc.graph.ir import Constant, Graph, Node, Op, Parameter
from aotc.graph.types import Dim, DType, Symbol, TensorType, TupleType

INLINE_ELEMS = 16


def print_graph(graph: Graph) -> str:
    """The text of ``graph``; equal graphs built in the same order give equal text."""
    return "\n".join(_graph_lines(graph)) + "\n"


def _graph_lines(graph: Graph) -> list[str]:
    numbers: dict[Node, int] = {}
    lines = [f"graph {json.dumps(graph.name)}"]
    for node in graph.nodes():
        numbers[node] = len(numbers)
        operands = [f"%{numbers[operand]}" for operand in node.inputs]
        line = f"%{numbers[node]} = {_op_text(node, operands)} : {_type_text(node.type)}"
        lines.append(f"{line} @ {json.dumps(node.origin)}" if _has_origin(node) else line)
    for word, ends in (("check", graph.checks), ("return", graph.outputs)):
        lines += [f"{word} {json.dumps(name)} = %{numbers[node]}" for name, node in ends]
    return lines


def parse_graph(text: str, constants: Mapping[str, np.ndarray] | None = None) -> Graph:
    """The graph that ``text`` describes.

    ``constants`` gives the values of the constants printed as digests: arrays with those bytes, of
    any type and shape. ModelError names the line of whatever does not parse, does not fit its type
    rule, or refers to an unknown node or digest.
    """
    source = _Source(text)
    parser = _Parser(constants or {}, source)
    try:
        while source.advance():
            parser.statement(_Scanner(source.line))
    except ValueError as error:
        raise ModelError(
            f"{error}: {source.line[:80]}",
            where=f"graph text, line {source.number}",
            remedy="write it as print_graph does, and give the values of large constants",
        ) from None
    return parser.graph()


def _has_origin(node: Node) -> bool:
    default = node.op.name if isinstance(node.op, Parameter) else ""
    return node.origin != default


def _op_text(node: Node, operands: list[str]) -> str:
    op = node.op
    if isinstance(op, Parameter):
        return f"parameter {json.dumps(op.name)}"
    if isinstance(op, Constant):
        if node.data is None or node.data.size > INLINE_ELEMS:
            return f"constant #{op.digest}"
        return f"constant [{', '.join(map(_element_text, node.data.reshape(-1)))}]"
    attributes = [
        f"{field.name}={_attribute_text(str(field.type), getattr(op, field.name))}"
        for field in dataclasses.fields(op)
    ]
    return f"{op.mnemonic}({', '.join(operands + attributes)})"


def _attribute_text(declared: str, value: object) -> str:
    if isinstance(value, Graph):
        return "\n  ".join(["{", *"\n".join(_graph_lines(value)).split("\n")]) + "\n}"
    if isinstance(value, DType):
        return value.value
    if isinstance(value, tuple):
        return f"({', '.join(map(str, value))})"
    # by the declaration, because callers may give a float attribute as a Python integer
    if declared == "float" and isinstance(value, (int, float)):
        return _element_text(np.float64(value))
    return json.dumps(value)


def _element_text(element: np.generic) -> str:
    """Text that gives back the same bits: the shortest decimal, or the bits of an unusual NaN."""
    dtype = DType(element.dtype.name)
    if dtype is DType.BOOL:
        return "true" if element else "false"
    if dtype.is_int:
        return str(int(element))
    # str() of a numpy scalar is the shortest decimal that its own type reads back exactly
    plain = str(np.float32(element) if dtype.is_narrow else element)
    if _read_float(plain, element.dtype).tobytes() == element.tobytes():
        return plain
    return f"bits:{int.from_bytes(element.tobytes(), sys.byteorder):#x}"


def _type_text(type_: TensorType) -> str:
    if isinstance(type_, TupleType):
        return f"({', '.join(map(_type_text, type_.items))})"
    return f"{type_.dtype.value}[{','.join(map(_dim_text, type_.shape))}]"


def _dim_text(dim: Dim) -> str:
    if not isinstance(dim, Symbol):
        return str(dim)
    bound = "" if dim.bound is None else f"<={dim.bound}"
    return json.dumps(dim.name) + bound


@np.errstate(over="ignore")
def _read_float(text: str, dtype: np.dtype) -> np.ndarray:
    """A rank-0 array; what is too large becomes infinite."""
    # numpy reads text as its own types only; what is narrow is printed as an exact float32
    return np.asarray(float(text) if DType(dtype.name).is_narrow else text).astype(dtype)


def _fitting(value: int, dtype: np.dtype) -> np.ndarray:
    """A rank-0 array; ValueError when an integer type cannot hold ``value``."""
    low, high = DType(dtype.name).int_range
    if not low <= value <= high:
        raise ValueError(f"{value} does not fit {dtype.name}")
    return np.asarray(value, dtype)


class _Source:
    """The lines of a text that are not blank, one after the other."""

    def __init__(self, text: str) -> None:
        lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
        self._lines = (entry for entry in lines if entry[1])
        self.number = 0
        self.line = ""

    def advance(self) -> bool:
        """Moves on to the next line, if there is one."""
        found = next(self._lines, None)
        if found is not None:
            self.number, self.line = found
        return found is not None


class _Scanner:
    """Reads one line from left to right; a reader raises ValueError on finding anything else."""

    def __init__(self, line: str) -> None:
        self.restart(line)

    def restart(self, line: str) -> None:
        """Goes on with another line."""
        self._line = line
        self._at = 0

    def take(self, pattern: str) -> str | None:
        """The text that ``pattern`` matches here, after spaces, or None with nothing consumed."""
        found = re.compile(rf"\s*({pattern})").match(self._line, self._at)
        if found is None:
            return None
        self._at = found.end()
        return found.group(1)

    def expect(self, pattern: str, what: str) -> str:
        found = self.take(pattern)
        if found is None:
            raise ValueError(f"expected {what} at column {self._at + 1}")
        return found

    def integer(self) -> int:
        return int(self.expect(r"-?\d+", "an integer"))

    def string(self) -> str:
        found = self.expect(r'"(?:[^"\\]|\\.)*"', "a quoted string")
        return str(json.loads(found))

    def boolean(self) -> bool:
        return self.expect("true|false", "true or false") == "true"

    def dtype(self) -> DType:
        return DType(self.expect(r"[a-z]+[a-z0-9_]*", "an element type"))

    def real(self) -> float:
        return float(self.element(DType.F64))

    def items(self, close: str, item: Callable[[], object]) -> list:
        """Items separated by commas up to ``close``, whose opening bracket is already read."""
        found: list = []
        while not self.take(re.escape(close)):
            if found:
                self.expect(",", f"',' or '{close}'")
            found.append(item())
        return found

    def integers(self) -> tuple[int, ...]:
        self.expect(r"\(", "'('")
        return tuple(self.items(")", self.integer))

    def element(self, dtype: DType) -> np.ndarray:
        """One element in the form of ``_element_text``, as a rank-0 array."""
        if dtype is DType.BOOL:
            return np.asarray(self.boolean())
        if dtype.is_float and self.take("bits:"):
            bits = int(self.expect("0x[0-9a-f]+", "the bits in hexadecimal"), 16)
            unsigned = np.dtype(f"u{dtype.size_bytes}")
            return _fitting(bits, unsigned).view(dtype.numpy)
        word = self.expect(r"-?(?:inf|nan|[0-9][0-9.]*(?:e[-+]?\d+)?)", "a number")
        if dtype.is_float:
            return _read_float(word, dtype.numpy)
        return _fitting(int(word), dtype.numpy)

    def type(self) -> TensorType:
        if self.take(r"\("):
            return TupleType.of(self.items(")", self.type))
        dtype = self.dtype()
        self.expect(r"\[", "'['")
        return TensorType(dtype, tuple(self.items("]", self._dim)))

    def _dim(self) -> Dim:
        if self.take('(?=")') is None:
            return self.integer()
        name = self.string()
        return Symbol(name, self.integer() if self.take("<=") else None)


_ATTRIBUTE_READERS: Mapping[str, Callable[[_Scanner], object]] = MappingProxyType(
    {
        "int": _Scanner.integer,
        "float": _Scanner.real,
        "bool": _Scanner.boolean,
        "str": _Scanner.string,
        "DType": _Scanner.dtype,
        "tuple[int, ...]": _Scanner.integers,
    }
)

_MNEMONICS: Mapping[str, type[Op]] = MappingProxyType(
    {primitive.__name__.lower(): primitive for primitive in ops.PRIMITIVES}
)


class _Parser:
    """Collects the statements of one graph; ``source`` is where those of nested graphs follow."""

    def __init__(self, constants: Mapping[str, np.ndarray], source: _Source) -> None:
        self._name = ""
        self._inputs: list[Node] = []
        self._ends: dict[str, list[tuple[str, Node]]] = {"check": [], "return": []}
        self._constants = constants
        self._source = source
        self._nodes: dict[str, Node] = {}

    def graph(self) -> Graph:
        """What the statements so far describe."""
        outputs, checks = tuple(self._ends["return"]), tuple(self._ends["check"])
        return Graph(self._name, tuple(self._inputs), outputs, checks)

    def statement(self, line: _Scanner) -> None:
        if line.take(r"graph\b"):
            self._name = line.string()
        elif (word := line.take(r"(?:return|check)\b")) is not None:
            name = line.string()
            line.expect("=", "'='")
            self._ends[word].append((name, self._operand(line)))
        else:
            number = line.expect(r"%\d+", "'graph', 'check', 'return' or a node")
            if number in self._nodes:
                raise ValueError(f"{number} is defined twice")
            line.expect("=", "'='")
            self._nodes[number] = self._node(line)
        line.expect("$", "the end of the line")

    def _operand(self, line: _Scanner) -> Node:
        number = line.expect(r"%\d+", "a node")
        if number not in self._nodes:
            raise ValueError(f"{number} is not defined above")
        return self._nodes[number]

    def _node(self, line: _Scanner) -> Node:
        word = line.expect(r"[a-z]+", "an operator")
        if word == "parameter":
            return self._parameter(line)
        if word == "constant":
            return self._constant(line)
        if word not in _MNEMONICS:
            raise ValueError(f"there is no operator '{word}'")
        op, operands = self._application(line, _MNEMONICS[word])
        type_ = self._type(line)
        inferred = op.infer(*(operand.type for operand in operands))
        if inferred != type_:
            raise ValueError(f"the type is {type_}, the rule of {word} gives {inferred}")
        return Node(op, operands, inferred, origin=self._origin(line, ""))

    def _parameter(self, line: _Scanner) -> Node:
        name = line.string()
        node = Node(Parameter(name), (), self._type(line), origin=self._origin(line, name))
        self._inputs.append(node)
        return node

    def _constant(self, line: _Scanner) -> Node:
        digest = line.take("#[0-9a-f]+")
        if digest is not None:
            type_ = self._type(line)
            values = self._known_values(digest[1:], type_)
        else:
            line.expect(r"\[", "'[' or '#'")
            # the elements come before the type that says how to read them
            text = line.expect(r"[^\]]*\]", "elements and ']'")
            type_ = self._type(line)
            elements = _Scanner(text)
            read = elements.items("]", lambda: elements.element(type_.dtype))
            if len(read) != type_.elems:
                raise ValueError(f"{type_} has {type_.elems} elements, not {len(read)}")
            values = np.array(read, type_.dtype.numpy).reshape(type_.dims)
            values.flags.writeable = False
        op = Constant.of(values)
        if digest is not None and digest[1:] != op.digest:
            raise ValueError(f"the values given for {digest} have the digest #{op.digest}")
        return Node(op, (), type_, data=values, origin=self._origin(line, ""))

    def _known_values(self, digest: str, type_: TensorType) -> np.ndarray:
        if digest not in self._constants:
            raise ValueError(f"no values are given for constant #{digest}")
        given = np.ascontiguousarray(self._constants[digest])
        if given.nbytes != type_.size_bytes:
            raise ValueError(f"{type_} has {type_.size_bytes} bytes, the values {given.nbytes}")
        values = given.reshape(-1).view(np.uint8).view(type_.dtype.numpy).reshape(type_.dims)
        values.flags.writeable = False
        return values

    def _application(self, line: _Scanner, kind: type[Op]) -> tuple[Op, tuple[Node, ...]]:
        """The operator and its operands, from after the mnemonic to the closing parenthesis."""
        known = {**_ATTRIBUTE_READERS, "Graph": self._nested}
        readers = {str(f.name): known[str(f.type)] for f in dataclasses.fields(kind)}
        operands: list[Node] = []
        attributes: dict[str, object] = {}

        def argument() -> None:
            if line.take("(?=%)") is not None:
                operands.append(self._operand(line))
                return
            name = line.expect(r"[a-z_]+", "an operand or an attribute")
            if name not in readers or name in attributes:
                raise ValueError(f"attribute '{name}' is unknown or repeated")
            line.expect("=", "'='")
            attributes[name] = readers[name](line)

        line.expect(r"\(", "'('")
        line.items(")", argument)
        missing = readers.keys() - attributes.keys()
        if missing:
            raise ValueError(f"attributes are missing: {', '.join(sorted(missing))}")
        return kind(**attributes), tuple(operands)

    def _nested(self, line: _Scanner) -> Graph:
        """The graph whose lines follow; ``line`` then goes on behind its closing brace."""
        line.expect(r"\{", "'{'")
        line.expect("$", "the end of the line")
        nested = _Parser(self._constants, self._source)
        while self._source.advance():
            if self._source.line.startswith("}"):
                line.restart(self._source.line[1:])
                return nested.graph()
            nested.statement(_Scanner(self._source.line))
        raise ValueError("a nested graph has no closing brace")

    def _type(self, line: _Scanner) -> TensorType:
        line.expect(":", "':'")
        return line.type()

    def _origin(self, line: _Scanner, default: str) -> str:
        return line.string() if line.take("@") else default
