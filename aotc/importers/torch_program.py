"""A `torch.export.ExportedProgram`, or a module with example inputs, in; a Graph out.

torch takes the program apart into its core operators; each of them has a rule in `torch_ops`.
Parameters and buffers are constants. A buffer that the program changes is state: an input of its
own, and an output with the new value.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial, reduce
from types import ModuleType
from typing import Any

from aotc.errors import UnsupportedError, UsageError
from aotc.frontend.folding import FoldingBuilder
from aotc.graph.ir import Graph, Node
from aotc.graph.types import DType
from aotc.importers.optional import optional_package
from aotc.importers.problems import Problems
from aotc.importers.torch_ops.control import NESTED
from aotc.importers.torch_ops.layers import KEPT
from aotc.importers.torch_ops.rule import Operands, Rule, Use
from aotc.importers.torch_ops.table import rule_for
from aotc.importers.torch_sizes import static_program
from aotc.importers.torch_types import array_of, element_type, place_of, tensor_type
from aotc.importers.walk import FAILED, attempt, distinct, has_failed, is_incomplete, listed, whole
from aotc.tracing.core import cast, constant, lift, node_of
from aotc.tracing.scope import Scope, current, entered
from aotc.tracing.tensor import Tensor
from aotc.tracing.trees import names

_REMEDY = "rewrite these parts of the model, or export it to ONNX and use aotc.load_onnx"

_LEFT_OUT = frozenset({"dtype", "layout", "device", "pin_memory", "memory_format", "non_blocking",
                       "implicit", "generator", "out_int32", "out_dtype"})  # fmt: skip
"""Arguments that say nothing more: the types of the results are known."""

_CHECKS = frozenset({"aten._assert_tensor_metadata", "aten._assert_scalar", "aten._assert_async",
                     "aten.sym_constrain_range", "aten.sym_constrain_range_for_size",
                     "aten._linalg_check_errors"})  # fmt: skip
"""What has no result: it holds by itself where every size is fixed, or there is nobody to tell."""


_NUMBERS = frozenset(
    {
        *(operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod, operator.neg),
        *(operator.truediv, operator.eq, operator.ne, operator.lt, operator.le, operator.gt),
        *(operator.ge, operator.pow),
    }
)
"""Python's own arithmetic: on sizes, and on numbers taken out of tensors."""


def from_torch(
    program: Any,
    example_args: Sequence[Any] = (),
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    dims: Mapping[str, int] | None = None,
    name: str | None = None,
) -> Graph:
    """The graph of a PyTorch program, with its parameters as constants.

    ``program`` is a `torch.export.ExportedProgram`, or an `nn.Module`, which is exported with
    ``example_args`` and ``example_kwargs`` first: their shapes and types are those of the graph.
    Dimensions that were exported as symbols get their sizes from ``dims``, by the name of the
    symbol. The inputs have the names of the arguments; outputs are ``out``, or ``out_0``,
    ``out_key`` of tuples and dictionaries. A buffer that the program changes, such as running
    statistics in training, is an input ``state_NAME`` and an output ``out_state_NAME``.

    UsageError when PyTorch is not installed or a size is missing, UnsupportedError with the list of
    everything that cannot be imported.
    """
    torch = optional_package("torch", "aotc.from_torch")
    exported = _exported(torch, program, tuple(example_args), dict(example_kwargs or {}))
    label = name or _label(program, exported)
    core = _core_program(torch, static_program(torch, exported, dims or {}))
    return _Importer(torch, core, label).graph()


def _label(program: Any, exported: Any) -> str:
    kind = type(program).__name__
    return "model" if program is exported else re.sub(r"\W", "_", kind).strip("_") or "model"


