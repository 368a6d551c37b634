import math

import pytest
import torch
from torch import nn

from lit_compress.modules import AdamW, WarmupConstant, WarmupCosine, WarmupLinear
from lit_compress.modules.optim import parameter_groups


def test_linear_schedule_by_hand():
    schedule = WarmupLinear(warmup=0.1)
    # 100 steps: 10 of warm-up, then 90 down to zero.
    assert schedule.multiplier(0, 100) == 0.0
    assert schedule.multiplier(5, 100) == 0.5
    assert schedule.multiplier(10, 100) == 1.0
    assert schedule.multiplier(55, 100) == pytest.approx(0.5)
    assert schedule.multiplier(100, 100) == 0.0


def test_cosine_and_constant_schedules_by_hand():
    assert WarmupCosine(warmup=0.0).multiplier(25, 100) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert WarmupConstant(warmup=0.2).multiplier(10, 100) == 0.5
    assert WarmupConstant(warmup=0.2).multiplier(99, 100) == 1.0


def test_restart_begins_a_second_warm_up():
    schedule = WarmupLinear(warmup=0.1, restart_at=[0.5])
    # Two segments of 50 steps with 5 of warm-up each.
    assert schedule.multiplier(49, 100) == pytest.approx(1 - 44 / 45)
    assert schedule.multiplier(50, 100) == 0.0
    assert schedule.multiplier(55, 100) == 1.0
    assert schedule.multiplier(100, 100) == 0.0


def test_groups_decay_matrices_only():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Embedding(5, 4))
    model[2].weight.requires_grad_(False)
    groups = parameter_groups(model.named_parameters(), lr=1e-3, weight_decay=0.1)
    assert [g["weight_decay"] for g in groups] == [0.1, 0.0]
    assert [p.shape for p in groups[0]["params"]] == [(4, 3)]
    assert len(groups[1]["params"]) == 3  # bias, LayerNorm weight, LayerNorm bias


def test_adamw_step_equals_the_formula():
    weight = nn.Parameter(torch.tensor([[1.0]], dtype=torch.float64))
    optimizer = AdamW(lr=0.1, weight_decay=0.5).build(parameter_groups([("w", weight)], 0.1, 0.5))
    weight.grad = torch.tensor([[2.0]], dtype=torch.float64)
    optimizer.step()
    # First step: the moments' bias corrections cancel, so the update is lr * g/|g| after decay by lr * wd.
    assert weight.item() == pytest.approx(1.0 * (1 - 0.1 * 0.5) - 0.1, abs=1e-7)


@pytest.mark.parametrize("warmup", [-0.1, 1.0])
def test_refuses_warmup_outside_the_fit(warmup):
    with pytest.raises(ValueError, match="warmup in \\[0, 1\\)"):
        WarmupLinear(warmup=warmup)


@pytest.mark.parametrize("restarts", [[0.5, 0.2], [1.5], [0.0]])
def test_refuses_bad_restarts(restarts):
    with pytest.raises(ValueError, match="increasing fractions between 0 and 1"):
        WarmupLinear(restart_at=restarts)


def test_refuses_a_learning_rate_that_is_not_positive():
    with pytest.raises(ValueError, match="lr > 0 but got 0"):
        AdamW(lr=0)


def test_refuses_negative_weight_decay():
    with pytest.raises(ValueError, match="weight_decay >= 0"):
        AdamW(weight_decay=-1.0)
