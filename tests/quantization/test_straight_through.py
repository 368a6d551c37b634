"""Gradients through rounding, against what they are by hand, and against torch's operators."""

import math

import pytest
import torch

from lit_compress.quantization import Scheme
from lit_compress.quantization.grid import Grid, grid_of, range_of
from lit_compress.quantization.straight_through import fake_quantize, fake_quantize_learned, first_step


def test_values_and_gradients_by_hand():
    # A step of 0.5 and integers -1, 0, 1: what is rounded to 2 is cut off.
    scheme = Scheme(2, True, "channel")
    grid = Grid(torch.tensor([[0.5]]), torch.tensor([[0.0]]))
    rows = torch.tensor([[0.24, 0.26, -0.6, 0.76, -3.0, 0.0]], requires_grad=True)
    found = fake_quantize(rows, grid, scheme)
    assert found.tolist() == [[0.0, 0.5, -0.5, 0.5, -0.5, 0.0]]
    weight = torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    (found * weight).sum().backward()
    assert rows.grad.tolist() == [[1.0, 2.0, 3.0, 0.0, 0.0, 6.0]]


@pytest.mark.parametrize("bits", [4, 8])
def test_torch_has_the_same_values_and_gradients(bits):
    scheme = Scheme(bits, False, "channel")
    rows = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    # A range that is too narrow: a tenth of the values is cut off.
    grid = grid_of(*(0.6 * end for end in range_of(rows, scheme)), scheme)
    ours, theirs = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    first = fake_quantize(ours, grid, scheme)
    second = torch.fake_quantize_per_channel_affine(
        theirs, grid.scale[:, 0], grid.zero_point[:, 0].to(torch.int32), 0, scheme.lowest, scheme.highest
    )
    torch.testing.assert_close(first, second, rtol=1e-6, atol=1e-7)
    gradient = torch.randn(6, 50, generator=torch.Generator().manual_seed(1))
    first.backward(gradient)
    second.backward(gradient)
    assert torch.equal(ours.grad, theirs.grad) and 0.02 < float((ours.grad == 0).float().mean()) < 0.3


def test_the_gradient_of_a_learned_step_by_hand():
    scheme = Scheme(3, True, "channel")  # -3 … 3
    step = torch.tensor([[0.5]], requires_grad=True)
    rows = torch.tensor([[0.6, -1.1, 2.0, -9.0]], requires_grad=True)
    found = fake_quantize_learned(rows, step, scheme)
    assert found.tolist() == [[0.5, -1.0, 1.5, -1.5]]
    weight = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    (found * weight).sum().backward()
    # round(x/s) - x/s inside: 1 - 1.2 and -2 + 2.2; the ends, 3 and -3, outside; times 1 / sqrt(4 * 3).
    wanted = (1 * (1 - 1.2) + 2 * (-2 + 2.2) + 3 * 3 + 4 * -3) / math.sqrt(4 * 3)
    assert step.grad.item() == pytest.approx(wanted, rel=1e-6)
    assert rows.grad.tolist() == [[1.0, 2.0, 0.0, 0.0]]


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_gradient_of_a_learned_step_is_that_of_the_paper_s_graph(bits):
    scheme = Scheme(bits, True, "channel")
    rows = torch.randn(4, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gradient = torch.randn(4, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    start = first_step(rows, scheme)
    torch.testing.assert_close(start[0, 0], 2 * rows[0].abs().mean() / math.sqrt(scheme.highest))

    def paper(x, s):
        """Listings of the appendix of arXiv:1902.08153: gradients by detaching."""
        factor = 1 / math.sqrt(x.shape[1] * scheme.highest)
        scaled = s * factor
        s = (s - scaled).detach() + scaled
        clipped = (x / s).clamp(scheme.lowest, scheme.highest)
        rounded = (clipped.round() - clipped).detach() + clipped
        return rounded * s

    results = []
    for function in (paper, lambda x, s: fake_quantize_learned(x, s, scheme)):
        x, s = rows.clone().requires_grad_(), start.clone().requires_grad_()
        out = function(x, s)
        out.backward(gradient)
        results.append((out.detach(), x.grad, s.grad))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_half_precision_is_rounded_in_float32():
    scheme = Scheme(8, True, "tensor")
    rows = torch.randn(1, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    grid = grid_of(*range_of(rows.float(), scheme), scheme)
    found = fake_quantize(rows, grid, scheme)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, fake_quantize(rows.float(), grid, scheme).bfloat16())
