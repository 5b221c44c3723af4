"""A compiled model and its file in; inputs that a reference engine accepts, and its outputs, out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aotc.codegen.signature import Param, Signature
from aotc.errors import UsageError
from aotc.frontend.ports import Ports, RaggedPort, TensorPort
from aotc.reference.engines import Arrays, Engine, default_engine, load_engine
from aotc.reference.inputs import ID_LIMITS, make_inputs


@dataclass(frozen=True)
class Reference:
    """What a reference engine computes from ``inputs``."""

    engine: Engine
    inputs: Arrays
    outputs: Arrays


def run_reference(
    model: Path,
    signature: Signature,
    *,
    seed: int = 0,
    given: Mapping[str, np.ndarray] | None = None,
    engine: str | None = None,
    threads: int = 1,
    ports: Ports | None = None,
) -> Reference:
    """Draws inputs (see make_inputs) and runs the reference on them: ``engine``, or what is the
    reference for this kind of file. With ``ports``, inputs and
    outputs are those of the model, of their actual size: the largest one for a range.

    Integer inputs may index a small table in the model, so the range is narrowed until the
    reference runs. UsageError when it never does.
    """
    engine = engine or default_engine(model)
    params, outputs = _terms(signature, ports)
    shapes = {param.name: param.type.dims for param in params}
    loaded = load_engine(engine, model, outputs, shapes, threads)
    inputs, results = _first_accepted(loaded, params, seed, given, model, engine)
    return Reference(loaded, inputs, results)


def _terms(signature: Signature, ports: Ports | None) -> tuple[Sequence[Param], list[str]]:
    """The inputs and the names of the outputs, of the C function or of the model."""
    if ports is None:
        return signature.inputs, [param.name for param in signature.outputs]
    params = []
    for port in ports.inputs:
        if not isinstance(port, TensorPort | RaggedPort):
            raise UsageError(
                f"input '{port.name}' is not a tensor of numbers, which alone are drawn at random",
                remedy="call the model from Python: aotc.compile(...).run_values(...)",
            )
        params.append(Param(port.name, port.name, port.type))
    return params, [port.name for port in ports.outputs]


def _first_accepted(
    loaded: Engine,
    params: Sequence[Param],
    seed: int,
    given: Mapping[str, np.ndarray] | None,
    model: Path,
    engine: str,
) -> tuple[Arrays, Arrays]:
    reason = ""
    for limit in ID_LIMITS:
        inputs = make_inputs(params, seed, given, limit)
        try:
            return inputs, loaded.run(inputs)
        except Exception as error:  # every engine has exceptions of its own
            reason = reason or next(iter(str(error).strip().splitlines()), type(error).__name__)
    raise UsageError(
        f"{engine} cannot run the model on these inputs: {reason}",
        where=str(model),
        remedy="give inputs that fit the model with --input NAME=FILE",
    )
