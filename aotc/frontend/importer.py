"""The walk over an ONNX graph: its nodes go in one by one, graph nodes come out."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import onnx

from aotc.errors import AotcError, ModelError, UnsupportedError
from aotc.frontend.attributes import Attributes
from aotc.frontend.bodies import Body
from aotc.frontend.contrib_ops.table import DEFINITIONS, Definition
from aotc.frontend.expected import expected_shapes
from aotc.frontend.folding import FoldingBuilder
from aotc.frontend.functions import schema_function
from aotc.frontend.onnx_ops.call import Call
from aotc.frontend.onnx_ops.table import DOMAINS
from aotc.frontend.order import MAX_DEPTH, Order, import_order
from aotc.frontend.precision import run_rule
from aotc.frontend.problems import MALFORMED, Reporter
from aotc.frontend.specialize import Declared, declared_shapes
from aotc.frontend.tensors import sparse_values, tensor_values
from aotc.frontend.text import STRING, string_values, text_constant
from aotc.frontend.values import Value
from aotc.graph.ir import Node

OLDEST_OPSET = 1

MAX_NODES = 1_000_000
"""Functions that call functions can grow without end; no model of this kind has as many nodes."""

MAX_COPIES = 20_000
"""Loops whose iterations are imported one by one, and loops in them, make so many nodes at most."""


class Missing(enum.Enum):
    """Why a name has no value: an optional operand left out, or a node whose import failed."""

    ABSENT = enum.auto()
    FAILED = enum.auto()


class _Incomplete(Exception):
    """A node cannot be imported because of a failure that is already reported."""


@dataclass
class Scope:
    """The names visible in one graph, branch or function body, and how to read its nodes.

    ``builder`` takes the nodes. Where that is another one than the parent's, ``body`` fetches
    what is found there.
    """

    builder: FoldingBuilder
    opsets: Mapping[str, int]
    values: dict[str, Value | Missing] = field(default_factory=dict)
    stored: dict[str, onnx.TensorProto | onnx.SparseTensorProto] = field(default_factory=dict)
    parent: Scope | None = None
    body: Body | None = None
    references: Mapping[str, onnx.AttributeProto] = field(default_factory=dict)
    prefix: str = ""
    depth: int = 0
    declared: Mapping[str, Declared] = field(default_factory=dict)


def normal_domain(domain: str) -> str:
    """ONNX's own domain has two spellings."""
    return "" if domain == "ai.onnx" else domain


