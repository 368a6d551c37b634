"""Allocation against exhaustive search; bytes against what is stored; errors against what rounding does."""

import itertools
import random

import pytest
import torch

from lit_compress.quantization import Scheme
from lit_compress.quantization.fitted import fitted_grid
from lit_compress.quantization.grid import dequantize, grid_of, quantize, range_of, rows_of
from lit_compress.quantization.mixed.allocation import Option, allocate, rounding_error, stored_bytes
from lit_compress.quantization.packed import apply_packed_weights, packed_of
from tests.tiny import tiny_bert

SCHEMES = [
    Scheme(2, False, "rows", 4),
    Scheme(3, True, "rows", 8),
    Scheme(4, True, "group", 8),
    Scheme(3, False, "channel"),
    Scheme(8, False, "tensor"),
]


def choices(draw, convex=True):
    size, weight = draw.randint(5, 60), draw.random() * 10 ** draw.randint(-3, 3)
    found = []
    for bits in (2, 3, 4):
        loss = weight / 4**bits if convex else draw.random()
        found.append(Option(bits, size * bits + draw.randint(0, 5), loss))
    return found


def cost(found):
    return sum(option.bytes for option in found), sum(option.loss for option in found)


@pytest.mark.parametrize("convex", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_no_other_choice_that_fits_is_better(seed, convex):
    draw = random.Random(seed)
    options = {f"block {index}": choices(draw, convex) for index in range(6)}
    everything = [cost(found) for found in itertools.product(*options.values())]
    least = min(size for size, _ in everything)
    for budget in (least, least + 7, int(1.3 * least), int(1.7 * least), 10 * least):
        found = allocate(options, budget)
        size, loss = cost(found.values())
        assert list(found) == list(options) and size <= budget
        assert loss == pytest.approx(min(one for other, one in everything if other <= budget), rel=1e-12)


def test_more_parts_than_could_be_tried():
    draw = random.Random(0)
    options = {str(index): choices(draw) for index in range(120)}
    found = allocate(options, 12_000)
    size, loss = cost(found.values())
    assert 11_990 < size <= 12_000
    # No exchange of two widths that fits is better.
    for one, other in itertools.combinations(options, 2):
        rest = size - found[one].bytes - found[other].bytes, loss - found[one].loss - found[other].loss
        for pair in itertools.product(options[one], options[other]):
            assert rest[0] + cost(pair)[0] > 12_000 or rest[1] + cost(pair)[1] >= loss * (1 - 1e-9)


def test_equal_blocks_get_bits_in_the_order_of_their_sensitivity():
    options = {
        name: [Option(bits, 100 * bits, omega / 4**bits) for bits in (2, 3, 4)]
        for name, omega in (("flat", 1.0), ("steep", 30.0), ("middle", 5.0))
    }
    found = {name: option.bits for name, option in allocate(options, 900).items()}
    assert found == {"flat": 2, "middle": 3, "steep": 4}


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_bytes_are_those_of_the_buffers(scheme):
    model = tiny_bert(layers=1)
    name = "bert.encoder.layer.0.output.dense.weight"
    shape = model.get_parameter(name).shape
    apply_packed_weights(model, {name: vars(scheme)})
    ((_, packed),) = packed_of(model)
    assert stored_bytes(shape, scheme) == sum(buffer.nbytes for buffer in packed.buffers())


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_fitted_grids_lose_no_more_than_covering_ones(scheme):
    weight = torch.randn(16, 64, generator=torch.Generator().manual_seed(0))
    rows = rows_of(weight, scheme)

    def error(grid):
        return (dequantize(quantize(rows, grid, scheme), grid) - rows).square().sum(1, keepdim=True)

    grid, least = fitted_grid(rows, scheme)
    torch.testing.assert_close(error(grid), least, rtol=1e-6, atol=0)
    assert bool((least <= error(grid_of(*range_of(rows, scheme), scheme))).all())
    assert rounding_error(weight, scheme) == pytest.approx(float(least.sum()), rel=1e-6)


def test_three_values_for_a_normal_distribution_are_where_theory_has_them():
    # The best symmetric grid of three values has the step 1.224 and the error 0.1902 (Lloyd, uniform).
    rows = torch.randn(1, 200_000, generator=torch.Generator().manual_seed(0))
    grid, least = fitted_grid(rows, Scheme(2))
    assert float(grid.scale) == pytest.approx(1.224, abs=0.15)
    assert float(least) / 200_000 == pytest.approx(0.19, abs=0.005)


def test_refuses_a_budget_that_nothing_fits_in():
    options = {"a": [Option(2, 100, 1.0), Option(4, 200, 0.5)], "b": [Option(2, 50, 1.0)]}
    with pytest.raises(ValueError, match="Expected a budget of at least 150 bytes .* but got 149; raise it"):
        allocate(options, 149)


def test_refuses_weights_that_are_no_numbers():
    with pytest.raises(ValueError, match="Expected finite weights but there are infinities or NaN"):
        rounding_error(torch.tensor([[1.0, float("nan")]]), Scheme(2))
