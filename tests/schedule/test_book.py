"""Recorded recipes: what is written reads back, fits, is used, and damaged files are refused."""

import json

import pytest
from hypothesis import given, settings
from test_cpu import TARGETS, layer, sizes

from aotc.errors import UsageError
from aotc.schedule.book import RecipeBook, fits, processor, read_book
from aotc.schedule.cpu import ContractSizes, choose_contract, rank_contracts
from aotc.schedule.recipe import ContractRecipe

TARGET = TARGETS["avx512"]
SIZES = layer(rows=1, columns=56, channels=64, depth=256)


def other_recipe():
    """Not the model's first choice."""
    return rank_contracts(SIZES, TARGET, 2)[1].recipe


@pytest.mark.parametrize("name", TARGETS)
def test_sizes_and_recipes_read_back(name):
    target = TARGETS[name]

    @settings(max_examples=25, deadline=None)
    @given(sizes(target))
    def run(drawn):
        assert ContractSizes.parse(drawn.key) == drawn
        for candidate in rank_contracts(drawn, target, 4):
            assert ContractRecipe.parse(str(candidate.recipe)) == candidate.recipe
            assert fits(candidate.recipe, drawn, target)

    run()


def test_the_ranking_begins_with_the_choice_and_does_not_repeat():
    ranked = rank_contracts(SIZES, TARGET, 8)
    assert ranked[0].recipe == choose_contract(SIZES, TARGET)
    assert [c.cycles for c in ranked] == sorted(c.cycles for c in ranked)
    assert len({c.recipe for c in ranked}) == len(ranked) == 8


def test_a_book_is_used_for_its_processor_and_sizes_only(tmp_path):
    path = tmp_path / "recipes.json"
    path.write_text(RecipeBook().updated(TARGET, {SIZES.key: other_recipe()}).as_text())
    book = read_book(path)
    assert book.choose(SIZES, TARGET) == other_recipe() != choose_contract(SIZES, TARGET)
    avx2 = TARGETS["avx2"]
    assert book.choose(SIZES, avx2) == choose_contract(SIZES, avx2)
    larger = layer(rows=1, columns=57, channels=64, depth=256)
    assert book.choose(larger, TARGET) == choose_contract(larger, TARGET)


def test_updating_keeps_what_else_is_known():
    book = RecipeBook().updated(TARGET, {SIZES.key: other_recipe()})
    again = book.updated(TARGETS["neon"], {SIZES.key: other_recipe()}).updated(TARGET, {})
    assert set(again.recipes) == {processor(TARGET), processor(TARGETS["neon"])}
    assert again.find(SIZES, TARGET) == other_recipe()


def test_a_recipe_that_does_not_fit_is_refused():
    wrong = choose_contract(layer(rows=1, columns=55, channels=64, depth=256), TARGET)
    book = RecipeBook().updated(TARGET, {SIZES.key: wrong})
    with pytest.raises(UsageError, match="does not fit"):
        book.choose(SIZES, TARGET)


@pytest.mark.parametrize(
    "content",
    [
        "not json",
        "[]",
        json.dumps({"format": 2, "recipes": {}}),
        json.dumps({"format": 1}),
        json.dumps({"format": 1, "recipes": {"x86_64/x": []}}),
        json.dumps({"format": 1, "recipes": {"x86_64/x": {"contract": "rows 1x1"}}}),
        json.dumps({"format": 1, "recipes": {"x86_64/x": {"contract": None}}}),
    ],
)
def test_damaged_files_are_refused_with_a_remedy(content, tmp_path):
    path = tmp_path / "recipes.json"
    path.write_text(content)
    with pytest.raises(UsageError) as caught:
        read_book(path)
    assert caught.value.remedy and caught.value.where == str(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot read"):
        read_book(tmp_path / "none.json")
