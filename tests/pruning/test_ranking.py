"""Selection of the lowest scores: exact counts, whatever is equal."""

import pytest
import torch

from lit_compress.pruning.ranking import kth_lowest, lowest, share_to_count


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7])
def test_equal_scores_go_in_their_order(count):
    scores = torch.tensor([2.0, 1.0, 2.0, 2.0, 0.0, 2.0, 2.0])
    order = sorted(range(7), key=lambda index: (float(scores[index]), index))
    assert lowest(scores, count).nonzero().flatten().tolist() == sorted(order[:count])


@pytest.mark.parametrize("kind", ["normal", "heavy", "rounded", "constant", "sorted", "half zero"])
@pytest.mark.parametrize("share", [1e-5, 0.1, 0.5, 0.95, 1.0])
def test_of_many_numbers_as_sorting_says(kind, share):
    numbers = torch.randn(300_000, generator=torch.Generator().manual_seed(0))
    scores = {
        "normal": numbers,
        "heavy": numbers**9,
        "rounded": numbers.round(decimals=1),
        "constant": torch.ones_like(numbers),
        "sorted": numbers.sort().values,
        "half zero": numbers.relu(),
    }[kind]
    count = max(1, round(share * len(scores)))
    order = scores.sort(stable=True)
    assert kth_lowest(scores, count) == order.values[count - 1]
    expected = torch.zeros(len(scores), dtype=torch.bool)
    expected[order.indices[:count]] = True
    assert torch.equal(lowest(scores, count), expected)


def test_refuses_scores_that_are_not_numbers():
    with pytest.raises(ValueError, match="NaN"):
        lowest(torch.tensor([1.0, float("nan"), float("nan"), 0.0]), 3)


def test_a_share_of_units_is_rounded_not_truncated():
    # int(0.7 * 10) is 7 and int(0.57 * 100) is 56: binary fractions must not take a unit away.
    assert [share_to_count(s, n) for s, n in ((0.7, 10), (0.57, 100), (0.29, 100), (0.25, 2))] == [
        7,
        57,
        29,
        1,
    ]
