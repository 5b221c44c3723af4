"""`make cuda-check`: on the fake driver, from made-up measurements, and with no driver at all."""

import gc
import json
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import aotc
from aotc.codegen.signature import Status
from aotc.cuda import build
from aotc.cuda import compiled as cuda_compiled
from aotc.cuda.driver import DeviceError, Driver
from bench.models import get_model
from tools import cuda_check
from tools.gpu_check import cases, contender, files, graphs, programs, rows
from tools.gpu_check.aotc_worker import AotcWorker
from tools.gpu_check.contender import Absent, Contender, Failed, Late


class Direct:
    """A contender in this process."""

    def __init__(self, worker):
        self.worker, self.closed = worker, 0

    def ask(self, do, seconds, **arguments):
        return getattr(self.worker, do)(**arguments)

    def begin(self, do, **arguments):
        self.begun = (do, arguments)

    def answer(self, seconds):
        do, arguments = self.begun
        return self.ask(do, seconds, **arguments)

    def close(self):
        self.closed += 1


class Steady:
    """A worker to whom every run takes as long."""

    def __init__(self, name, seconds, **facts):
        self.name, self.seconds, self.facts = name, seconds, facts
        self.asked = []

    def about(self):
        return {"name": self.name, "libraries_bytes": 5_000_000_000}

    def prepare(self, case):
        self.asked.append(case)
        return {"launches": 3, **self.facts}

    def check(self):
        return {"largest_error": 1e-4}

    def time(self, repeats, rounds):
        self.asked.append((repeats, rounds))
        return {"seconds": [self.seconds] * rounds}

    def copy(self, size_bytes, repeats, rounds):
        return {"bytes_a_second": 2e12}


class Failing(Steady):
    def prepare(self, case):
        raise Failed("no such kernel")


class Slow(Steady):
    def prepare(self, case):
        raise Late("no answer in time")


def bench_of(ours, torch, jax, seconds=1000.0):
    found = cuda_check.Bench(
        Direct(ours), {"torch": Direct(torch), "jax": Direct(jax)}, cuda_check.time.monotonic()
    )
    found.end += seconds
    found.find_peers()
    return found


@pytest.fixture
def checked(gpu, monkeypatch):
    """The tool on the fake driver, without peers and without the programs that it starts."""
    monkeypatch.setattr(cuda_check, "TURNS", 1)
    monkeypatch.setattr(cuda_check, "ROUNDS", 1)
    monkeypatch.setattr(contender, "MEASURED_SECONDS", 0.0)
    monkeypatch.setattr(cuda_check, "AGREEMENT_PRECISIONS", ("tf32",))
    workers = {"aotc_worker": AotcWorker()}
    monkeypatch.setattr(
        cuda_check,
        "Contender",
        lambda module, *_: Direct(workers.get(module, Absent("not installed"))),
    )
    for module in (cuda_check, cuda_compiled, build):
        monkeypatch.setattr(module, "open_driver", lambda: Driver(gpu.library))
    plain = cuda_compiled.CudaModel.context

    def context(self, device=0):
        gpu.learn(self.device_model)
        return plain(self, device)

    monkeypatch.setattr(cuda_compiled.CudaModel, "context", context)
    yield gpu
    workers.clear()
    gc.collect()


@pytest.mark.slow
def test_a_model_is_compared_and_timed(checked, capsys, tmp_path):
    assert cuda_check.main(["--models", "mnist_mlp", "--json", str(tmp_path / "all.json")]) == 0
    said = capsys.readouterr().out
    assert "card: fake device 0 code for: sm_80 driver: 13.0" in said
    found = json.loads((tmp_path / "all.json").read_text())
    (row,) = found["rows"]
    assert (row["what"], row["precision"], row["verdict"]) == ("mnist_mlp", "tf32", "ok")
    assert row["ours"] == pytest.approx(1e-3)  # the clock of the fake driver
    assert row["error"] < 2e-3


