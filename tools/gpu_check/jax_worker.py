"""JAX as a contender: models in, seconds on the device out. A model is compiled by jax.jit, which
is XLA, with the weights as arguments.

JAX gives no events of the device, so the host's clock is read around runs in a row, up to the end
of the last. Run as a module it answers requests (tools/gpu_check/contender.py).
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tools.gpu_check.contender import Absent, serve
from tools.gpu_check.torch_worker import small

WARM_UPS = 3


class JaxWorker:
    """``platform`` is gpu; tests have only cpu."""

    def __init__(self, platform: str = "gpu") -> None:
        import jax

        self.jax = jax
        self.device = jax.devices(platform)[0]
        self._run: Callable[[], Any] | None = None

    def about(self) -> dict[str, Any]:
        return {"name": f"JAX {self.jax.__version__}"}

    def prepare(self, case: dict[str, Any]) -> dict[str, Any]:
        from tools.gpu_check.jax_models import network

        if case["kind"] != "model":
            raise ValueError("only models are measured in JAX")
        self._run = None  # lets go of the last case
        random = np.random.default_rng(0)
        weights = [
            self._drawn(case, random, shape) * np.float32(small(shape)).astype(_dtype(case))
            for shape in case["shapes"]
        ]
        inputs = [self._input(case, random, shape) for shape in case["inputs"]]
        precision = "tensorfloat32" if case["precision"] == "tf32" else None
        self.jax.config.update("jax_default_matmul_precision", precision)
        compiled = self.jax.jit(network(case["architecture"]))

        def run() -> Any:
            return compiled(weights, *inputs)

        self._run = run
        for _ in range(WARM_UPS):
            run().block_until_ready()
        return {}

    def time(self, repeats: int, rounds: int) -> dict[str, Any]:
        assert self._run is not None
        self._run().block_until_ready()
        found = []
        for _ in range(rounds):
            begun = time.perf_counter()
            for _ in range(repeats):
                last = self._run()
            last.block_until_ready()
            found.append((time.perf_counter() - begun) / repeats)
        return {"seconds": found}

    def _drawn(
        self, case: Mapping[str, Any], random: np.random.Generator, shape: Sequence[int]
    ) -> Any:
        values = random.standard_normal(shape, dtype=np.float32).astype(_dtype(case))
        return self.jax.device_put(values, self.device)

    def _input(
        self, case: Mapping[str, Any], random: np.random.Generator, shape: Sequence[int]
    ) -> Any:
        """Tokens, or images with the channels last."""
        if len(shape) == 2:
            return self.jax.device_put(np.ones(shape, np.int32), self.device)
        batch, channels, *sides = shape
        return self._drawn(case, random, (batch, *sides, channels))


def _dtype(case: Mapping[str, Any]) -> str:
    return "float16" if case["precision"] == "f16" else "float32"


def main() -> None:
    """The command line."""
    # leaves memory to the others, and keeps what was compiled once
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    cache = Path(tempfile.gettempdir()) / "gpu_check_jax_cache"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    try:
        worker = JaxWorker()
    except ImportError as error:
        serve(Absent(f"not installed ({error})"))
    except RuntimeError as error:
        serve(Absent(str(error).strip().splitlines()[0]))
    else:
        serve(worker)


if __name__ == "__main__":
    main()
