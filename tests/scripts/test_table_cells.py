"""Rows of runs that are not at hand any more stay in their page."""

import pytest

HEAD = "| asked | method | dev |\n|--:|---|--:|\n"


@pytest.fixture
def table_cells():
    import table_cells

    return table_cells


def test_a_row_of_both_is_the_new_one_and_the_others_stay_in_order(table_cells):
    earlier = HEAD + "| 50 % | L0 | 1 |\n| 50 % | FLOP | 2 |\n| 75 % | L0 | 3 |\n"
    new = HEAD + "| 50 % | FLOP | 20 |"
    right = HEAD + "| 50 % | L0 | 1 |\n| 50 % | FLOP | 20 |\n| 75 % | L0 | 3 |"
    assert table_cells.with_earlier_rows(new, earlier, key=2) == right


def test_new_rows_come_behind_those_they_follow(table_cells):
    earlier = HEAD + "| 50 % | L0 | 1 |\n| 75 % | L0 | 3 |"
    new = HEAD + "| 25 % | L0 | 0 |\n| 50 % | L0 | 1 |\n| 50 % | CoFi | 2 |"
    right = HEAD + "| 25 % | L0 | 0 |\n| 50 % | L0 | 1 |\n| 50 % | CoFi | 2 |\n| 75 % | L0 | 3 |"
    assert table_cells.with_earlier_rows(new, earlier, key=2) == right


@pytest.mark.parametrize(
    ("old", "new", "stays"),
    [
        ("| L0 | 3 | 1.5× | 88 |", "| L0 | 1 | 1.6× | 87 |", True),  # fewer seeds
        ("| L0 | 1 | 1.5× | 88 |", "| L0 | 1 | – | 87 |", True),  # no speed any more
        ("| L0 | 1 | 1.5× | 88 |", "| L0 | 2 | 1.6× | 87 |", False),
        ("| L0 | 1 | – | 88 |", "| L0 | 1 | – | 87 |", False),
    ],
)
def test_a_row_that_says_less_than_the_page_does_not_replace_it(old, new, stays, table_cells):
    head = "| method | seeds | speed-up | dev |\n|---|--:|--:|--:|\n"
    assert table_cells.with_earlier_rows(head + new, head + old, key=1) == head + (old if stays else new)


def test_refuses_a_page_with_other_columns(table_cells):
    with pytest.raises(SystemExit, match="columns"):
        table_cells.with_earlier_rows(HEAD, HEAD.replace("dev", "test"), key=2)


def test_the_table_of_a_page_is_found_between_its_paragraphs(table_cells):
    earlier = f"# Title\n\nText.\n\n{HEAD}| 75 % | L0 | 0 |\n| 90 % | L0 | 4 |\n\n![A picture](page.png)\n"
    right = HEAD + "| 75 % | L0 | 3 |\n| 90 % | L0 | 4 |"
    assert table_cells.with_earlier_rows(HEAD + "| 75 % | L0 | 3 |", earlier, key=2) == right


def test_a_page_without_a_table_adds_nothing(table_cells):
    new = HEAD + "| 50 % | L0 | 1 |"
    assert table_cells.with_earlier_rows(new, "# Title\n\nText.\n", key=2) == new
