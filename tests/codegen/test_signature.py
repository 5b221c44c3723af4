"""Names from models in, C identifiers that every compiler takes out."""

import re
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from aotc.codegen.signature import Status, describe_signature, make_c_identifier
from aotc.graph.types import DType, TensorType
from aotc.loop.program import Program, Role, Storage


def signature(names, outputs=(), weights_in_file=False, model="m"):
    kind = TensorType(DType.F32, (2,))

    def tensors(given, role):
        return tuple((name, kind, Storage(name, role, 8)) for name in given)

    program = Program(model, tensors(names, Role.INPUT), tensors(outputs, Role.OUTPUT), ())
    return describe_signature(program, weights_in_file)


def test_names_become_identifiers():
    given_names = ["input.1", "x", "123", "", "int", "a::b", "été", "_lead", "class", "7/x:0"]
    assert [make_c_identifier(name) for name in given_names] == [
        "input_1", "x", "t123", "tensor", "int_", "a_b", "t", "lead", "class_", "t7_x_0",
    ]


def test_names_are_unique_in_both_cases_and_leave_the_own_arguments_alone():
    names = [p.c_name for p in signature(["x", "X", "x", "workspace"], ["x.1", "x_1"]).inputs]
    assert names == ["x", "X_2", "x_3", "workspace_2"]
    assert [p.c_name for p in signature(["a"], ["a", "weights"]).outputs] == ["a_2", "weights_2"]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=8), max_size=6))
def test_any_names_give_distinct_plain_identifiers(names):
    found = [p.c_name for p in signature(names).inputs]
    assert len({name.upper() for name in found}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) for name in found)


def test_status_codes_are_fixed_and_each_has_a_sentence():
    assert [status.value for status in Status] == [*range(14), *range(64, 77)]
    assert max(signature(["x"]).statuses) < Status.NO_DRIVER
    assert all(status.sentence.endswith(".") for status in Status)
    assert {Status.WRONG_WEIGHTS, Status.NO_TILES}.isdisjoint(signature(["x"]).statuses)
    assert Status.WRONG_WEIGHTS in signature(["x"], weights_in_file=True).statuses
    assert signature([], model="my-net.v2").run == "my_net_v2_run"


def test_sizes_follow_the_name():
    entry = replace(signature(["x"], model="net"), sizes=(("batch", 8), ("seq", 128)))
    assert (entry.run, entry.run_threads) == ("net_run_8_128", "net_run_8_128_threads")
    assert (entry.task, entry.macro) == ("net_task_8_128", "NET_8_128")
    assert Status.UNKNOWN_SIZE not in entry.statuses
