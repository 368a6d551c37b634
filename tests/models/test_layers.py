"""Which blocks a student takes over, against the tables of the papers."""

import pytest

from lit_compress.models.layers import choose_layers


@pytest.mark.parametrize(
    ("layers", "depth", "teacher", "expected"),
    [
        # DistilBERT's released student, scripts/extract_distilbert.py
        ("distilbert", None, 12, [0, 2, 4, 7, 9, 11]),
        ("distilbert", 6, 12, [0, 2, 4, 7, 9, 11]),
        # its common re-implementation
        ("every_other", None, 12, [0, 2, 4, 6, 8, 10]),
        ("every_other", None, 6, [0, 2, 4]),
        ("every_other", None, 5, [0, 2, 4]),
        # PKD starts from the first k blocks
        ("first_k", 6, 12, [0, 1, 2, 3, 4, 5]),
        ("last_k", 3, 12, [9, 10, 11]),
        # TinyBERT's mapping g(m) = 3m for 4 of 12, as 0-based blocks
        ("uniform", 4, 12, [2, 5, 8, 11]),
        ("uniform", 6, 12, [1, 3, 5, 7, 9, 11]),
        ("uniform", 3, 6, [1, 3, 5]),
        ("first_k", 12, 12, list(range(12))),
        ([0, 5, 11], None, 12, [0, 5, 11]),
        ([0, 5, 11], 3, 12, [0, 5, 11]),
    ],
)
def test_tables(layers, depth, teacher, expected):
    assert choose_layers(layers, depth, teacher) == expected


def test_refuses_an_unknown_rule():
    with pytest.raises(ValueError, match=r"one of every_other, first_k, .* but got 'skip'"):
        choose_layers("skip", None, 6)


@pytest.mark.parametrize(("depth", "teacher"), [(None, 6), (3, 12), (5, 12)])
def test_refuses_distilbert_layers_of_other_depths(depth, teacher):
    with pytest.raises(ValueError, match=r"12 blocks and a student with 6 .*every_other or a list"):
        choose_layers("distilbert", depth, teacher)


@pytest.mark.parametrize("rule", ["first_k", "last_k", "uniform"])
@pytest.mark.parametrize("depth", [None, 0, 7])
def test_refuses_a_depth_outside_the_teacher(rule, depth):
    with pytest.raises(ValueError, match=rf"depth between 1 and 6 for layers='{rule}' but got {depth}"):
        choose_layers(rule, depth, 6)


def test_refuses_an_uneven_uniform_map():
    with pytest.raises(
        ValueError, match=r"divide the teacher's 12 blocks .* depth=5; use one of \[1, 2, 3, 4, 6, 12\]"
    ):
        choose_layers("uniform", 5, 12)


@pytest.mark.parametrize("layers", [[], [0, 6], [-1, 2], [2, 1], [1, 1]])
def test_refuses_a_list_that_is_no_subset(layers):
    with pytest.raises(ValueError, match=r"ascending list of 0-based blocks from 0 to 5 .* layers=\["):
        choose_layers(layers, None, 6)


@pytest.mark.parametrize("layers", ["every_other", [0, 2]])
def test_refuses_a_depth_that_contradicts_the_layers(layers):
    with pytest.raises(ValueError, match=r"Expected depth \d for layers=.* but got depth=4"):
        choose_layers(layers, 4, 6)
