"""Exact pruning by magnitude, and the way back to saved weights."""

import doctest
from fractions import Fraction

import pytest
import torch
from torch import nn

from lit_compress.pruning import rewind as module
from lit_compress.pruning.rewind import (
    draw_anew,
    rewind,
    shuffled,
    smallest_removed,
    survivors_after,
    trained_weights,
)
from tests.tiny import tiny_bert


def test_the_example_of_the_documentation():
    assert doctest.testmod(module).attempted > 0
    assert doctest.testmod(module).failed == 0


def test_the_rate_counts_as_the_decimal_that_was_written():
    """In binary 0.07 * 100 is a little more than 7, and its ceiling would be 8."""
    assert survivors_after(100, 0.07) == 93
    assert survivors_after(35, 0.2) == 28
    for weights in range(1, 300):
        for rate in ("0.1", "0.2", "0.3", "0.7"):
            gone = weights - survivors_after(weights, float(rate))
            assert 0 <= gone - Fraction(rate) * weights < 1


def test_the_published_ladder():
    left, densities = 10**9, []
    for _ in range(6):
        left = survivors_after(left, 0.2)
        densities.append(round(left / 10**9, 3))
    assert densities == [0.8, 0.64, 0.512, 0.41, 0.328, 0.262]


def test_ties_go_in_order_and_exactly_so_many():
    weights = {"a": torch.tensor([[1.0, -1.0], [1.0, 2.0]]), "b": torch.tensor([[1.0, 0.5, -3.0]])}
    keeps = {name: torch.ones_like(tensor, dtype=torch.bool) for name, tensor in weights.items()}
    once = smallest_removed(weights, keeps, 0.4)  # 3 of 7: 0.5 and the first two ones
    assert once["a"].tolist() == [[False, False], [True, True]]
    assert once["b"].tolist() == [[True, False, True]]
    twice = smallest_removed(weights, once, 0.5)  # 2 of the 4 that are left
    assert twice["a"].tolist() == [[False, False], [False, True]]
    assert twice["b"].tolist() == [[False, False, True]]


def test_removed_weights_do_not_count_again():
    """Zeros of removed weights are the smallest of all; what survives is what is ranked."""
    weights = {"a": torch.tensor([[0.0, 0.0, 4.0, 3.0, 2.0, 1.0, 5.0]])}
    keeps = {"a": torch.tensor([[False, False, True, True, True, True, True]])}
    assert smallest_removed(weights, keeps, 0.4)["a"].tolist() == [
        [False, False, True, True, False, False, True]
    ]


def test_refuses_weights_that_are_no_numbers():
    weights = {"a": torch.tensor([[1.0, float("nan"), 2.0]])}
    with pytest.raises(ValueError, match="NaN"):
        smallest_removed(weights, {"a": torch.ones(1, 3, dtype=torch.bool)}, 0.9)


def test_shuffled_masks_keep_their_counts_and_every_place_is_as_likely():
    keep = torch.zeros(4, 5, dtype=torch.bool)
    keep[0] = True
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([shuffled({"a": keep}, generator)["a"] for _ in range(2000)])
    assert (drawn.flatten(1).sum(1) == 5).all()
    assert (drawn.float().mean(0) - 0.25).abs().max() < 0.05  # five standard errors of a share of 2000


def test_statistics_of_batch_norms_are_rewound_and_frozen_weights_are_not_saved():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(2))
    net(torch.randn(2, 3, 6, 6))
    net[0].requires_grad_(False)
    saved = trained_weights(net)
    assert not any(name.startswith("0.") for name in saved)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        net(torch.randn(2, 3, 6, 6)).square().sum().backward()
        optimizer.step()
    assert not torch.equal(net[1].running_mean, before["1.running_mean"])
    assert net[1].num_batches_tracked == 4
    rewind(net, saved)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_refuses_to_rewind_another_shape():
    net = nn.Linear(3, 2)
    saved = trained_weights(net)
    with pytest.raises(ValueError, match="weight is not there any more or has another shape"):
        rewind(nn.Linear(4, 2), saved)


def test_weights_drawn_anew_are_those_of_a_new_model_and_leave_the_global_generator():
    model, other = tiny_bert(layers=1), tiny_bert(layers=1, seed=3)
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    draw_anew(model, 3)
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_refuses_to_draw_other_sizes_than_the_configuration_says():
    model = tiny_bert(layers=1)
    model.classifier.weight = nn.Parameter(torch.zeros(2, 32))
    with pytest.raises(ValueError, match="classifier.weight has shape"):
        draw_anew(model, 0)
