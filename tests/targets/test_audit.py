"""`aotc audit`: what it says of real objects of every target, and of doctored ones."""

import contextlib
import functools
import json
import re
import shutil
import subprocess

import pytest
from graph_runs import Net

import aotc
from aotc.audit.code import VectorLengths
from aotc.audit.elf import read_elf
from aotc.audit.report import audit_object, peak
from aotc.cli import main
from aotc.codegen.notes import SECTION
from aotc.errors import AotcError, ModelError
from aotc.target import FAMILIES
from bench.models import get_model

ELF_TARGETS = [name for name in FAMILIES if name != "wasm32"]

#: One for each way to call, to jump and to grow the stack.
VARIED = ("x86_64", "aarch64", "arm", "cortex-m0", "cortex-m55", "riscv64")


@functools.cache
def object_for(target, name="mnist_mlp", **options):
    return aotc.compile(get_model(name), target=target, **options).bundle.image.to_bytes()


def claims(audit):
    return {promise.claim.split(":")[0].split(" of ")[0]: promise for promise in audit.promises}


@pytest.mark.slow
@pytest.mark.parametrize(
    "target", [pytest.param(t, marks=[] if t in VARIED else pytest.mark.slow) for t in ELF_TARGETS]
)
def test_every_target_keeps_its_promises(target):
    audit = audit_object(object_for(target))
    assert audit.holds, [promise for promise in audit.promises if not promise.holds]
    (stack,) = [p for p in audit.promises if p.claim.startswith("stack of mnist_mlp_run")]
    assert re.match(r"\d+ bytes: mnist_mlp_run", stack.found)
    assert audit.figures["code_bytes"] > 1000
    # less than their sum where a result lies over its operand
    live = [size for _, size in audit.figures["live_at_peak"]]
    assert max(live) <= audit.figures["arena_bytes"] <= sum(live)


def test_the_stack_of_a_known_frame(tmp_path):
    source = "void g(char *); int tiny_run(void) { char a[300]; g(a); return a[7]; }\n"
    source += 'void g(char *p) { __asm__("" : : "r"(p) : "memory"); }\n'
    if shutil.which("gcc") is None:
        pytest.skip("no gcc on this machine")
    path = tmp_path / "frame.o"
    command = ["gcc", "-O1", "-fno-inline", "-c", "-xc", "-", "-o", str(path)]
    subprocess.run(command, input=source.encode(), check=True, capture_output=True)
    from aotc.audit.code import read_functions, worst_stack

    functions = read_functions(read_elf(path.read_bytes()))
    total, chain = worst_stack(functions, "tiny_run", re.compile("__stack_chk_fail"))
    assert chain[:2] == ["tiny_run", "g"]
    assert total is not None and 300 + 16 <= total <= 400


def softmax(rows, columns):
    net = Net()
    x = net.x(rows, columns)
    largest = net.b.reduce("max", x, [1], True)
    shifted = net.b.binary("sub", x, net.b.broadcast(largest, x.shape))
    powers = net.b.unary("exp", shifted)
    total = net.b.reduce("sum", powers, [1], True)
    return net.graph(net.b.binary("div", powers, net.b.broadcast(total, x.shape)))


@pytest.mark.parametrize(
    ("target", "rows", "columns"),
    [("cortex-m0", 3, 10), ("cortex-m0", 2, 100), ("riscv64", 2, 100)],
)
def test_far_jumps_and_frames_of_vectors_are_understood(target, rows, columns):
    audit = audit_object(aotc.compile(softmax(rows, columns), target=target).object_bytes())
    (stack,) = [promise for promise in audit.promises if promise.claim.startswith("stack")]
    found = int(re.match(r"(\d+) bytes: net_run > net_k00\w+$", stack.found)[1])
    assert stack.holds and 16 <= found <= 512


def test_a_register_holds_a_multiple_of_vectors_until_it_is_written():
    lengths = VectorLengths()
    assert lengths.step("csrr", "a2, 3106") == lengths.step("c.slli", "a2, 1") == 0
    assert lengths.step("sub", "sp, sp, a2") == 2
    lengths.step("c.li", "a3, 3")
    lengths.step("mul", "a4, a2, a3")
    assert lengths.step("sub", "sp, sp, a4") == 6
    lengths.step("lw", "a2, 8(a0)")
    lengths.step("c.addi", "a3, 1")
    lengths.step("mul", "a4, a4, a3")
    assert lengths.step("sub", "sp, sp, a2") == lengths.step("sub", "sp, sp, a4") == 0


