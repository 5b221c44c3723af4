"""ONNX Einsum against ONNX Runtime."""

import pytest
from onnx_cases import case, check, f32

CASES = [
    *(
        case("Einsum", 12, *(f32(*shape, seed=i) for i, shape in enumerate(shapes)), equation=text)
        for text, shapes in (
            ("ij,jk->ik", [(2, 3), (3, 4)]),
            ("bij,bjk->bik", [(5, 2, 3), (5, 3, 4)]),
            ("bhid,bhjd->bhij", [(2, 3, 4, 5), (2, 3, 6, 5)]),
            ("ij->ji", [(2, 3)]),
            ("ij->", [(2, 3)]),
            ("ii->i", [(3, 3)]),
            ("ii", [(3, 3)]),
            ("i,j->ij", [(2,), (3,)]),
            ("i,i->", [(3,), (3,)]),
            ("...ij,...jk->...ik", [(4, 2, 3), (4, 3, 2)]),
            ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]),
            ("bij,bj->b", [(2, 3, 4), (2, 4)]),
            ("ba,cd", [(2, 3), (4, 5)]),
        )
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_the_reference(case, tmp_path):
    check(case, tmp_path)