@pytest.mark.slow
def test_wrong_numbers_fail_the_check(checked, capsys, monkeypatch):
    monkeypatch.setattr(checked, "learn", lambda model: None)
    checked.library.fake_cuda_execute_by(None)
    try:
        assert cuda_check.main(["--models", "mnist_mlp"]) == 1
    finally:
        checked.library.fake_cuda_execute_by(checked._execute)
    assert "DIFFERS" in capsys.readouterr().out


@pytest.mark.slow
def test_operations_are_checked_and_held_against_a_copy(checked):
    bench = bench_of(AotcWorker(), Absent("not here"), Absent("not here"))
    chosen = [op for op in cases.operations(256) if op.name.startswith(("product 16", "softmax"))]
    found = [cuda_check.check_operation(bench, op, 0.0) for op in chosen]
    assert [row.problem for row in found] == [""] * len(chosen)
    assert all(row.error <= rows.TOLERANCES[row.precision] for row in found)
    assert {row.verdict for row in found if row.what.startswith("softmax")} <= {"holds", "below"}
    assert found[0].peers == {"torch": "not here"} and found[0].verdict == "not measured"
    bench.ours.worker.drop()


def test_a_machine_without_a_driver_is_told_that_nothing_was_checked(capsys, monkeypatch):
    def fail():
        raise DeviceError(Status.NO_DRIVER)

    monkeypatch.setattr(cuda_check, "open_driver", fail)
    assert cuda_check.main([]) == 2
    assert "nothing was checked: The CUDA driver is not installed" in capsys.readouterr().err


def test_models_are_held_against_the_faster_peer(monkeypatch):
    monkeypatch.setattr(cuda_check, "peer_case", cases.model_case)
    ours, torch, jax = Steady("aotc", 1e-3), Steady("PyTorch 9", 3e-3), Steady("JAX 8", 2e-3)
    models = [cases.ModelCase("a", 1), cases.ModelCase("b", 8)]
    found = cuda_check.check_models(bench_of(ours, torch, jax), models, 0.0)
    assert len(found) == 2 * len(cases.MODEL_PRECISIONS) + 2
    assert all(row.peers == {"PyTorch 9": 3e-3, "JAX 8": 2e-3} for row in found[:-2])
    assert {round(row.ratio, 6) for row in found} == {2.0}
    assert [row.goal for row in found] == [1.5, 1.5, 1.0, 1.0, 1.2, 1.5]
    assert all(row.verdict == "holds" for row in found)
    # first it is found out how many runs a measurement needs, then they are measured in turns
    assert torch.asked[1:3] == [(1, cuda_check.ROUNDS), (6, cuda_check.ROUNDS)]


def test_what_is_missing_is_said_and_not_estimated(monkeypatch):
    monkeypatch.setattr(cuda_check, "peer_case", cases.model_case)
    model = [cases.ModelCase("a", 1)]
    bench = bench_of(Steady("aotc", 1e-3), Absent("not installed"), Failing("JAX 8", 0.0))
    (first, *_, mean, least) = cuda_check.check_models(bench, model, 0.0)
    assert first.peers == {"torch": "not installed", "JAX 8": "no such kernel"}
    assert (first.ratio, first.verdict) == (None, "not measured")
    assert (mean.verdict, least.verdict) == ("not measured", "not measured")
    assert "torch: not installed; JAX 8: no such kernel" in first.cells()[-1]

    failing = bench_of(Failing("aotc", 0.0), Steady("PyTorch 9", 1e-3), Steady("JAX 8", 1e-3))
    (first, *_) = cuda_check.check_models(failing, model, 0.0)
    assert first.wrong and first.problem == "no such kernel" and failing.ours.closed

    peers = Steady("t", 1e-3), Steady("j", 1e-3)
    hanging = cuda_check.check_models(bench_of(Slow("aotc", 0.0), *peers), model, 0.0)
    assert hanging[0].wrong and hanging[0].problem == "no answer in time"
    cut = cuda_check.check_models(bench_of(Slow("aotc", 0.0), *peers, seconds=20.0), model, 0.0)
    assert not cut[0].wrong and cut[0].remarks == cuda_check.NO_TIME
    late = bench_of(Steady("aotc", 1e-3), *peers, seconds=0.0)
    assert {row.remarks for row in cuda_check.check_models(late, model, 0.0)[:2]} == {
        cuda_check.NO_TIME
    }


