"""Golden check 7: the closed forms of the hard concrete distribution against samples."""

import math

import pytest
import torch

from lit_compress.pruning import deterministic_gates, probability_of_one, probability_open, sample_gates

LOCATIONS = (-4.0, -2.0, -0.5, 0.0, 1.0, 4.0)


@pytest.mark.parametrize("beta", [2 / 3, 1.0])
@pytest.mark.parametrize("location", LOCATIONS)
def test_closed_forms_equal_frequencies(location, beta):
    log_alpha = torch.full((200_000,), location)
    gates = sample_gates(log_alpha, beta, generator=torch.Generator().manual_seed(0))
    at = torch.tensor(location)
    assert abs((gates > 0).float().mean() - probability_open(at, beta)) < 0.004
    assert abs((gates == 1).float().mean() - probability_of_one(at, beta)) < 0.004


def test_open_probability_at_zero():
    assert probability_open(torch.tensor(0.0)).item() == pytest.approx(0.832, abs=5e-4)
    assert probability_open(torch.tensor(0.0), beta=1.0).item() == pytest.approx(0.917, abs=5e-4)


def test_evaluation_gates_by_hand():
    expected = [min(1, max(0, 1.2 / (1 + math.exp(-a)) - 0.1)) for a in LOCATIONS]
    assert deterministic_gates(torch.tensor(LOCATIONS)).tolist() == pytest.approx(expected, abs=1e-6)


def test_gradient_equals_finite_differences():
    log_alpha = torch.tensor([-1.0, 0.0, 0.5], dtype=torch.float64, requires_grad=True)

    def gates(a):
        return sample_gates(a, generator=torch.Generator().manual_seed(1))

    assert torch.autograd.gradcheck(gates, (log_alpha,))


def test_bfloat16_locations_are_sampled_in_float32():
    gates = sample_gates(torch.zeros(10, dtype=torch.bfloat16))
    assert gates.dtype == torch.float32


@pytest.mark.parametrize(("beta", "gamma", "zeta"), [(0.0, -0.1, 1.1), (0.5, 0.0, 1.1), (0.5, -0.1, 1.0)])
def test_refuses_a_distribution_without_exact_ends(beta, gamma, zeta):
    with pytest.raises(ValueError, match="beta > 0, gamma < 0 and zeta > 1"):
        sample_gates(torch.zeros(2), beta, gamma, zeta)
