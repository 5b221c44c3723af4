"""Signatures of several sizes in, the function that chooses among them out."""

from aotc.codegen.dispatch import describe_dispatcher, emit_dispatchers
from aotc.codegen.signature import describe_signature
from aotc.graph.types import DType, TensorType
from aotc.loop.program import Program, Role, Storage


def signature(sizes, names=("x",), threads=False):
    kind = TensorType(DType.F32, (2,))
    inputs = tuple((name, kind, Storage(name, Role.INPUT, 8)) for name in names)
    outputs = (("y", kind, Storage("y", Role.OUTPUT, 8)),)
    return describe_signature(Program("net", inputs, outputs, ()), False, threads, sizes)


def test_every_entry_is_asked_for_and_nothing_else_runs():
    entries = [signature((("n", a), ("m", 5))) for a in (1, 8)]
    (text,) = emit_dispatchers(entries)
    assert text.startswith("define i32 @net_run(i64 %size0, i64 %size1, ptr %in0, ptr %out0,")
    assert text.count("call i32 @net_run_1_5(") == text.count("call i32 @net_run_8_5(") == 1
    assert text.endswith("  ret i32 12\n}")


def test_threads_have_a_dispatcher_of_their_own():
    entries = [signature((("n", a),), threads=True) for a in (1, 8)]
    _, text = emit_dispatchers(entries)
    assert "@net_run_threads(i64 %size0," in text and "ptr %pool)" in text
    assert "call i32 @net_run_8_threads(" in text


def test_names_of_dimensions_give_way_to_those_of_tensors():
    dispatcher = describe_dispatcher([signature((("X", 1), ("pool", 2), ("X.", 3)))])
    assert dispatcher.dims == ("X_2", "pool_2", "X_3")