class Importer:
    """Imports the nodes of one model."""

    def __init__(
        self,
        functions: Iterable[onnx.FunctionProto],
        folder: Path | None,
        reporter: Reporter,
        bounds: Mapping[str, int],
    ) -> None:
        self._functions = {
            (normal_domain(fn.domain), fn.name, fn.overload): fn for fn in functions
        }
        self._folder = folder
        self._reporter = reporter
        self._bounds = bounds
        self._imported = 0
        self._again = 0
        # with its message: the key is its identity for as long as it is kept
        self._constants: dict[int, tuple[object, Node]] = {}

    def store(self, scope: Scope, graph: onnx.GraphProto) -> None:
        """Make the initialisers of ``graph`` visible in ``scope``; they are read when first
        used."""
        named = [(tensor.name, tensor) for tensor in graph.initializer]
        named += [(sparse.values.name, sparse) for sparse in graph.sparse_initializer]
        for name, tensor in named:
            if name in scope.stored:
                raise ModelError(
                    f"initialiser '{name}' is defined twice", remedy="export the model again"
                )
            scope.stored[name] = tensor

    def lookup(self, scope: Scope, name: str) -> Value | Missing:
        """The value called ``name``; ModelError when nothing defines it."""
        if name in scope.values:
            return scope.values[name]
        if name in scope.stored:
            value = scope.values[name] = self._read(scope, name)
            return value
        if scope.parent is None:
            raise ModelError(
                f"'{name}' is read, but no input, initialiser or node defines it",
                remedy="the model is incomplete: export it again",
            )
        value = self.lookup(scope.parent, name)
        if scope.body is None or isinstance(value, Missing):
            return value
        return scope.body.fetch(value)

    def _read(self, scope: Scope, name: str) -> Value | Missing:
        proto = scope.stored[name]
        if isinstance(proto, onnx.TensorProto) and proto.data_type == STRING:
            try:
                return text_constant(scope.builder, string_values(proto))
            except AotcError as error:
                self._reporter.report(error, name)
                return Missing.FAILED
        read = tensor_values if isinstance(proto, onnx.TensorProto) else sparse_values
        try:
            if id(proto) not in self._constants:
                node = scope.builder.constant(read(proto, self._folder))
                self._constants[id(proto)] = (proto, node)
            # a body may be read many times, its weights only once
            return scope.builder.reuse_constant(self._constants[id(proto)][1])
        except AotcError as error:
            self._reporter.report(error, name)
            return Missing.FAILED

    def run(self, nodes: Sequence[onnx.NodeProto], wanted: Sequence[str], scope: Scope) -> Order:
        """Import what ``wanted`` needs of ``nodes``; the results stand in ``scope.values``."""
        order = import_order(nodes, wanted)
        for node in order.nodes:
            for name in node.output:
                if name in scope.values or name in scope.stored:
                    error = ModelError(
                        f"'{name}' is the name of an input or initialiser as well as an output",
                        remedy="every tensor needs its own name: export the model again",
                    )
                    self._report(error, node, scope)
        for node in order.cyclic:
            error = ModelError(
                "needs its own result: the graph has a cycle",
                remedy="the file is damaged: export the model again",
            )
            self._report(error, node, scope)
            scope.values.update(dict.fromkeys(filter(None, node.output), Missing.FAILED))
        cyclic = {id(node) for node in order.cyclic}
        sound = [node for node in order.nodes if id(node) not in cyclic]
        scope.declared = expected_shapes(
            sound, scope.declared, lambda name: self._shape(scope, name)
        )
        for node in sound:
            self._import(node, scope, order.used)
        return order

    def _shape(self, scope: Scope, name: str) -> tuple[int, ...] | None:
        """The shape of what is called ``name`` outside the nodes of ``scope``, if that is known."""
        at: Scope | None = scope
        while at is not None:
            value = at.values.get(name)
            if isinstance(value, Node):
                return value.shape
            proto = at.stored.get(name)
            if isinstance(proto, onnx.TensorProto):
                return tuple(proto.dims)
            at = at.parent
        return None

    def _report(self, error: AotcError, node: onnx.NodeProto, scope: Scope) -> None:
        opset = scope.opsets.get(normal_domain(node.domain), 0)
        domain = normal_domain(node.domain)
        operator = f"{domain}.{node.op_type}" if domain else node.op_type
        self._reporter.report(error, origin_of(node, scope), operator, opset)

    def _import(self, node: onnx.NodeProto, scope: Scope, used: frozenset[str]) -> None:
        results: Sequence[Value | None] = ()
        scope.values.update(dict.fromkeys(filter(None, node.output), Missing.FAILED))
        try:
            results = self._results(node, scope, used)
            padded = [*results, *[None] * len(node.output)]
            for name, result in zip(node.output, padded, strict=False):
                if result is None and name in used:
                    raise UnsupportedError(
                        f"its output '{name}' is not supported",
                        remedy="rewrite this part of the model",
                    )
        except _Incomplete:
            return
        except AotcError as error:
            self._report(error, node, scope)
        except MALFORMED as error:
            # the type rules of the primitives raise ValueError with a sentence
            plain = isinstance(error, ValueError)
            text = str(error) if plain else f"cannot be read: {type(error).__name__}: {error}"
            remedy = "the node is malformed: export the model again"
            self._report(ModelError(text, remedy=remedy), node, scope)
        for name, result in zip(node.output, results, strict=False):
            if name and result is not None:
                scope.values[name] = result

    def _results(
        self, node: onnx.NodeProto, scope: Scope, used: frozenset[str]
    ) -> Sequence[Value | None]:
        self._count(scope)
        domain = normal_domain(node.domain)
        function = self._functions.get((domain, node.op_type, node.overload))
        if function is not None:
            return self._call_function(node, function, scope, self._operands(node, scope))
        schema = checked_schema(node, domain, scope.opsets)
        rule = DOMAINS.get(domain, {}).get(node.op_type)
        if rule is None and not (schema.has_function or schema.has_context_dependent_function):
            raise UnsupportedError(
                f"operator {node.op_type} is not supported",
                remedy="rewrite this part of the model with other operators",
            )
        operands = self._operands(node, scope)
        if rule is None:
            plain = onnx.NodeProto()
            plain.CopyFrom(node)
            plain.ClearField("attribute")
            for name, entry in resolved_attributes(node, scope.references).items():
                plain.attribute.add().CopyFrom(entry)
                plain.attribute[-1].name = name
            body = schema_function(plain, schema, operands, scope.opsets[domain])
            return self._call_function(node, body, scope, operands)
        origin = origin_of(node, scope)
        call = Call(
            operator=node.op_type,
            version=schema.since_version,
            origin=origin,
            inputs=tuple(operands),
            outputs=tuple(node.output),
            output_used=tuple(bool(name) and name in used for name in node.output),
            attrs=Attributes(resolved_attributes(node, scope.references), self._folder),
            builder=scope.builder,
            subgraph=partial(self._subgraph, scope, origin),
            trial=self._trial,
            declared=tuple(scope.declared.get(name) for name in node.output),
            bounds=self._bounds,
        )
        if isinstance(schema, Definition):
            result = rule(call)
            return result if isinstance(result, Sequence) else [result]
        return run_rule(rule, call, schema)

    def _count(self, scope: Scope) -> None:
        """UnsupportedError when functions or loops make too much of the model."""
        self._imported += 1
        if self._imported > MAX_NODES:
            raise UnsupportedError(
                f"the model has more than {MAX_NODES} nodes once its functions are expanded",
                remedy="split the model",
            )
        self._again += scope.builder.copies > 1
        if self._again > MAX_COPIES:
            raise UnsupportedError(
                f"its loops have more than {MAX_COPIES} nodes once they are unrolled",
                remedy="give each carried value one shape for all iterations",
            )

    def _operands(self, node: onnx.NodeProto, scope: Scope) -> list[Value | None]:
        operands: list[Value | None] = []
        for name in node.input:
            value = self.lookup(scope, name) if name else Missing.ABSENT
            if value is Missing.FAILED:
                raise _Incomplete
            operands.append(None if isinstance(value, Missing) else value)
        return operands

    def _subgraph(
        self,
        outer: Scope,
        origin: str,
        graph: onnx.GraphProto,
        operands: Sequence[Value] = (),
        outputs: Sequence[str] | None = None,
        body: Body | None = None,
    ) -> list[Value]:
        """The outputs of ``graph`` (or those named) with ``operands`` as its inputs; it sees the
        names of ``outer``. Its nodes go into ``body`` if there is one."""
        _expect_depth(outer)
        scope = Scope(
            builder=outer.builder if body is None else body.builder,
            opsets=outer.opsets,
            parent=outer,
            body=body,
            references=outer.references,
            prefix=f"{origin}/",
            depth=outer.depth + 1,
            declared=declared_shapes(graph),
        )
        self.store(scope, graph)
        if len(operands) != len(graph.input):
            raise ModelError(
                f"its graph '{graph.name}' takes {len(graph.input)} inputs, gets {len(operands)}",
                remedy="the node is malformed: export the model again",
            )
        for info, operand in zip(graph.input, operands, strict=True):
            if not info.name or info.name in scope.values:
                raise ModelError(
                    f"its graph '{graph.name}' has two inputs called '{info.name}', or one without "
                    "a name",
                    remedy="the node is malformed: export the model again",
                )
            scope.values[info.name] = operand
        names = [info.name for info in graph.output] if outputs is None else list(outputs)
        self.run(graph.node, names, scope)
        return self._collect(names, scope)

    @contextmanager
    def _trial(self) -> Iterator[None]:
        """What fails inside raises an AotcError, also where problems are being collected."""
        usual = self._reporter
        self._reporter = usual.strict()
        try:
            yield
        finally:
            self._reporter = usual

    def _collect(self, names: Iterable[str], scope: Scope) -> list[Value]:
        found = [self.lookup(scope, name) for name in names]
        values = [value for value in found if not isinstance(value, Missing)]
        if len(values) < len(found):
            raise _Incomplete
        return values

    def _call_function(
        self,
        node: onnx.NodeProto,
        function: onnx.FunctionProto,
        outer: Scope,
        operands: Sequence[Value | None],
    ) -> list[Value | None]:
        """The body of ``function`` with the operands in place of its inputs."""
        _expect_depth(outer)
        if len(operands) > len(function.input):
            raise ModelError(
                f"function {function.name} takes {len(function.input)} inputs, gets {len(operands)}"
            )
        references = {entry.name: entry for entry in function.attribute_proto}
        references.update(resolved_attributes(node, outer.references))
        scope = Scope(
            builder=outer.builder,
            opsets={**outer.opsets, **opset_versions(function.opset_import)},
            references=references,
            prefix=f"{origin_of(node, outer)}/",
            depth=outer.depth + 1,
            declared={
                inner: outer.declared[outside]
                for inner, outside in zip(function.output, node.output, strict=False)
                if outside in outer.declared
            },
        )
        given = [*operands, *[None] * (len(function.input) - len(operands))]
        for name, operand in zip(function.input, given, strict=True):
            scope.values[name] = Missing.ABSENT if operand is None else operand
        # an output that the node does not name is not computed at all
        pairs = list(zip(function.output, node.output, strict=False))
        names = [inner for inner, outside in pairs if outside]
        self.run(function.node, names, scope)
        results = iter(self._collect(names, scope))
        return [next(results) if outside else None for _, outside in pairs]


