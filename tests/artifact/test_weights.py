"""Objects with a marker in, objects with constants out: exact bytes, no copies, clear refusals."""

import tracemalloc

import llvmlite.binding as llvm
import numpy as np
import pytest
from handmade import ELEMS, scale_program

from aotc.artifact.weights import embed_constants, weights_file_chunks
from aotc.codegen.entry import Entry, emit_module, weights_marker
from aotc.codegen.machine import compile_module
from aotc.errors import UsageError, VerifyError
from aotc.memory.arena import plan_memory
from aotc.memory.constants import ConstantLayout, lay_out_constants
from aotc.target import resolve_target

WEIGHTS = np.arange(ELEMS, dtype=np.float32)


def emit(target="x86_64", name="net", program=None):
    program = program or scale_program(name, WEIGHTS)
    constants = lay_out_constants(program)
    target = resolve_target(target)
    entry = Entry.of(program, plan_memory(program))
    text = emit_module(program.name, [entry], target, constants)
    return compile_module(text, target), constants


def sections(image):
    """Name, size and content of the sections, read back by LLVM."""
    found = {}
    for section in llvm.ObjectFileRef.from_data(image.to_bytes()).sections():
        if section.name() is not None:
            found[section.name().decode()] = section.data()
    return found


@pytest.mark.parametrize("target", ["x86_64", "aarch64"])
def test_the_section_is_the_constants_and_the_code_is_untouched(target):
    emitted, constants = emit(target)
    image = embed_constants(emitted, "net", constants)
    found = sections(image)
    assert found[".rodata.net"] == WEIGHTS.tobytes()
    assert len(found[".text"]) > 40 and found[".text"] in emitted
    assert image.size_bytes == len(image.to_bytes())
    assert weights_marker("net") not in image.to_bytes()


def test_the_constants_lie_aligned_in_the_file_so_that_a_linker_may_map_them():
    emitted, constants = emit()
    image = embed_constants(emitted, "net", constants)
    assert len(image.head) % 64 == 0
    assert image.to_bytes().endswith(WEIGHTS.tobytes())


def test_without_constants_the_object_is_left_alone():
    emitted, _ = emit()
    assert embed_constants(emitted, "net", ConstantLayout({}, (), 0)).to_bytes() == emitted


def test_a_marker_that_is_missing_or_twice_there_is_an_internal_error():
    emitted, constants = emit()
    with pytest.raises(VerifyError, match="0 times"):
        embed_constants(emitted, "other", constants)
    with pytest.raises(VerifyError, match="2 times"):
        embed_constants(emitted + weights_marker("net"), "net", constants)


def test_what_does_not_fit_says_what_to_do():
    emitted, _ = emit()
    with pytest.raises(UsageError, match="--weights file"):
        embed_constants(emitted, "net", ConstantLayout({}, (), 2**31))


@pytest.mark.parametrize("target", ["aarch64-apple-darwin", "x86_64-pc-windows-msvc", "wasm32"])
def test_other_formats_hold_the_constants_where_the_marker_was(target):
    emitted, constants = emit(target)
    place = emitted.index(weights_marker("net"))
    data = embed_constants(emitted, "net", constants).to_bytes()
    expected = b"".join(constants.chunks())
    assert data[place : place + len(expected)] == expected
    assert len(data) == len(emitted)
    assert data[:place] == emitted[:place]
    assert data[place + len(expected) :] == emitted[place + len(expected) :]


def test_a_weights_file_begins_with_its_digest():
    constants = lay_out_constants(scale_program("net", WEIGHTS))
    content = b"".join(weights_file_chunks(constants))
    assert content[:32].hex() == constants.digest
    assert content[32:64] == bytes(32)
    assert content[64:] == WEIGHTS.tobytes()


def test_writing_an_object_makes_no_copy_of_the_constants(tmp_path):
    big = np.zeros(4_000_000, np.float32)
    emitted, _ = emit()
    constants = ConstantLayout({}, ((0, big),), big.nbytes)
    tracemalloc.start()
    image = embed_constants(emitted, "net", constants)
    with (tmp_path / "net.o").open("wb") as file:
        file.writelines(image.chunks())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000
    assert (tmp_path / "net.o").stat().st_size == image.size_bytes > big.nbytes
