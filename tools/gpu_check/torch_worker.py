"""PyTorch as a contender: cases in, seconds on the device out. Single operations are captured as a
CUDA graph; models are compiled by torch.compile (max-autotune, which uses CUDA graphs).

    python -m tools.gpu_check.torch_worker            answers requests
    python -m tools.gpu_check.torch_worker --start    the first result of a compiled resnet50
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.gpu_check.contender import Absent, serve

WARM_UPS = 5


class TorchWorker:
    """``device`` is cuda; tests have only cpu, where nothing is compiled or captured."""

    def __init__(self, device: str = "cuda") -> None:
        import torch

        self.torch, self.device = torch, device
        self._run: Callable[[], Any] | None = None
        if device == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("this PyTorch has no CUDA")
        torch.manual_seed(0)
        torch.backends.cudnn.benchmark = True

    def about(self) -> dict[str, Any]:
        """``libraries_bytes`` is the size of libtorch and the CUDA libraries beside it."""
        return {
            "name": f"PyTorch {self.torch.__version__}",
            "libraries_bytes": libraries_bytes(Path(self.torch.__file__).parent),
        }

    def prepare(self, case: dict[str, Any]) -> dict[str, Any]:
        torch = self.torch
        self._run = None  # lets go of the last case
        for backend in (torch.backends.cuda.matmul, torch.backends.cudnn):
            backend.allow_tf32 = case["precision"] == "tf32"
        with torch.inference_mode():
            if case["kind"] == "model":
                self._run = self._model(case)
            else:
                self._run = self._captured(*self.operation(case))
            for _ in range(WARM_UPS):
                self._run()
            self._wait()
        return {}

    def time(self, repeats: int, rounds: int) -> dict[str, Any]:
        assert self._run is not None
        with self.torch.inference_mode():
            self._run()
            return {"seconds": [self._seconds(repeats) for _ in range(rounds)]}

    def operation(self, case: Mapping[str, Any]) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """A single operation and its operands, drawn at random."""
        functional = self.torch.nn.functional
        if case["kind"] == "product":
            shape = (case["size"], case["size"])
            return self.torch.matmul, (self._drawn(case, shape), self._drawn(case, shape))
        if case["kind"] == "attention":
            operands = tuple(self._drawn(case, [1, *case["shape"]]) for _ in range(3))
            return functional.scaled_dot_product_attention, operands
        assert case["kind"] == "convolution"
        last = {"memory_format": self.torch.channels_last}
        channels, side = case["channels"], case["side"]
        images = self._drawn(case, (case["batch"], channels, side, side)).to(**last)
        weights = self._drawn(case, (case["filters"], channels, 3, 3)).to(**last)
        scale = (9 * channels) ** -0.5

        def convolve(x: Any, w: Any) -> Any:
            return functional.conv2d(x, w, None, case["stride"], 1)

        return convolve, (images, weights * scale)

    def _drawn(self, case: Mapping[str, Any], shape: Sequence[int]) -> Any:
        dtypes = {"f16": self.torch.float16, "bf16": self.torch.bfloat16}
        dtype = dtypes.get(case["precision"], self.torch.float32)
        return self.torch.randn(*shape, device=self.device).to(dtype)

    def _captured(
        self, function: Callable[..., Any], operands: tuple[Any, ...]
    ) -> Callable[[], Any]:
        def run() -> Any:
            return function(*operands)

        if self.device != "cuda":
            return run
        torch = self.torch
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):  # libraries choose their kernels before the capture
            for _ in range(WARM_UPS):
                run()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = run()

        def replay(_alive: object = result) -> None:
            graph.replay()

        return replay

    def _model(self, case: Mapping[str, Any]) -> Callable[[], Any]:
        from tools.gpu_check.torch_models import Network

        torch = self.torch
        weights = [self._drawn(case, shape) * small(shape) for shape in case["shapes"]]
        inputs = [self._input(case, shape) for shape in case["inputs"]]
        network = Network(case["architecture"], weights).eval()
        if any(len(shape) == 4 for shape in case["inputs"]):
            network = network.to(memory_format=torch.channels_last)
            inputs = [x.to(memory_format=torch.channels_last) for x in inputs]
        if self.device == "cuda":
            torch.compiler.reset()
            network = torch.compile(network, mode=case.get("mode", "max-autotune"))

        def run() -> Any:
            return network(*inputs)

        return run

    def _input(self, case: Mapping[str, Any], shape: Sequence[int]) -> Any:
        if len(shape) == 2:
            return self.torch.ones(shape, dtype=self.torch.int64, device=self.device)
        return self._drawn(case, shape)

    def _wait(self) -> None:
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def _seconds(self, repeats: int) -> float:
        """The mean of ``repeats`` runs in a row, between events where the device has them."""
        assert self._run is not None
        if self.device != "cuda":
            begun = time.perf_counter()
            for _ in range(repeats):
                self._run()
            return (time.perf_counter() - begun) / repeats
        begin, end = (self.torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(repeats):
            self._run()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) * 1e-3 / repeats


def small(shape: Sequence[int]) -> float:
    """What random weights are multiplied by, so that values stay near one through the layers."""
    return 0.1 if len(shape) == 1 else (2 / math.prod(shape[1:])) ** 0.5


def libraries_bytes(package: Path) -> int:
    """The size of the shared libraries of the installed package torch and of the CUDA libraries
    that it brings along as packages of their own."""
    folders = (package / "lib", package.parent / "nvidia")
    files = [path for folder in folders for path in folder.rglob("*.so*")]
    return sum(path.stat().st_size for path in files if path.is_file() and not path.is_symlink())


def start(case: dict[str, Any]) -> None:
    """What a program does that runs a compiled model once, weights drawn on the device."""
    worker = TorchWorker()
    with worker.torch.inference_mode():
        worker._model(case)()
        worker.torch.cuda.synchronize()


def main() -> None:
    """The command line."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        serve(Absent(f"not installed ({error})"))
        return
    if sys.argv[1:2] == ["--start"]:
        import json

        start(json.loads(sys.argv[2]))
        return
    try:
        worker = TorchWorker()
    except RuntimeError as error:
        serve(Absent(str(error)))
    else:
        serve(worker)


if __name__ == "__main__":
    main()