def _expect_depth(outer: Scope) -> None:
    if outer.depth >= MAX_DEPTH:
        raise ModelError(
            f"functions or branches are nested more than {MAX_DEPTH} deep",
            remedy="a function may not call itself; flatten the model",
        )


def origin_of(node: onnx.NodeProto, scope: Scope) -> str:
    """What the user knows the node by: its name, or its operator and first output."""
    if node.name:
        return f"{scope.prefix}{node.name}"
    first = next((name for name in node.output if name), "")
    return f"{scope.prefix}{node.op_type}_{first}"


def opset_versions(imports: Iterable[onnx.OperatorSetIdProto]) -> dict[str, int]:
    """The version of each domain."""
    return {normal_domain(entry.domain): int(entry.version) for entry in imports}


def resolved_attributes(
    node: onnx.NodeProto, references: Mapping[str, onnx.AttributeProto]
) -> dict[str, onnx.AttributeProto]:
    """The node's attributes; those that refer to an attribute of the surrounding function get its
    value."""
    result = {}
    for entry in node.attribute:
        if entry.ref_attr_name:
            value = references.get(entry.ref_attr_name)
            if value is not None:
                result[entry.name] = value
        else:
            result[entry.name] = entry
    return result


def checked_schema(
    node: onnx.NodeProto, domain: str, opsets: Mapping[str, int]
) -> onnx.defs.OpSchema:
    """ONNX's definition of the operator at the model's opset, once the node has been held against
    it."""
    if domain not in opsets:
        raise ModelError(
            f"the model does not import the operator domain '{domain or 'ai.onnx'}'",
            remedy="export the model again",
        )
    opset = opsets[domain]
    newest = onnx.defs.onnx_opset_version()
    if domain == "" and not OLDEST_OPSET <= opset <= newest:
        raise UnsupportedError(
            f"opset {opset} is not supported, {OLDEST_OPSET} to {newest} are",
            remedy="convert the model with onnx.version_converter",
        )
    schema: onnx.defs.OpSchema | Definition
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, domain)
    except onnx.defs.SchemaError:
        schema = DEFINITIONS.get((domain, node.op_type))
    if schema is None:
        known = onnx.defs.has(node.op_type, domain)
        reason = f"does not exist in opset {opset}" if known else "is not an ONNX operator"
        reason = "is not supported" if domain == "com.microsoft" else reason
        shown = f"{domain}.{node.op_type}" if domain else node.op_type
        raise UnsupportedError(
            f"operator {shown} {reason}", remedy="check the model's opset; export it again"
        ) from None
    if not schema.min_input <= len(node.input) <= schema.max_input:
        raise ModelError(
            f"has {len(node.input)} inputs; {node.op_type} takes "
            f"{schema.min_input} to {schema.max_input}",
            remedy="export the model again",
        )
    if not schema.min_output <= len(node.output) <= schema.max_output:
        raise ModelError(
            f"has {len(node.output)} outputs; {node.op_type} gives "
            f"{schema.min_output} to {schema.max_output}",
            remedy="export the model again",
        )
    strange = [entry.name for entry in node.attribute if entry.name not in schema.attributes]
    if strange:
        raise ModelError(
            f"has the attribute '{strange[0]}', unknown to {node.op_type} of opset {opset}",
            remedy="check the model's opset; export it again",
        )
    return schema
