"""Bare-metal images on emulated Cortex-M boards: the same bytes as on x86_64, no libc, small code.
"""

import re
import subprocess

import pytest

import aotc
from aotc.reference.inputs import make_inputs
from bench.boards import BOARDS, EXAMPLE, missing, run_on_board
from bench.models import get_model

TINY = ("mnist_mlp", "tiny_ad_ae", "tiny_kws_dscnn", "tiny_ic_resnet8", "tiny_vww_mbv1")
LARGER = [name for name in TINY if name != "tiny_kws_dscnn"]
TEXT_LIMIT = 12 << 10
OTHERS = [board for board in BOARDS if board != "cortex-m55"]
DIGITS = EXAMPLE.parent / "digits" / "digits.onnx"


@pytest.fixture(scope="module", autouse=True)
def tools():
    if missing():
        pytest.skip(missing())


def compare(name, board, folder):
    """The outputs on the board against those on x86_64, byte by byte."""
    here = aotc.compile(get_model(name))
    inputs = make_inputs(here.signature.inputs, 0, {})
    expected = here.run_dict(inputs)
    found = run_on_board(aotc.compile(get_model(name), target=board), inputs, folder)
    for output, array in expected.items():
        assert array.tobytes() == found[output].tobytes(), output


@pytest.mark.slow
@pytest.mark.parametrize(
    "board",
    ["cortex-m55", *(pytest.param(board, marks=pytest.mark.slow) for board in OTHERS)],
)
def test_a_small_model_gives_the_same_bytes(board, tmp_path):
    compare("mnist_mlp", board, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("name", TINY[1:])
def test_tiny_models_give_the_same_bytes(name, board, tmp_path):
    compare(name, board, tmp_path)


@pytest.mark.slow
def test_half_of_the_memory_gives_the_same_bytes(tmp_path):
    path = get_model("tiny_vww_mbv1")
    here = aotc.compile(path)
    half = here.plan.arena_bytes // 2
    striped = aotc.compile(path, target="cortex-m4", opt="size", ram=half)
    assert striped.plan.arena_bytes <= half
    (extra,) = re.findall(r"([\d.]+)% more multiply-adds", striped.as_text("stripes"))
    assert float(extra) <= 30
    inputs = make_inputs(here.signature.inputs, 0, {})
    found = run_on_board(striped, inputs, tmp_path)
    for output, array in here.run_dict(inputs).items():
        assert array.tobytes() == found[output].tobytes(), output


@pytest.mark.slow
def test_two_memories_give_the_same_bytes(tmp_path):
    here = aotc.compile(DIGITS)
    regions = ["flash=64K", "sram=10K", "psram=1M"]
    model = aotc.compile(DIGITS, target="cortex-m4", regions=regions)
    inputs = make_inputs(here.signature.inputs, 0, {})
    found = run_on_board(model, inputs, tmp_path)
    for output, array in here.run_dict(inputs).items():
        assert array.tobytes() == found[output].tobytes(), output
    linked = (tmp_path / "image.map").read_text()
    for part, start in zip(model.plan.parts, (0x20000000, 0x21000000), strict=True):
        assert part.size_bytes > 6_000
        placed = rf"\.bss\.aotc\.{part.region}\s+{start:#010x}\s+{part.size_bytes:#x}"
        assert re.search(placed, linked)


@pytest.mark.slow
def test_memories_that_are_too_small_for_the_linker_are_named(tmp_path):
    regions = ["flash=8M", "sram=1K", "psram=1M"]
    model = aotc.compile(get_model("mnist_mlp"), target="cortex-m4", regions=regions)
    with pytest.raises(AssertionError, match="compiled for 8388608 bytes of flash"):
        run_on_board(model, make_inputs(model.signature.inputs, 0, {}), tmp_path)


@pytest.mark.slow
def test_the_image_holds_no_heap_and_no_libc(tmp_path):
    compare("mnist_mlp", "cortex-m4", tmp_path)
    linked = (tmp_path / "image.map").read_text()
    assert not re.search(r"\.a\(|libc|libgcc|malloc|sbrk", linked)


@pytest.mark.parametrize(
    "name", ["tiny_kws_dscnn", *(pytest.param(n, marks=pytest.mark.slow) for n in LARGER)]
)
def test_small_code_stays_small(name, tmp_path):
    model = aotc.compile(get_model(name), target="cortex-m4", opt="size")
    (path, *_) = model.save(tmp_path)
    command = ["arm-none-eabi-size", "-A", path.name]
    listed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    (text,) = re.findall(r"^\.text\s+(\d+)", listed.stdout, re.M)
    assert 0 < int(text) <= TEXT_LIMIT
    assert model.manifest["memory"]["gap"] <= 1.02


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tiny_kws_dscnn", "tiny_ic_resnet8"])
def test_small_code_computes_the_same_up_to_rounding(name, tmp_path):
    here = aotc.compile(get_model(name), opt="size")
    inputs = make_inputs(here.signature.inputs, 0, {})
    model = aotc.compile(get_model(name), target="cortex-m4", opt="size")
    found = run_on_board(model, inputs, tmp_path)
    for output, array in here.run_dict(inputs).items():
        assert array.tobytes() == found[output].tobytes()
