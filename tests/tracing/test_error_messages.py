"""What is wrong is said with the user's line and the types of both operands."""

import numpy as np
import pytest

import aotc

ROW, MATRIX = aotc.spec(4), aotc.spec((2, 3))
F32 = np.float32


def both(text):
    return text.split(" | ")


OPERANDS = {
    "operator": (lambda x, y: x + y, "float32[4] | float32[2,3] | numpy.add"),
    "known operand": (lambda x, y: np.ones((3, 4)) * y, "float64[3,4] | float32[2,3]"),
    "list": (lambda x, y: [1, 2] + x, "int64[2] | float32[4]"),
    "text": (lambda x, y: x + "a", "float32[4] | 'a'"),
    "bits of floats": (lambda x, y: x & 1, "bitwise_and | float32[4]"),
    "in place": (lambda x, y: _in_place(x), "float32[2,4] | float32[4]"),
    "matmul": (lambda x, y: x @ y, "4 columns | 2 rows | float32[4] | float32[2,3]"),
    "matmul types": (lambda x, y: np.ones(3) @ x, "float64[3] | float32[4]"),
    "matmul batch": (
        lambda x, y: np.ones((2, 3, 4), F32) @ np.reshape(x, (1, 4, 1)).repeat(3, 0),
        "numpy.matmul | float32[2,3,4] | float32[3,4,1]",
    ),
    "dot": (lambda x, y: np.dot(y, y), "float32[2,3] and float32[2,3]"),
    "tensordot": (lambda x, y: np.tensordot(y, x, 1), "float32[2,3] | float32[4]"),
    "einsum": (lambda x, y: np.einsum("i,ij->j", x, y), "axis 'i' | float32[4] | float32[2,3]"),
    "cross": (lambda x, y: np.cross(y, y[:, :2]), "float32[2,3] | float32[2,2]"),
    "concatenate": (lambda x, y: np.concatenate([x, y]), "float32[4] | float32[2,3]"),
    "concatenate sizes": (
        lambda x, y: np.concatenate([y, y[:, :2]]), "float32[2,3] | float32[2,2] | axis 0"
    ),
    "stack": (lambda x, y: np.stack([x, y]), "float32[4] | float32[2,3]"),
    "where": (lambda x, y: np.where(x > 0, x, y), "bool[4] | float32[4] | float32[2,3]"),
    "clip": (lambda x, y: np.clip(x, y, 1), "float32[4] | float32[2,3]"),
    "broadcast_to": (lambda x, y: np.broadcast_to(x, (3, 2)), "float32[4] | (3, 2)"),
    "reshape": (lambda x, y: x.reshape(3), "float32[4] | (3,)"),
    "take_along_axis": (
        lambda x, y: np.take_along_axis(y, y.astype(int)[:, :2].repeat(2, 0), 1),
        "axis 1 | float32[2,3] | int64[4,2]",
    ),
}  # fmt: skip
INDEXING = {
    "integer": (lambda x, y: x[5], "index 5 | axis 0 | float32[4]"),
    "list": (lambda x, y: y[:, [0, 7]], "index 7 | axis 1 | float32[2,3]"),
    "take": (lambda x, y: np.take(y, 9, axis=0), "index 9 | axis 0 | float32[2,3]"),
    "too many": (lambda x, y: y[0, 1, 2], "3 indices | float32[2,3]"),
    "float": (lambda x, y: x[0.5], "0.5 is not an index"),
    "traced float": (lambda x, y: y[x], "integers | float32[4] | astype"),
    "mask": (lambda x, y: x[np.zeros(3, bool)], "(3,) | float32[4]"),
    "arrays": (lambda x, y: y[[0, 1, 1], [0, 1]], "int64[3] and int64[2]"),
    "array of its own": (lambda x, y: np.ones(9)[x.astype(int)], "int64[4] | np.take"),
    "update": (lambda x, y: aotc.updated(y, 0, x), "(3,) of float32[2,3] | float32[4]"),
    "update outside": (lambda x, y: aotc.updated(y, 7, 1.0), "index 7 | float32[2,3]"),
    "top_k": (lambda x, y: aotc.top_k(y, 9), "9 of 3 | float32[2,3]"),
}
CONTROL = {
    "cond types": (
        lambda x, y: aotc.cond(x[0] > 0, lambda: x, lambda: x.astype(float)),
        "aotc.cond | float32[4] and float64[4] | astype",
    ),
    "cond shapes": (
        lambda x, y: aotc.cond(x[0] > 0, lambda: x, lambda: x[:2]), "float32[4] and float32[2]"
    ),
    "cond predicate": (lambda x, y: aotc.cond(x > 0, np.exp, np.log, x), "bool[4] | np.any"),
    "while state": (
        lambda x, y: aotc.while_loop(lambda s: s < 1, lambda s: s + 1.5, np.int32(0)),
        "aotc.while_loop | int32[] | float64[] | keeps its type",
    ),
    "while condition": (
        lambda x, y: aotc.while_loop(lambda s: s < 1, lambda s: s, x), "bool[4] | np.any"
    ),
    "fori state": (
        lambda x, y: aotc.fori_loop(0, 3, lambda i, s: s[:2], x), "float32[4] | float32[2]"
    ),
    "scan state": (
        lambda x, y: aotc.scan(lambda s, r: (s + r, r), np.float32(0), y), "float32[] | float32[3]"
    ),
    "scan lengths": (
        lambda x, y: aotc.scan(lambda s, r: (s, s), F32(0), (x, y)), "one length | [2, 4]"
    ),
}  # fmt: skip


def _in_place(x):
    x += np.ones((2, 4), F32)
    return x


@pytest.mark.parametrize(
    ("function", "words"),
    [pytest.param(*case, id=name) for table in (OPERANDS, INDEXING, CONTROL)
     for name, case in table.items()],
)  # fmt: skip
def test_errors_show_line_and_operands(function, words):
    with pytest.raises(aotc.AotcError) as caught:
        aotc.trace(function, ROW, MATRIX)
    text = str(caught.value)
    assert "test_error_messages.py:" in text
    for word in both(words):
        assert word in text