def test_rows_say_whether_they_hold(tmp_path):
    def row(**given):
        return rows.Row("x", "f16", **given)

    assert row(ratio=0.91, goal=0.9).verdict == "holds"
    assert row(ratio=0.89, goal=0.9).verdict == "below" and not row(ratio=0.1, goal=0.9).wrong
    assert row(ratio=2.0, goal=0.9, error=0.011).verdict == "DIFFERS"
    assert row(error=float("nan")).wrong
    assert row(error=0.001, ours=1.0).verdict == "ok"
    assert row(problem="lost").wrong
    assert rows.ratio_to_fastest(2.0, {"a": 3.0, "b": "absent", "c": 5.0}) == 1.5
    measured = [row(ratio=4.0), row(ratio=1.0)]
    mean, least = rows.summarize_models(measured, [True, False], 1.2, 1.5)
    assert (mean.ratio, mean.verdict, least.ratio) == (pytest.approx(2.0), "holds", 4.0)
    partly = rows.summarize_models([*measured, row()], [True, True, True], 1.2, 1.5)
    assert [one.verdict for one in partly] == ["not measured"] * 2
    assert "of 2 rows of 3" in partly[0].remarks
    said = rows.closing_line([row(ratio=1.0, goal=0.9), row(goal=1.0), row(problem="no")])
    assert said == (
        "rows: 1 hold, 0 are below their goal, 1 with a goal were not measured, 1 are wrong"
    )
    rows.write_json(tmp_path / "rows.json", {"card": "none"}, measured)
    assert json.loads((tmp_path / "rows.json").read_text())["rows"][0]["ratio"] == 4.0


def test_the_page_has_a_line_for_every_goal(monkeypatch):
    monkeypatch.setattr(cuda_check, "peer_case", cases.model_case)
    nobody = Absent("not installed")
    bench = bench_of(nobody, nobody, nobody, seconds=0.0)
    found = [cuda_check.check_operation(bench, op, 0.0) for op in cases.operations()]
    found += cuda_check.check_models(bench, cases.MODELS, 0.0)
    found += programs.titled_rows()
    page = (contender.ROOT / "docs" / "cuda.md").read_text().splitlines()
    listed = {tuple(cell.strip() for cell in line.split("|")[1:4]) for line in page}
    lines = [rows.markdown_line(row, "a card") for row in found if row.goal is not None]
    assert len(lines) == 44
    for line in lines:
        assert tuple(cell.strip() for cell in line.split("|")[1:4]) in listed
    measured = rows.Row("x", "f16", 2e-3, {"PyTorch 9": 3e-3}, 1.5, 1.0, 1e-3)
    assert rows.markdown_line(measured, "H100, today") == (
        "| x | f16 | 1 | 1.50 | PyTorch 9 | 2 | 1.0e-03 | H100, today |"
    )


ANSWERS = """
import sys, json, time
for line in sys.stdin:
    asked = json.loads(line)
    if asked["do"] == "end": sys.exit(7)
    if asked["do"] == "hang": time.sleep(60)
    if asked["do"] == "refuse": print(json.dumps({"error": "no"}), flush=True)
    else: print(json.dumps({"got": asked}), flush=True)
"""


def test_a_process_that_fails_or_hangs_is_replaced():
    asked = Contender("none")
    asked.command = [sys.executable, "-c", ANSWERS]
    try:
        assert asked.ask("say", 10.0, size=3) == {"got": {"do": "say", "size": 3}}
        with pytest.raises(Failed, match="no"):
            asked.ask("refuse", 10.0)
        with pytest.raises(Failed, match="ended with status 7"):
            asked.ask("end", 10.0)
        assert asked.ask("say", 10.0)["got"]["do"] == "say"
        with pytest.raises(Failed, match="no answer in time"):
            asked.ask("hang", 0.05)
        assert asked.ask("say", 10.0)["got"]["do"] == "say"
    finally:
        asked.close()