def _exported(
    torch: ModuleType, program: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    if isinstance(program, torch.export.ExportedProgram):
        return program
    if not isinstance(program, torch.nn.Module):
        raise UsageError(
            f"aotc.from_torch takes an ExportedProgram or a module, not {type(program).__name__}",
            remedy="put a function into the forward method of an nn.Module",
        )
    try:
        return torch.export.export(program, args, kwargs)
    except Exception as error:  # torch raises what it likes; all of it is about the user's model
        raise UnsupportedError(
            f"torch.export cannot export {type(program).__name__}:"
            f" {type(error).__name__}: {_first_line(error)}",
            remedy="export it with torch.export.export, whose messages say more, and give the"
            " result to aotc.from_torch",
        ) from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else ""


def _core_program(torch: ModuleType, exported: Any) -> Any:
    """The program in torch's core operators, and those that are better kept whole."""
    table = torch.export.default_decompositions()
    for name in KEPT:
        packet, _, overload = name.partition(".")
        kept = getattr(getattr(torch.ops.aten, packet, None), overload, None)
        if kept is not None:
            table.pop(kept, None)
    return exported.run_decompositions(table)


class _Importer:
    """One program on its way into a graph."""

    def __init__(self, torch: ModuleType, program: Any, label: str) -> None:
        self._torch = torch
        self._program = program
        self._label = label
        self._problems = Problems(label)

    def graph(self) -> Graph:
        """The whole program; UnsupportedError with all that stops it."""
        scope = Scope(builder=FoldingBuilder())
        with entered(scope):
            given = self._inputs(scope)
            results = self._run(self._program.graph_module, given)
            if is_incomplete(results):
                self._problems.add("output", "it is what an operator gives in training", None)
            self._problems.expect_none(_REMEDY)
            outputs = self._outputs(results)
        graph = scope.builder.finish(self._label, outputs)
        # state stands in front, whatever the order in which torch names it
        return replace(graph, inputs=tuple(sorted(graph.inputs, key=self._is_user_input)))

    # The ends of the program.

    def _inputs(self, scope: Scope) -> list[Any]:
        signature = self._program.graph_signature
        nodes = [n for n in self._program.graph_module.graph.nodes if n.op == "placeholder"]
        changed = set(signature.buffers_to_mutate.values())
        self._states: dict[str, str] = {}
        given: list[Any] = []
        make: Callable[[], Any]
        for node, spec in zip(nodes, signature.input_specs, strict=True):
            kind = spec.kind.name
            if kind == "TOKEN":  # the order of effects, of which compiled code has none
                given.append(None)
                continue
            label = node.name
            if kind != "USER_INPUT" and spec.target in changed:
                label = self._states[spec.target] = re.sub(r"\W", "_", f"state_{spec.target}")
            elif kind != "USER_INPUT":
                make = partial(self._stored, spec.target, kind)
                given.append(attempt(make, f"'{spec.target}'", None, self._problems))
                continue
            make = partial(self._parameter, scope, node, label)
            given.append(attempt(make, f"input '{node.name}'", None, self._problems))
        return given

    def _parameter(self, scope: Scope, node: Any, label: str) -> Any:
        value = node.meta.get("val")
        type_ = tensor_type(value)
        if type_ is None:
            return value  # a number or None that the program was exported with
        return Tensor(scope, scope.parameter(type_, label))

    def _stored(self, target: str, kind: str) -> Tensor:
        """A parameter, buffer or constant of the program."""
        tensors = (self._program.state_dict, self._program.constants)
        found = next((each[target] for each in tensors if target in each), None)
        if not isinstance(found, self._torch.Tensor):
            raise UnsupportedError(f"an input of kind {kind} is no tensor")
        return constant(array_of(self._torch, found))

    def _is_user_input(self, node: Node) -> bool:
        return node.origin not in self._states.values()

    def _outputs(self, results: Sequence[Any]) -> list[tuple[str, Node]]:
        own: list[Any] = []
        changed: list[tuple[str, Node]] = []
        specs = self._program.graph_signature.output_specs
        for spec, value in zip(specs, results, strict=True):
            if spec.kind.name == "USER_OUTPUT":
                own.append(value)
            elif spec.kind.name in ("BUFFER_MUTATION", "USER_INPUT_MUTATION"):
                label = self._states.get(spec.target, spec.target)
                changed.append((f"out_{label}", node_of(lift(value))))
            elif spec.kind.name != "TOKEN":
                raise UnsupportedError(
                    f"its output '{spec.arg.name}' is of kind {spec.kind.name}",
                    where=self._label,
                    remedy="export the module for inference",
                )
        pairs = [
            (label, node_of(lift(value)))
            for label, value in zip(self._output_names(len(own)), own, strict=True)
            if value is not None
        ]
        made = [*changed, *pairs]
        labels = distinct([label for label, _ in made])
        return [(label, node) for label, (_, node) in zip(labels, made, strict=True)]

    def _output_names(self, count: int) -> list[str]:
        """Places and keys of the structure that the program returns, if it is of Python's own."""
        spec = self._program.call_spec.out_spec
        marks = list(range(count))
        try:
            tree = self._torch.utils._pytree.tree_unflatten(marks, spec)
            found = names(tree, "out")
        except (TypeError, ValueError):
            found = []
        if len(found) == count:
            return [re.sub(r"\W", "_", label) for label in found]
        return ["out"] if count == 1 else [f"out_{place}" for place in marks]

    # Its operators.

    def _run(self, module: Any, operands: Sequence[Any]) -> list[Any]:
        """The outputs of a graph module for ``operands``, in the current scope."""
        values: dict[Any, Any] = {}
        given = iter(operands)
        for node in module.graph.nodes:
            if node.op == "placeholder":
                values[node] = next(given)
            elif node.op == "get_attr":
                values[node] = self._attribute(module, node.target)
            elif node.op == "output":
                found = _mapped(node.args[0], values)
                return list(found) if isinstance(found, list | tuple) else [found]
            else:
                values[node] = self._call(node, values)
        return []

    def _attribute(self, module: Any, target: str) -> Any:
        value = reduce(getattr, target.split("."), module)
        if isinstance(value, self._torch.Tensor):
            return constant(array_of(self._torch, value))
        return value

    def _nested(self, module: Any) -> Callable[..., list[Tensor]]:
        """A nested graph module as a function of Tensors."""
        return lambda *operands: whole(self._run(module, operands))

    def _call(self, node: Any, values: Mapping[Any, Any]) -> Any:
        target = node.target
        operands, named = _mapped(node.args, values), _mapped(node.kwargs, values)
        if has_failed([*operands, *named.values()]) and str(target) not in NESTED:
            return FAILED
        place = place_of(self._torch, node.meta.get("stack_trace"))
        name = str(target)
        if target is operator.getitem:
            return operands[0][operands[1]]
        if is_incomplete([*operands, *named.values()]):
            self._problems.add(name, "it needs what another operator gives in training", place)
            return FAILED
        if name.rpartition(".")[0] in _CHECKS:
            return None
        if isinstance(target, self._torch._ops.HigherOrderOperator):
            return attempt(lambda: self._control(node, operands), name, place, self._problems)
        if not isinstance(target, self._torch._ops.OpOverload):
            if target in _NUMBERS:
                return attempt(lambda: target(*operands), name, place, self._problems)
            self._problems.add(name, "it is not an operator of torch", place)
            return FAILED
        rule = rule_for(name)
        if rule is None:
            self._problems.add(name, _missing(target, self._torch), place)
            return FAILED
        return attempt(lambda: self._apply(rule, node, operands, named), name, place,
                       self._problems)  # fmt: skip

    def _control(self, node: Any, operands: Sequence[Any]) -> Any:
        if str(node.target) == "with_effects":  # a token, an operator, its operands
            if str(node.args[1]).rpartition(".")[0] not in _CHECKS:
                raise UnsupportedError(f"{node.args[1]} acts on something outside of the program")
            return [None, None]
        rule = NESTED.get(str(node.target))
        if rule is None:
            raise UnsupportedError("it is not supported")
        module = self._torch.fx.GraphModule
        inside = [self._nested(x) if isinstance(x, module) else x for x in operands]
        return listed(rule(*inside), _types(node), single=False)

    def _apply(
        self, rule: Rule, node: Any, operands: Sequence[Any], named: Mapping[str, Any]
    ) -> Any:
        types = _types(node)
        arguments = _in_order(node.target, operands, named)
        dtype = self._dtype(rule.operands, types[0].dtype if types and types[0] else None, node)
        arguments = [_converted(x, rule.operands, dtype) for x in arguments]
        single = not isinstance(node.meta.get("val"), list | tuple)
        return listed(rule.lower(Use(tuple(types)), *arguments), types, single)

    def _dtype(self, kind: Operands, result: DType | None, node: Any) -> DType | None:
        """The type that all operands are brought to, if there is one."""
        if kind is Operands.RESULT:
            return _computed(result) if result else None
        if kind is not Operands.COMMON:
            return None
        given = [x.meta["val"] if hasattr(x, "meta") else x for x in node.args]
        if len(given) == 1:
            return _computed(element_type(given[0].dtype))
        return _computed(element_type(self._torch.result_type(*given[:2])))


def _types(node: Any) -> list[Any]:
    value = node.meta.get("val")
    return [tensor_type(x) for x in (value if isinstance(value, list | tuple) else [value])]


def _computed(dtype: DType) -> DType:
    return dtype.arithmetic if dtype.is_float else dtype


def _converted(value: Any, kind: Operands, dtype: DType | None) -> Any:
    """``value``, or the tensors in it, in the type that a rule of ``kind`` takes."""
    if isinstance(value, list | tuple):
        return [_converted(item, kind, dtype) for item in value]
    if not isinstance(value, Tensor) or kind is Operands.GIVEN:
        return value
    return cast(value, _computed(value.type.dtype) if dtype is None else dtype)


def _mapped(value: Any, values: Mapping[Any, Any]) -> Any:
    """Arguments of a node with values in place of nodes."""
    if isinstance(value, list | tuple):
        return [_mapped(item, values) for item in value]
    if isinstance(value, dict):
        return {key: _mapped(item, values) for key, item in value.items()}
    if hasattr(value, "meta") and hasattr(value, "all_input_nodes"):
        found = values[value]
        if isinstance(found, Tensor):
            return Tensor(current(), current().fetch(found.node, found.scope))
        return found
    return value


def _in_order(target: Any, operands: Sequence[Any], named: Mapping[str, Any]) -> list[Any]:
    """All arguments in the order of the operator's schema, without those of `_LEFT_OUT`."""
    found = []
    for place, argument in enumerate(target._schema.arguments):
        if argument.name in _LEFT_OUT:
            continue
        if place < len(operands):
            found.append(operands[place])
        else:
            found.append(named.get(argument.name, argument.default_value))
    return found


def _missing(target: Any, torch: ModuleType) -> str:
    """Why an operator has no rule."""
    if torch.Tag.nondeterministic_seeded in target.tags:
        return "it draws random numbers, which the compiled code has none of"
    if torch.Tag.dynamic_output_shape in target.tags:
        return "the size of what it gives is known only at run time"
    return "it is not supported"
