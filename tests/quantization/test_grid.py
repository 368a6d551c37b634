"""Linear quantization against its definition in exact fractions, and against torch's own operators."""

from fractions import Fraction
from itertools import pairwise

import pytest
import torch

from lit_compress.quantization import Scheme
from lit_compress.quantization.grid import (
    dequantize,
    from_rows,
    grid_of,
    per_channel,
    quantize,
    range_of,
    rows_of,
)

SCHEMES = [Scheme(bits, symmetric, "channel") for bits in (2, 3, 4, 6, 8) for symmetric in (True, False)]


def values(rows=5, columns=24, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_integers_are_those_of_the_definition(scheme):
    rows = values()
    grid = grid_of(*range_of(rows, scheme), scheme)
    found = quantize(rows, grid, scheme)
    assert int(found.min()) >= scheme.lowest and int(found.max()) <= scheme.highest
    for row, scale, zero, integers in zip(rows, grid.scale, grid.zero_point, found, strict=True):
        for value, integer in zip(row.tolist(), integers.tolist(), strict=True):
            # Python rounds halves to even, as ONNX and torch do.
            exact = round(Fraction(value / scale.item())) + int(zero.item())
            assert integer == min(max(exact, scheme.lowest), scheme.highest)


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_nothing_is_further_from_its_value_than_half_a_step(scheme):
    rows = values(columns=400)
    grid = grid_of(*range_of(rows, scheme), scheme)
    error = (dequantize(quantize(rows, grid, scheme), grid) - rows).abs()
    # A zero point is rounded too, which may move an end of the range by half a step more.
    assert bool((error <= grid.scale * (0.5 if scheme.symmetric else 1.0) * (1 + 1e-12)).all())
    assert bool((error.max(1).values > grid.scale[:, 0] * 0.4).all())


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_zero_stays_zero_whatever_the_range(scheme):
    rows = torch.cat([values(3) + 7.3, values(3) - 7.3, torch.zeros(1, 24, dtype=torch.float64)])
    rows[:, ::3] = 0
    grid = grid_of(*range_of(rows, scheme), scheme)
    found = dequantize(quantize(rows, grid, scheme), grid)
    assert bool((found[rows == 0] == 0).all()) and bool(found.isfinite().all())
    assert bool((found[-1] == 0).all())


def test_torch_has_the_same_numbers():
    rows = values().float()
    for scheme in (Scheme(8, True, "channel"), Scheme(8, False, "channel")):
        grid = grid_of(*range_of(rows, scheme), scheme)
        theirs = torch.fake_quantize_per_channel_affine(
            rows,
            grid.scale[:, 0],
            grid.zero_point[:, 0].to(torch.int32),
            0,
            scheme.lowest,
            scheme.highest,
        )
        torch.testing.assert_close(
            dequantize(quantize(rows, grid, scheme), grid), theirs, rtol=1e-6, atol=1e-7
        )


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(
    "scheme",
    [
        Scheme(per="tensor"),
        Scheme(per="channel"),
        Scheme(per="group", group_size=4),
        Scheme(per="rows", group_size=2),
    ],
    ids=str,
)
def test_rows_hold_what_shares_a_scale_and_come_back(scheme, axis):
    matrix = torch.arange(96.0).view(8, 12)
    rows = rows_of(matrix, scheme, axis)
    outputs = matrix if axis == 0 else matrix.t()
    first = {"tensor": matrix, "channel": outputs[0], "group": outputs[0, :4], "rows": outputs[:2]}[
        scheme.per
    ]
    assert sorted(rows[0].tolist()) == sorted(first.flatten().tolist())
    assert torch.equal(from_rows(rows, matrix, scheme, axis), matrix)


def test_error_falls_with_the_number_of_groups():
    # 4 bits, groups of outputs as in arXiv:1909.05840, of outputs that differ in size.
    matrix = torch.randn(768, 768, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrix *= torch.linspace(0.2, 2.0, 768, dtype=torch.float64)[:, None]
    errors = []
    for groups in (1, 12, 128, 768):
        scheme = Scheme(4, False, "rows", 768 // groups)
        rows = rows_of(matrix, scheme)
        assert len(rows) == groups
        grid = grid_of(*range_of(rows, scheme), scheme)
        found = dequantize(quantize(rows, grid, scheme), grid)
        errors.append(float((found - rows).norm() / rows.norm()))
    assert all(more < less for less, more in pairwise(errors)) and errors[0] > 1.3 * errors[-1]


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("symmetric", [True, False])
def test_groups_of_outputs_are_outputs_with_equal_scales(symmetric, axis):
    matrix = values(8, 12)
    matrix = matrix if axis == 0 else matrix.t().contiguous()
    scheme = Scheme(3, symmetric, "rows", 4)
    rows = rows_of(matrix, scheme, axis)
    grid = grid_of(*range_of(rows, scheme), scheme)
    wanted = from_rows(dequantize(quantize(rows, grid, scheme), grid), matrix, scheme, axis)
    wide, single = per_channel(grid, scheme)
    assert str(single) == f"{'' if symmetric else 'u'}int3 per channel" and wide.scale.shape == (8, 1)
    rows = rows_of(matrix, single, axis)
    found = from_rows(dequantize(quantize(rows, wide, single), wide), matrix, single, axis)
    assert torch.equal(found, wanted) and not torch.equal(found, matrix)


def test_no_group_of_outputs_has_two_heads():
    heads = torch.arange(4).repeat_interleave(8)[:, None].expand(32, 5)
    rows = rows_of(heads, Scheme(4, True, "rows", 4))
    assert bool((rows == rows[:, :1]).all()) and rows.shape == (8, 20)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bits": 1}, "Expected bits from 2 to 8 but got 1"),
        ({"bits": 9}, "Expected bits from 2 to 8 but got 9"),
        ({"per": "row"}, "Expected per to be one of tensor, rows, channel, group but got 'row'"),
        ({"per": "group"}, "per='group', group_size=None"),
        ({"group_size": 8}, "per='channel', group_size=8"),
        ({"per": "rows"}, "outputs with per: rows.* got per='rows', group_size=None"),
        ({"per": "group", "group_size": 0}, "Expected group_size >= 1 but got 0"),
    ],
)
def test_refuses_what_is_no_scheme(arguments, message):
    with pytest.raises(ValueError, match=message):
        Scheme(**arguments)


def test_refuses_groups_that_do_not_divide():
    with pytest.raises(ValueError, match="divides the 12 inputs of every output but got 5"):
        rows_of(torch.ones(8, 12), Scheme(per="group", group_size=5))
    with pytest.raises(ValueError, match="divides the 8 outputs but got 5; take a divisor"):
        rows_of(torch.ones(8, 12), Scheme(per="rows", group_size=5))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("size", [1e-7, 3e-6, 2e-5, 1e-3, 1.0, 100.0])
def test_scales_in_half_precision_cover_their_range(bits, size):
    scheme = Scheme(bits, False, "group", 8)
    rows = torch.cat([-values(64, 8).abs(), values(64, 8).abs(), values(64, 8)]).float() * size
    rows[:, 3] = 0
    grid = grid_of(*range_of(rows, scheme), scheme)
    assert torch.equal(grid.scale, grid.scale.half().float())
    assert bool(((grid.zero_point >= scheme.lowest) & (grid.zero_point <= scheme.highest)).all())
    found = dequantize(quantize(rows, grid, scheme), grid)
    assert bool((found[:, 3] == 0).all())
    assert bool(((found - rows).abs() <= grid.scale * (1 + 1e-5)).all())