def test_a_worker_answers_with_its_failures():
    asked = Contender("torch_worker")
    asked.command = [sys.executable, "-c", (
        "from tools.gpu_check.contender import Absent, serve\n"
        "serve(Absent('it is not here'))\n"
    )]  # fmt: skip
    try:
        with pytest.raises(Failed, match="it is not here"):
            asked.ask("about", 20.0)
        with pytest.raises(Failed, match="AttributeError"):
            asked.ask("nonsense", 20.0)
    finally:
        asked.close()


@pytest.mark.parametrize(
    "operation", cases.operations(256), ids=lambda op: f"{op.name} {op.precision}"
)
@pytest.mark.slow
def test_operations_agree_with_float64_on_a_processor(operation):
    prepared = graphs.prepare(operation.case)
    found = aotc.compile(prepared.graph, name="one").bind(**prepared.inputs)()
    parts, wanted = prepared.parts([*found]), prepared.wanted()
    assert graphs.largest_error(parts, wanted) <= rows.TOLERANCES[operation.precision]
    wrong = [array + np.abs(array).max() / 10 for array in wanted]
    assert graphs.largest_error(parts, wrong) > rows.TOLERANCES[operation.precision]


def tiny_encoder():
    return {**cases.encoder(2, 16, 2, tokens=8), "words": 30}


@pytest.mark.slow
def test_samples_of_an_encoder_do_not_depend_on_the_batch():
    case = cases.model_case(cases.ModelCase("tiny", 3, tiny_encoder()), "f32")
    prepared = graphs.prepare(case)
    found = aotc.compile(prepared.graph, name="tiny").bind(**prepared.inputs)()
    parts = prepared.parts([*found])
    assert [part.shape for part in parts] == [(1, 8, 16)] * 2
    assert graphs.largest_error(parts, prepared.wanted()) <= rows.TOLERANCES["f32"]


def test_a_model_of_one_image_becomes_one_of_several():
    shape = numpy_helper.from_array(np.array([1, -1], np.int64))
    weights = np.arange(8, dtype=np.float32).reshape(4, 2)
    nodes = [
        helper.make_node("Constant", [], ["flat"], value=shape),
        helper.make_node("Reshape", ["x", "flat"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)]
        for name, dims in (("x", [1, 2, 2]), ("y", [1, 2]))
    ]
    graph = helper.make_graph(nodes, "g", *ends, [numpy_helper.from_array(weights, "w")])
    single = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    several = ReferenceEvaluator(files.with_batch(single, 3))
    x = np.random.default_rng(0).standard_normal((3, 2, 2)).astype(np.float32)
    (found,) = several.run(None, {"x": x})
    np.testing.assert_allclose(found, x.reshape(3, 4) @ weights, rtol=1e-6)
    (weight,) = files.weights_in_order(single)
    assert weight.shape == (2, 4)  # outputs first


def test_the_program_that_is_started_and_its_bytes(tmp_path, monkeypatch):
    times = {"ours": 0.1, "theirs": 2.0}
    monkeypatch.setattr(
        programs, "time_command",
        lambda command, *_: times["theirs" if command[0] == "python" else "ours"],
    )  # fmt: skip
    monkeypatch.setattr(programs, "build_program", lambda *_: (tmp_path / "main", 50_000))
    about = {"name": "PyTorch 9", "libraries_bytes": 5_000_000_000}
    start, size = programs.start_and_size(["python", "x"], about, 10.0)
    assert (start.ratio, start.verdict) == (pytest.approx(20.0), "holds")
    assert (size.ratio, size.verdict) == (100_000.0, "holds")
    late = programs.start_and_size(["python", "x"], about, 0.0)
    assert [row.verdict for row in late] == ["not measured"] * 2
    start, size = programs.start_and_size(["python", "x"], "not installed", 10.0)
    assert {start.verdict, size.verdict} == {"not measured"} and start.ours == 0.1


