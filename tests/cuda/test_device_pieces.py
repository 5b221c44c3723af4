"""Which of an object's constants go to a device, and where they lie there."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from test_device_model import copy_kernel, program_of

from aotc.cuda.pieces import Piece, choose_pieces
from aotc.loop.program import Arg, Call, Role, Storage
from aotc.memory.constants import ALIGNMENT, lay_out_constants


def constant(number, size, shown=None):
    """``size`` bytes, of which all after the first ``shown`` are zeros that nobody stores."""
    data = np.full(size if shown is None else shown, number + 1, np.uint8)
    return Storage(f"c{number}", Role.CONST, size, data)


def using(constants):
    y = Storage("y", Role.OUTPUT, 32)
    return program_of([Call(copy_kernel(), (Arg(y), Arg(c))) for c in constants], [], [y])


def test_a_program_that_uses_all_has_one_piece_as_it_is():
    constants = [constant(0, 100), constant(1, 64), constant(2, 7, 3)]
    program = using(constants)
    layout = lay_out_constants(program)
    found = choose_pieces([program], layout)
    assert found.pieces == (Piece(0, 0, layout.size_bytes),)
    assert b"".join(found.chunks(layout)) == b"".join(layout.chunks())
    assert found.place_of(130) == 130


def test_without_constants_there_is_no_piece():
    empty = constant(0, 0)
    found = choose_pieces([using([empty])], lay_out_constants(using([empty])))
    assert (found.pieces, found.size_bytes, found.place_of(0)) == ((), 0, 0)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 200), st.booleans()), min_size=1, max_size=8))
def test_each_constant_is_found_in_its_place(drawn):
    constants = [constant(number, size, size // 2) for number, (size, _) in enumerate(drawn)]
    used = [c for c, (_, is_used) in zip(constants, drawn, strict=True) if is_used]
    layout = lay_out_constants(using(constants))
    found = choose_pieces([using(used)], layout)
    blob = b"".join(found.chunks(layout))
    assert len(blob) == found.size_bytes
    assert found.size_bytes <= sum(-(-c.size_bytes // ALIGNMENT) * ALIGNMENT for c in used)
    for storage in used:
        place = found.place_of(layout.offsets[storage])
        assert place % ALIGNMENT == 0
        content = storage.data.tobytes()
        wanted = content + bytes(storage.size_bytes - len(content))
        assert blob[place : place + storage.size_bytes] == wanted
