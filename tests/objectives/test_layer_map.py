"""The index tables of the papers, number by number."""

import pytest

from lit_compress.objectives.layer_map import (
    block_pairs,
    early_pairs,
    explicit,
    hidden_pairs,
    last,
    skip,
    uniform,
)


def blocks(pairs):
    return [teacher for _, teacher in pairs]


def states(pairs):
    return [teacher for _, teacher in hidden_pairs(pairs)]


@pytest.mark.parametrize(
    ("student", "teacher", "expected_blocks", "expected_states"),
    [
        (6, 12, [1, 3, 5, 7, 9], [2, 4, 6, 8, 10]),
        (6, 24, [3, 7, 11, 15, 19], [4, 8, 12, 16, 20]),
        (3, 24, [7, 15], [8, 16]),  # items 1 and 3 of the 6-from-24 cache
        (3, 12, [3, 7], [4, 8]),
    ],
)
def test_pkd_skip_table(student, teacher, expected_blocks, expected_states):
    assert blocks(skip(student, teacher)) == expected_blocks
    assert states(skip(student, teacher)) == expected_states
    assert [s for s, _ in skip(student, teacher)] == list(range(student - 1))


@pytest.mark.parametrize(
    ("student", "teacher", "expected_blocks", "expected_states"),
    [(6, 12, [6, 7, 8, 9, 10], [7, 8, 9, 10, 11]), (3, 12, [9, 10], [10, 11])],
)
def test_pkd_last_table(student, teacher, expected_blocks, expected_states):
    assert blocks(last(student, teacher)) == expected_blocks
    assert states(last(student, teacher)) == expected_states
    assert [s for s, _ in last(student, teacher)] == list(range(student - 1))


def test_tinybert_uniform_table():
    assert uniform(4, 12) == [(0, 2), (1, 5), (2, 8), (3, 11)]
    assert [(0, 0), *hidden_pairs(uniform(4, 12))] == [(0, 0), (1, 3), (2, 6), (3, 9), (4, 12)]
    assert blocks(uniform(6, 12)) == [1, 3, 5, 7, 9, 11]
    assert blocks(uniform(3, 6)) == [1, 3, 5]


def test_equal_depth_maps_every_block_to_itself():
    assert uniform(3, 3) == [(0, 0), (1, 1), (2, 2)]
    assert skip(3, 3) == last(3, 3) == [(0, 0), (1, 1)]


def test_names_resolve_to_their_functions():
    assert block_pairs("uniform", 4, 12) == [(0, 2), (1, 5), (2, 8), (3, 11)]
    assert block_pairs("skip", 6, 12) == [(0, 1), (1, 3), (2, 5), (3, 7), (4, 9)]
    assert block_pairs("last", 3, 12) == [(0, 9), (1, 10)]
    assert block_pairs([[1, 4], [0, 0]], 2, 5) == [(1, 4), (0, 0)]


def test_refuses_depths_that_do_not_divide():
    for named in (uniform, skip):
        with pytest.raises(ValueError, match=r"multiple of the student's .* got 6 and 4 layers; give"):
            named(4, 6)


def test_refuses_a_student_too_shallow_for_skip_and_last():
    for named in (skip, last):
        with pytest.raises(ValueError, match=r"at least 2 layers .* got 1; use 'uniform'"):
            named(1, 6)


def test_refuses_last_with_a_deeper_student():
    with pytest.raises(ValueError, match="at least 6 layers for layer_map 'last' but got 4"):
        last(6, 4)


def test_refuses_blocks_outside_either_model():
    with pytest.raises(ValueError, match=r"student blocks 0\.\.1 .*got \[2\]"):
        explicit([[2, 0]], 2, 6)
    with pytest.raises(ValueError, match=r"teacher blocks 0\.\.5 .*counted from 0\) but got \[6, -1\]"):
        explicit([[0, 6], [1, -1]], 2, 6)


@pytest.mark.parametrize("pairs", [[], [[1]], [1, 2], [[0, 1, 2]]])
def test_refuses_malformed_pairs(pairs):
    with pytest.raises(ValueError, match=r"list of \[student block, teacher block\] pairs but got"):
        early_pairs(pairs)


def test_refuses_a_repeated_pair():
    with pytest.raises(ValueError, match="every pair of layer_map once"):
        early_pairs([[0, 1], [0, 1]])


def test_refuses_an_unknown_name():
    for resolve in (early_pairs, lambda name: block_pairs(name, 2, 4)):
        with pytest.raises(ValueError, match=r"one of uniform, skip, last or a list .* got 'every_other'"):
            resolve("every_other")