@pytest.mark.slow
@pytest.mark.requires_cc
def test_the_program_that_is_started_is_built(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "STARTED", "mnist_mlp")
    monkeypatch.setattr(build, "open_driver", lambda: Driver(gpu.library))
    program, own_bytes = programs.build_program(tmp_path, "gcc")
    assert program.stat().st_mode & 0o100
    assert 10_000 < own_bytes < program.stat().st_size - 100_000  # the weights of the model


def peers_of(kind):
    """The models of a kind as ONNX, small where it is made here."""
    if kind == "encoder":
        return tiny_encoder(), files.encoder_model(tiny_encoder(), 3)
    model = next(m for m in cases.MODELS if m.architecture["kind"] == kind and m.bench)
    return model.architecture, onnx.load(get_model(model.bench))


KINDS = ("encoder", "resnet", "vit", "decoder")


def run_with_onnx_runtime(model):
    """Inputs and the first output."""
    runtime = pytest.importorskip("onnxruntime")
    random = np.random.default_rng(0)
    inputs = {}
    for value in model.graph.input:
        dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if value.type.tensor_type.elem_type == TensorProto.INT64:
            inputs[value.name] = random.integers(0, 2 if value.name == "mask" else 30, dims)
        else:
            inputs[value.name] = random.standard_normal(dims, dtype=np.float32)
    if "mask" in inputs:
        inputs["mask"][:, 0] = 1
    session = runtime.InferenceSession(model.SerializeToString())
    return inputs, session.run(None, inputs)[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_torch_computes_the_same_model(kind):
    torch = pytest.importorskip(
        "torch", reason="PyTorch is an optional extra: pip install 'aotc[torch]'"
    )
    from tools.gpu_check.torch_models import Network

    architecture, model = peers_of(kind)
    inputs, wanted = run_with_onnx_runtime(model)
    weights = [torch.from_numpy(weight.copy()) for weight in files.weights_in_order(model)]
    with torch.inference_mode():
        tensors = [torch.from_numpy(array) for array in inputs.values()]
        found = Network(architecture, weights)(*tensors).numpy()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_jax_computes_the_same_model(kind):
    pytest.importorskip("jax", reason="JAX is an optional extra: pip install 'aotc[jax]'")
    from tools.gpu_check.jax_models import network

    architecture, model = peers_of(kind)
    inputs, wanted = run_with_onnx_runtime(model)
    arrays = [a.transpose(0, 2, 3, 1) if a.ndim == 4 else a for a in inputs.values()]
    found = np.asarray(network(architecture)(files.weights_in_order(model), *arrays))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.slow
def test_torch_is_a_contender():
    pytest.importorskip(
        "torch", reason="PyTorch is an optional extra: pip install 'aotc[torch]'"
    )
    from tools.gpu_check.torch_worker import TorchWorker

    worker = TorchWorker("cpu")
    assert worker.about()["libraries_bytes"] > 1e8
    for operation in cases.operations(256):
        if not operation.moved:
            worker.prepare(operation.case)
            assert all(seconds > 0 for seconds in worker.time(2, 2)["seconds"])
    model = cases.ModelCase("tiny", 2, tiny_encoder())
    worker.prepare(cuda_check.peer_case(model, "f16"))
    assert len(worker.time(1, 3)["seconds"]) == 3


@pytest.mark.slow
def test_jax_is_a_contender():
    pytest.importorskip("jax", reason="JAX is an optional extra: pip install 'aotc[jax]'")
    from tools.gpu_check.jax_worker import JaxWorker

    worker = JaxWorker("cpu")
    worker.prepare(cuda_check.peer_case(cases.ModelCase("tiny", 2, tiny_encoder()), "tf32"))
    assert len(worker.time(1, 3)["seconds"]) == 3
