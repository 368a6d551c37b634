"""SparseGPT and Wanda against closed forms, exact counts, and each other."""

import pytest
import torch

from lit_compress.pruning.sparsegpt import sparsegpt, wanda
from tests.quantization.test_gptq import error, hessian_of, problem


def magnitude(weight, share):
    return wanda(weight, torch.ones(weight.shape[1], dtype=torch.float64), share)


def test_with_equal_norms_wanda_is_magnitude_row_by_row():
    weight, _ = problem()
    found = wanda(weight, torch.full((24,), 3.7, dtype=torch.float64), 0.5)
    for row, kept in zip(weight, found, strict=True):
        removed = set(row.abs().argsort()[:12].tolist())
        assert {place for place in range(24) if kept[place] == 0} == removed
        assert all(kept[place] == row[place] for place in range(24) if place not in removed)


def test_wanda_compares_size_times_norm_within_an_output():
    weight = torch.tensor([[1.0, 2.0, 3.0, 4.0], [40.0, 3.0, 20.0, 10.0]])
    found = wanda(weight, torch.tensor([4.0, 1.0, 1.0, 0.1]), 0.5)
    assert found.tolist() == [[1.0, 0.0, 3.0, 0.0], [40.0, 0.0, 20.0, 0.0]]


@pytest.mark.parametrize("method", ["sparsegpt", "wanda"])
@pytest.mark.parametrize("pattern", [(2, 4), (4, 8), (1, 4), (0, 2), (4, 4)])
def test_patterns_have_exact_counts(method, pattern):
    weight, read = problem(inputs=160)
    found = (
        sparsegpt(weight, hessian_of(read), pattern=pattern)
        if method == "sparsegpt"
        else wanda(weight, read.norm(dim=0), pattern=pattern)
    )
    kept = (found.view(6, -1, pattern[1]) != 0).sum(-1)
    assert bool((kept == pattern[0]).all())


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_shares_have_exact_counts_also_of_equal_weights(share):
    weight, read = problem(inputs=128)
    for matrix in (weight, torch.ones_like(weight)):
        zeros = int((wanda(matrix, torch.ones(128, dtype=torch.float64), share) == 0).sum())
        assert zeros == 6 * round(share * 128)
    zeros = int((sparsegpt(weight, hessian_of(read), share) == 0).sum())
    assert zeros == round(share * weight.numel())


def test_one_removed_weight_has_the_closed_form_of_optimal_brain_surgeon():
    weight, read = problem(outputs=1)
    hessian = hessian_of(read)
    found = sparsegpt(weight, hessian, sparsity=1 / 24, damp=0.0)
    place = int((found == 0).nonzero()[0, 1])
    # Columns before the removed one are fixed already: the surgeon may move only the later ones.
    inverse = torch.linalg.inv(hessian[place:, place:])
    wanted = weight.clone()
    wanted[0, place:] -= weight[0, place] / inverse[0, 0] * inverse[0]
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)
    # It is the one whose removal costs least, by what was to the right of each.
    costs = [
        float(weight[0, column] ** 2 / torch.linalg.inv(hessian[column:, column:])[0, 0])
        for column in range(24)
    ]
    assert place == costs.index(min(costs))


def test_the_more_a_method_knows_the_nearer_are_the_outputs():
    for seed in range(5):
        weight, read = problem(outputs=32, inputs=256, tokens=800, seed=seed)
        read *= torch.rand(256, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3
        errors = [
            error(found, weight, read)
            for found in (
                sparsegpt(weight, hessian_of(read), 0.5),
                wanda(weight, read.norm(dim=0), 0.5),
                magnitude(weight, 0.5),
            )
        ]
        assert errors == sorted(errors) and errors[0] < 0.6 * errors[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "Expected a sparsity or a pattern n:m but got sparsity=None, pattern=None"),
        ({"sparsity": 0.5, "pattern": (2, 4)}, "but got sparsity=0.5"),
        ({"sparsity": 1.5}, "Expected a sparsity from 0 to 1"),
        ({"pattern": (3, 2)}, "n <= m and m among 2, 4, 8, 16, 32 but got 3:2"),
        ({"pattern": (2, 16)}, "inputs that are a multiple of 16 for 2:16 but got 24"),
    ],
)
def test_refuses_what_does_not_say_how_much_goes(arguments, message):
    weight, read = problem()
    with pytest.raises(ValueError, match=message):
        sparsegpt(weight, hessian_of(read), **arguments)
    with pytest.raises(ValueError, match=message):
        wanda(weight, read.norm(dim=0), **arguments)
