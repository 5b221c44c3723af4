"""The account of a recipe adds up to the cost that the model ranks by."""

import pytest
from hypothesis import given, settings
from test_cpu import TARGETS, layer, sizes

from aotc.schedule.cpu import VARIANT_PENALTY, rank_contracts
from aotc.schedule.explain import explain_contract


@pytest.mark.parametrize("name", TARGETS)
def test_the_terms_add_up_to_the_cost(name):
    target = TARGETS[name]

    @settings(max_examples=25, deadline=None)
    @given(sizes(target))
    def run(drawn):
        for candidate in rank_contracts(drawn, target, 2):
            found = explain_contract(drawn, target, candidate.recipe)
            terms = found.arithmetic + found.padding + found.loads + found.latency
            terms += found.weights + found.broadcasts + found.tiles
            assert terms == pytest.approx(found.cycles)
            # panels of a partial vector count as a variant in one place only
            assert found.cycles == pytest.approx(candidate.cycles, rel=12 * VARIANT_PENALTY)
            assert 0 < found.share_of_peak <= 1

    run()


def test_a_large_product_is_nearly_all_arithmetic():
    target = TARGETS["avx512"]
    drawn = layer(columns=1024, channels=1024, depth=1024)
    (best, *_) = rank_contracts(drawn, target, 1)
    assert explain_contract(drawn, target, best.recipe).share_of_peak > 0.6
