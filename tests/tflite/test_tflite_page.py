"""docs/tflite.md lists the operators of the table, and all of them."""

from pathlib import Path

from aotc.frontend.tflite.ops.table import CUSTOM_RULES, FAMILIES

PAGE = Path(__file__).parents[2] / "docs" / "tflite.md"


def test_the_page_lists_every_operator():
    rows = [line.strip("|").split("|") for line in PAGE.read_text().splitlines() if "| `" in line]
    listed = {family.strip(): set(names.replace("`", "").split()) for family, names in rows}
    expected = {family: set(rules) for family, rules in FAMILIES.items()}
    assert listed == {**expected, "Custom": set(CUSTOM_RULES)}
