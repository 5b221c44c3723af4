"""A function that JAX can trace, or a closed jaxpr, in; a Graph out.

JAX makes a jaxpr of the function for the shapes of the examples; each of its primitives has a rule
in `jax_ops`. Arrays that the function refers to are constants.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from aotc.errors import AotcError, UnsupportedError, UsageError
from aotc.frontend.folding import FoldingBuilder
from aotc.graph.ir import Graph, Node
from aotc.graph.types import DType, TensorType
from aotc.importers.jax_ops.control import NESTED, RANDOM
from aotc.importers.jax_ops.table import RULES
from aotc.importers.optional import optional_package
from aotc.importers.problems import Problems
from aotc.importers.use import Use
from aotc.importers.walk import FAILED, attempt, distinct, expected, has_failed, listed, whole
from aotc.tracing.core import broadcast, constant, node_of, reshape
from aotc.tracing.places import Place
from aotc.tracing.scope import Scope, entered
from aotc.tracing.tensor import Tensor, tnp

_HOME = str(Path(__file__).resolve().parent)

_REMEDY = "rewrite these parts of the function with other operations of JAX"


def from_jax(function: Any, *example_args: Any, name: str | None = None) -> Graph:
    """The graph of a function of JAX for arguments of the shapes and types of ``example_args``.

    ``function`` is anything that `jax.make_jaxpr` takes, `jax.jit` and `jax.grad` included, or a
    closed jaxpr (then there are no examples). Examples are arrays or `jax.ShapeDtypeStruct`, alone
    or in the containers that JAX knows. The inputs have the names of the parameters, with places
    and keys after them; outputs are ``out``, or ``out_0``, ``out_key``.

    UsageError when JAX is not installed, UnsupportedError with the list of everything that cannot
    be imported.
    """
    jax = optional_package("jax", "aotc.from_jax")
    if hasattr(function, "jaxpr") and hasattr(function, "consts"):
        closed, inputs, outputs = function, None, None
        label = name or "function"
    else:
        closed, inputs, outputs = _traced(jax, function, example_args)
        label = name or re.sub(r"\W", "_", getattr(function, "__name__", "function")).strip("_")
    return _Importer(jax, label).graph(closed, inputs, outputs)


def _traced(jax: ModuleType, function: Any, args: tuple[Any, ...]) -> tuple[Any, Any, Any]:
    """The closed jaxpr, and names for its inputs and outputs."""
    if not callable(function):
        raise UsageError(
            f"aotc.from_jax takes a function or a closed jaxpr, not {type(function).__name__}"
        )
    try:
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
    except AotcError:
        raise
    except Exception as error:  # JAX raises what it likes; all of it is about the user's function
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UsageError(
            f"JAX cannot trace the function: {type(error).__name__}: {(lines or [''])[0]}",
            remedy="jax.make_jaxpr(function)(*example_args) says more",
        ) from error
    roots = _parameter_names(function, len(args))
    inputs = [label for root, tree in zip(roots, args, strict=True)
              for label in _names(jax, tree, root)]  # fmt: skip
    return closed, inputs, _names(jax, shape, "out")


def _parameter_names(function: Any, count: int) -> list[str]:
    try:
        found = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        found = []
    free = [p.name for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [free[i] if i < len(free) else f"x_{i}" for i in range(count)]


def _names(jax: ModuleType, tree: Any, root: str) -> list[str]:
    """``root`` with the keys and places of each leaf."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    labels = []
    for path, _ in leaves:
        parts = [str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key))))
                 for key in path]  # fmt: skip
        labels.append(re.sub(r"\W", "_", "_".join([root, *parts])))
    return labels


