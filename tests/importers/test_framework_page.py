"""The page of imported operators says what the tables say."""

from tools.framework_operators import PAGE, page


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == page(), "run python -m tools.framework_operators"