@pytest.mark.slow
def test_instruction_sets_are_those_in_use():
    assert audit_object(object_for("x86_64")).figures["instruction_sets"] == ["AVX2", "FMA"]
    wide = audit_object(object_for("x86_64", cpu="x86-64-v4"))
    assert "AVX-512" in wide.figures["instruction_sets"]
    assert "MVE" in audit_object(object_for("cortex-m55")).figures["instruction_sets"]
    assert "V" not in audit_object(object_for("riscv64", cpu="rv64gc")).figures["instruction_sets"]


def test_threads_call_their_pool_and_nothing_else():
    audit = audit_object(object_for("x86_64", threads=True))
    assert audit.holds, [promise for promise in audit.promises if not promise.holds]


def doctored(data, change):
    """``data`` with its notes changed, in as many bytes."""
    (section,) = [s for s in read_elf(data).sections if s.name == SECTION]
    notes = json.loads(section.content)
    change(notes)
    text = json.dumps(notes, separators=(",", ":")).encode()
    assert len(text) <= section.size
    start = data.index(section.content)
    return data[:start] + text.ljust(section.size) + data[start + section.size :]


def test_an_arena_that_overlaps_is_found():
    def unannounced(notes):
        del notes["overlaps"]

    def too_near(notes):
        for overlap in notes["overlaps"]:
            overlap[2] = 512

    def lasting(notes):
        for block in notes["blocks"]:
            block[2], block[4] = 0, block[3] + 3

    assert audit_object(doctored(object_for("x86_64"), lambda notes: None)).holds
    for change in (unannounced, too_near, lasting):
        audit = audit_object(doctored(object_for("x86_64"), change))
        assert any("share nothing" in p.claim and not p.holds for p in audit.promises)


def test_an_arena_that_is_too_small_or_wasteful_is_found():
    def shrink(notes):
        notes["arena"] = 64

    def grow(notes):
        notes["arena"] = notes["arena"] * 9 // 8

    for change, word in ((shrink, "share nothing"), (grow, "lower bound")):
        audit = audit_object(doctored(object_for("x86_64"), change))
        assert any(word in p.claim and not p.holds for p in audit.promises)


def test_a_symbol_of_others_and_a_second_name_are_found():
    data = object_for("x86_64")
    renamed = data.replace(b"mnist_mlp_run\0", b"mnist_mlp_ran\0", 1)
    audit = audit_object(renamed)
    assert any("global symbols" in p.claim and not p.holds for p in audit.promises)


@pytest.mark.slow
@pytest.mark.parametrize("keep", [0, 4, 20, 64, 200, 5000])
def test_damaged_files_are_refused(keep):
    with pytest.raises(ModelError):
        audit_object(object_for("cortex-m4")[:keep])


@pytest.mark.slow
@pytest.mark.parametrize("places", [12, pytest.param(60, marks=pytest.mark.slow)])
def test_every_flip_ends_in_a_message(places):
    data = bytearray(object_for("cortex-m4", weights="file"))
    for place in range(0, len(data), max(1, len(data) // places)):
        flipped = bytearray(data)
        flipped[place] ^= 0xFF
        with contextlib.suppress(AotcError):
            audit_object(bytes(flipped))


def test_the_command_prints_text_and_json_and_its_status_says_it(tmp_path, capsys):
    path = tmp_path / "net.o"
    path.write_bytes(object_for("x86_64"))
    assert main(["audit", str(path)]) == 0
    assert "undefined symbols: none" in capsys.readouterr().out
    path.write_bytes(doctored(path.read_bytes(), lambda notes: notes.update(arena=64)))
    assert main(["audit", str(path), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert not report["ok"] and report["cpu"] == "x86-64-v3"
    assert main(["audit", str(tmp_path / "none.o")]) == 2
    assert "cannot read" in capsys.readouterr().err


def test_the_peak_is_the_most_that_is_live_at_once():
    blocks = [("a", 100, 0, 0, 2), ("b", 64, 128, 1, 3), ("c", 1, 0, 3, 4)]
    assert peak(blocks, 64) == (192, [("a", 128), ("b", 64)])
