"""GPTQ against a plain loop over the published update, exhaustive search, and rounding to the nearest."""

import itertools

import pytest
import torch

from lit_compress.pruning.sparsegpt import sparsegpt
from lit_compress.quantization import Scheme
from lit_compress.quantization.gptq import gptq
from lit_compress.quantization.grid import Grid, dequantize, grid_of, quantize, range_of, rows_of
from lit_compress.quantization.hessian import InputStatistics, inverse_factor

SCHEMES = [
    Scheme(4, True, "channel"),
    Scheme(3, False, "channel"),
    Scheme(4, True, "group", 8),
    Scheme(2, False, "group", 4),
    Scheme(4, True, "tensor"),
    Scheme(3, False, "rows", 2),
]


def problem(outputs=6, inputs=24, tokens=200, seed=0):
    """Weights, and inputs that depend on each other."""
    draw = torch.Generator().manual_seed(seed)
    mix = torch.randn(inputs, inputs, generator=draw, dtype=torch.float64)
    read = torch.randn(tokens, inputs, generator=draw, dtype=torch.float64) @ mix
    return torch.randn(outputs, inputs, generator=draw, dtype=torch.float64), read


def hessian_of(read):
    return 2 * read.t() @ read / len(read)


def nearest(weight, scheme):
    rows = rows_of(weight, scheme)
    grid = grid_of(*range_of(rows.float(), scheme), scheme)
    return dequantize(quantize(rows.float(), grid, scheme), grid).reshape(weight.shape).double()


def error(found, weight, read):
    return float((read @ (found.double() - weight).t()).square().sum())


def test_statistics_are_those_of_all_tokens_that_count():
    _, read = problem()
    statistics = InputStatistics(24)
    mask = torch.rand(10, 20, generator=torch.Generator().manual_seed(1)) < 0.7
    for rows, keep in zip(read.view(10, 20, 24), mask, strict=True):
        statistics.add(rows, keep)
    kept = read[mask.view(-1)]
    torch.testing.assert_close(statistics.hessian(), hessian_of(kept), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(statistics.norms(), kept.norm(dim=0), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_the_update_is_the_published_one(scheme, ordered):
    """Optimal brain surgeon, column by column: the inverse Hessian of what is left, by elimination."""
    weight, read = problem()
    hessian = hessian_of(read)
    found, grid = gptq(weight, hessian, scheme, damp=0.01, ordered=ordered)
    damped = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(24, dtype=torch.float64)
    inverse, work = torch.linalg.inv(damped), weight.clone()
    wanted = torch.zeros_like(weight)
    groups = len(grid.scale) // 6 or 1
    order = hessian.diagonal().argsort(descending=True).tolist() if ordered else range(24)
    for column in order:
        outputs = torch.arange(6)
        rows = outputs * groups + column // (24 // groups)
        if len(grid.scale) < 6:  # groups of outputs
            rows = outputs // (6 // len(grid.scale))
        own = Grid(grid.scale[rows].double(), grid.zero_point[rows].double())
        wanted[:, column] = dequantize(quantize(work[:, column, None], own, scheme), own)[:, 0]
        step = (work[:, column] - wanted[:, column]) / inverse[column, column]
        work -= step[:, None] * inverse[column]
        inverse -= torch.outer(inverse[:, column], inverse[column]) / inverse[column, column]
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_independent_inputs_leave_nothing_to_make_up_with(scheme):
    weight, _ = problem()
    hessian = torch.diag(
        torch.rand(24, generator=torch.Generator().manual_seed(3), dtype=torch.float64) + 0.5
    )
    found, _ = gptq(weight, hessian, scheme)
    torch.testing.assert_close(found, nearest(weight, scheme), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_outputs_are_nearer_than_with_the_nearest_weights(scheme, ordered):
    better = 0
    for seed in range(5):
        weight, read = problem(seed=seed, inputs=160, tokens=600)  # more than one block of columns
        found, _ = gptq(weight, hessian_of(read), scheme, ordered=ordered)
        better += error(found, weight, read) < 0.8 * error(nearest(weight, scheme), weight, read)
    assert better == 5


def test_not_far_from_the_best_of_all_roundings():
    scheme = Scheme(2, True, "tensor")
    ratios = []
    for seed in range(10):
        weight, read = problem(outputs=1, inputs=6, seed=seed)
        found, grid = gptq(weight, hessian_of(read), scheme, damp=1e-6)
        choices = [float(grid.scale) * number for number in (-1, 0, 1)]
        every = torch.tensor(list(itertools.product(choices, repeat=6)), dtype=torch.float64)
        best = min(error(row[None], weight, read) for row in every)
        ratios.append(error(found, weight, read) / best)
        assert ratios[-1] > 1 - 1e-6
    assert sorted(ratios)[5] < 2


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_values_lie_on_the_grid_bit_by_bit(scheme):
    weight, read = problem()
    found, grid = gptq(weight.float(), hessian_of(read), scheme)
    rows = rows_of(found, scheme)
    assert torch.equal(dequantize(quantize(rows, grid, scheme), grid), rows)


def test_inputs_that_are_always_zero_get_no_weight():
    weight, read = problem()
    read[:, 5] = 0
    found, _ = gptq(weight, hessian_of(read), Scheme(4))
    assert bool((found[:, 5] == 0).all()) and bool(found.isfinite().all())


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_what_was_pruned_stays_zero_and_is_made_up_for(scheme):
    weight, read = problem(inputs=160, tokens=600)
    pruned = sparsegpt(weight, hessian_of(read), pattern=(2, 4))
    found, _ = gptq(pruned, hessian_of(read), scheme)
    assert bool((found[pruned == 0] == 0).all())
    assert error(found, pruned, read) < error(nearest(pruned, scheme), pruned, read)
    assert bool((nearest(pruned, scheme)[pruned == 0] == 0).all())


def test_refuses_what_cannot_be_calibrated_with():
    with pytest.raises(ValueError, match="the layer has read none"):
        InputStatistics(4).hessian()
    statistics = InputStatistics(2)
    statistics.add(torch.tensor([[1.0, float("nan")]]))
    with pytest.raises(ValueError, match="Expected finite activations"):
        statistics.hessian()
    with pytest.raises(ValueError, match="cannot be inverted with damp=0"):
        inverse_factor(torch.ones(3, 3, dtype=torch.float64), 0.0)
