"""aotc as a contender: cases in, errors against float64 and seconds on the device out.

Run as a module it answers requests (tools/gpu_check/contender.py)."""

from __future__ import annotations

from typing import Any

import numpy as np

import aotc
from aotc.cuda.compiled import CudaModel
from aotc.errors import AotcError
from tools.gpu_check.contender import serve
from tools.gpu_check.graphs import Prepared, largest_error, prepare


class AotcWorker:
    """Compiles for the device at hand and checks the numbers of a first run."""

    def __init__(self) -> None:
        self._wanted: list[np.ndarray] = []
        self._compiled: CudaModel | None = None
        self._prepared: Prepared | None = None

    def about(self) -> dict[str, Any]:
        return {"name": f"aotc {aotc.__version__}"}

    def prepare(self, case: dict[str, Any]) -> dict[str, Any]:
        """Compiles, which takes nothing of the device; ``launches``."""
        self.drop()
        self._prepared = prepare(case)
        # what has no products is compiled as by default, where sums may be in any order
        precision = "tf32" if case["kind"] == "rows" else case["precision"]
        compiled = aotc.compile(
            self._prepared.graph,
            target="cuda",
            cpu="native",
            precision=precision,
            name="checked",
        )
        if not isinstance(compiled, CudaModel):
            raise AotcError("no model for GPUs came out")
        self._compiled = compiled
        self._wanted = self._prepared.wanted()
        return {"launches": len(compiled.device_model.launches)}

    def check(self) -> dict[str, Any]:
        """Runs once; the ``largest_error``."""
        assert self._compiled is not None and self._prepared is not None
        found = self._compiled.bind(**self._prepared.inputs)()
        error = largest_error(self._prepared.parts([*found]), self._wanted)
        return {"largest_error": error}

    def time(self, repeats: int, rounds: int) -> dict[str, Any]:
        assert self._compiled is not None and self._prepared is not None
        inputs = self._prepared.inputs
        return {"seconds": self._compiled.time_on_device(inputs, rounds, repeats)}

    def copy(self, size_bytes: int, repeats: int, rounds: int) -> dict[str, Any]:
        """``bytes_a_second`` that a copy of ``size_bytes`` reads and writes."""
        assert self._compiled is not None
        return {"bytes_a_second": self._compiled.copy_bandwidth(size_bytes, rounds, repeats)}

    def drop(self) -> dict[str, Any]:
        """Frees what is on the device."""
        if self._compiled is not None:
            self._compiled.release()
        self._compiled = self._prepared = None
        return {}


if __name__ == "__main__":
    serve(AotcWorker())