class _Importer:
    """One jaxpr on its way into a graph."""

    def __init__(self, jax: ModuleType, label: str) -> None:
        self._jax = jax
        self._label = label
        self._problems = Problems(label)

    def graph(
        self, closed: Any, inputs: Sequence[str] | None, outputs: Sequence[str] | None
    ) -> Graph:
        """The whole program; UnsupportedError with all that stops it."""
        count = len(closed.jaxpr.invars)
        names = inputs or [f"x_{place}" if count > 1 else "x" for place in range(count)]
        names = distinct(names)
        scope = Scope(builder=FoldingBuilder())
        with entered(scope):
            given = [
                attempt(partial(self._parameter, scope, var.aval, label), f"input '{label}'", None,
                        self._problems)
                for var, label in zip(closed.jaxpr.invars, names, strict=True)
            ]  # fmt: skip
            results = self._run(closed, given)
            self._problems.expect_none(_REMEDY)
            many = len(results) > 1
            labels = outputs or [f"out_{i}" if many else "out" for i in range(len(results))]
            labels = distinct(labels)
            made: list[tuple[str, Node]] = [
                (label, node_of(x)) for label, x in zip(labels, results, strict=True)
            ]
        if not made:
            raise UsageError(f"'{self._label}' returns nothing", remedy="return what it computes")
        return scope.builder.finish(self._label, made)

    def _parameter(self, scope: Scope, aval: Any, label: str) -> Tensor:
        return Tensor(scope, scope.parameter(self._type(aval), label))

    def _is_key(self, aval: Any) -> bool:
        dtypes = self._jax.dtypes
        return bool(dtypes.issubdtype(getattr(aval, "dtype", None), dtypes.prng_key))

    def _type(self, aval: Any) -> TensorType:
        """A key is a pair of uint32 for each of its elements."""
        shape = tuple(aval.shape)
        if any(not isinstance(size, int) for size in shape):
            raise UnsupportedError(f"the size of {aval} is not fixed")
        if self._is_key(aval):
            return TensorType(DType.U32, (*shape, *aval.dtype._impl.key_shape))
        try:
            return TensorType(DType(str(aval.dtype)), shape)
        except ValueError:
            raise UnsupportedError(f"aotc has no element type {aval.dtype}") from None

    def _run(self, program: Any, operands: Sequence[Any]) -> list[Any]:
        """The outputs of a jaxpr, closed or not, for ``operands``, in the current scope."""
        jaxpr = getattr(program, "jaxpr", program)
        values: dict[Any, Any] = {}
        for var, value in zip(jaxpr.constvars, getattr(program, "consts", ()), strict=True):
            values[var] = attempt(partial(self._constant, value), "a constant", None,
                                  self._problems)  # fmt: skip
        values.update(zip(jaxpr.invars, operands, strict=True))
        for equation in jaxpr.eqns:
            given = [self._read(var, values) for var in equation.invars]
            results = self._call(equation, given)
            values.update(zip(equation.outvars, results, strict=True))
        return [self._read(var, values) for var in jaxpr.outvars]

    def _constant(self, value: Any) -> Tensor:
        if self._is_key(value):
            value = self._jax.random.key_data(value)
        return constant(np.asarray(value))

    def _read(self, var: Any, values: dict[Any, Any]) -> Any:
        if not hasattr(var, "val"):
            return values[var]
        if self._is_key(var.aval):
            return self._constant(var.val)
        return constant(np.asarray(var.val, dtype=self._type(var.aval).dtype.numpy))

    def _nested(self, program: Any) -> Callable[..., list[Tensor]]:
        return lambda *operands: whole(self._run(program, operands))

    def _call(self, equation: Any, operands: Sequence[Any]) -> list[Any]:
        results = len(equation.outvars)
        if has_failed(list(operands)):
            return [FAILED] * results
        name = str(equation.primitive)
        make: Callable[[], Any]
        if name in NESTED:
            make = partial(self._control, equation, operands)
        elif name in RANDOM:
            make = partial(self._random, equation, operands)
        elif name in RULES:
            make = partial(self._apply, equation, operands)
        else:
            self._problems.add(name, "it is not supported", _place(equation))
            return [FAILED] * results
        made = attempt(make, name, _place(equation), self._problems)
        return [FAILED] * results if made is FAILED else made

    def _types(self, equation: Any) -> list[TensorType | None]:
        return [self._type(var.aval) for var in equation.outvars]

    def _control(self, equation: Any, operands: Sequence[Tensor]) -> Any:
        rule = NESTED[str(equation.primitive)]
        params = {key: _plain(value) for key, value in equation.params.items()}
        made = rule(self._nested, params, operands)
        return listed(list(made), self._types(equation), single=False)

    def _apply(self, equation: Any, operands: Sequence[Tensor]) -> Any:
        keys = [self._is_key(var.aval) for var in equation.invars]
        types = self._types(equation)
        params = {key: _plain(value) for key, value in equation.params.items()}
        rule = partial(RULES[str(equation.primitive)], **params)
        if not any(keys):
            return listed(rule(Use(tuple(types)), *operands), types, single=False)
        # a primitive that moves keys moves their words alike
        plain = tuple(type_ and TensorType(type_.dtype, type_.shape[:-1]) for type_ in types)
        words = []
        (count,) = {x.shape[-1] for x, key in zip(operands, keys, strict=True) if key}
        for word in range(count):
            given = [x[..., word] if key else x for x, key in zip(operands, keys, strict=True)]
            words.append(listed(rule(Use(plain), *given), plain, single=False))
        return [tnp.stack(pair, axis=-1) for pair in zip(*words, strict=True)]

    # Random numbers: JAX's own formulas, on the words of the key.

    def _random(self, equation: Any, operands: Sequence[Tensor]) -> Any:
        name, params = str(equation.primitive), equation.params
        types = self._types(equation)
        if name in ("random_wrap", "random_unwrap", "random_clone"):
            return [operands[0]]
        dtype = equation.invars[0].aval.dtype
        implementation = params.get("impl") or dtype._impl
        formulas: dict[str, Callable[..., Any]] = {
            "random_seed": implementation.seed,
            "random_bits": lambda key: implementation.random_bits(
                key, params["bit_width"], params["shape"]
            ),
            "random_split": lambda key: implementation.split(key, params["shape"]),
            "random_fold_in": implementation.fold_in,
        }
        batch = equation.invars[0].aval.shape
        function = formulas[name]
        if name == "random_fold_in":
            batch = np.broadcast_shapes(batch, equation.invars[1].aval.shape)
            operands = [
                broadcast(operands[0], (*batch, *operands[0].shape[-1:])),
                broadcast(operands[1], batch),
            ]
        for _ in batch:
            function = self._jax.vmap(function)
        numpy = self._jax.ShapeDtypeStruct
        examples = [numpy(x.shape, x.dtype) for x in operands]
        (result,) = whole(self._run(self._jax.make_jaxpr(function)(*examples), operands))
        assert types[0] is not None
        return [expected(reshape(result, types[0].dims), types[0])]


def _plain(value: Any) -> Any:
    """A parameter with Python's integers in place of numpy's."""
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_plain, value))
    return tuple(map(_plain, value)) if type(value) in (tuple, list) else value


def _place(equation: Any) -> Place | None:
    """The user's line of an equation, if JAX tells."""
    try:
        from jax._src import source_info_util

        frame = source_info_util.user_frame(equation.source_info.traceback)
    except (ImportError, AttributeError, TypeError):
        return None
    if frame is None or frame.file_name.startswith(_HOME):
        return None
    return Place(frame.file_name, frame.start_line)
