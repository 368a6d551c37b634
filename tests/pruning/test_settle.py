"""Deciding gates for good, and the multipliers that bring them there."""

from itertools import pairwise

import pytest
import torch

from lit_compress.pruning.counting import WeightCount
from lit_compress.pruning.gates import gates_of
from lit_compress.pruning.hard_concrete_gates import HardConcreteGate, apply_hard_concrete_gates
from lit_compress.pruning.lagrangian import Multipliers
from lit_compress.pruning.settle import settle
from lit_compress.pruning.shrink import shrink
from tests.tiny import tiny_bert

JOINT = ["head", "neuron", "attention", "feed_forward", "hidden"]


def model_with(structures, mean, seed=0, **options):
    model = tiny_bert(layers=3, hidden=64)
    apply_hard_concrete_gates(model, structures, dict.fromkeys(structures, 0.0), **options)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, gate in gates_of(model).pairs():
            gate.log_alpha.copy_((mean + 2 * torch.randn(gate.units, generator=draw)).clamp(-4.6, 4.6))
    return model


@pytest.mark.parametrize("evaluation", ["threshold", "expected"])
@pytest.mark.parametrize("structures", [["neuron", "head"], JOINT], ids=["pair", "joint"])
@pytest.mark.parametrize("mean", [-4.0, 2.0], ids=["too_sparse", "too_dense"])
@pytest.mark.parametrize("asked", [0.35, 0.6])
def test_the_target_is_met_after_the_shrink(asked, mean, structures, evaluation):
    model = model_with(structures, mean, evaluation=evaluation)
    gates = gates_of(model)
    count = WeightCount(model, gates.groups)
    before = float(count.removed({name: (gate != 0).float() for name, gate in gates.decided().items()}))
    assert before < asked if mean > 0 else before > asked
    missing = settle(gates, gates.groups, count, asked)
    small = shrink(model)
    measured = 1 - WeightCount(small, []).total / count.total
    assert abs(measured - asked) < 0.005
    assert asked - measured == pytest.approx(missing, abs=1e-6)


def test_units_go_in_the_order_of_their_locations():
    model = model_with(["neuron"], 2.0)
    gates = gates_of(model)
    settle(gates, gates.groups, WeightCount(model, gates.groups), 0.4)
    kept = [gate.log_alpha[gate.settled > 0] for _, gate in gates.pairs()]
    gone = [gate.log_alpha[gate.settled == 0] for _, gate in gates.pairs()]
    assert torch.cat(gone).max() < torch.cat(kept).min()
    assert len(torch.cat(gone)) == pytest.approx(0.4 * count_share(model), abs=2)


def count_share(model):
    """Neurons per share of the encoder: a neuron has 2 x 64 of 3 x (4 x 64 x 64 + 2 x 64 x 128) weights."""
    return 3 * (4 * 64 * 64 + 2 * 64 * 128) / (2 * 64)


def test_what_is_opened_again_is_not_zero_and_the_rest_is_as_in_evaluation():
    model = model_with(["neuron"], -3.0)
    gates = gates_of(model)
    before = gates.decided()
    settle(gates, gates.groups, WeightCount(model, gates.groups), 0.1)
    opened = 0
    for group, gate in gates.pairs():
        was_open = before[group.name] > 0
        assert torch.equal(gate.settled[was_open], before[group.name][was_open])
        again = (gate.settled > 0) & ~was_open
        opened += int(again.sum())
        soft = torch.sigmoid(0.8 * 1.5 * gate.log_alpha[again])
        assert torch.allclose(gate.settled[again], soft, atol=1e-6)
    assert opened > 50


def test_gates_of_others_are_counted_but_not_touched():
    model = model_with(["neuron"], 2.0)
    apply_hard_concrete_gates(model, ["head"], {"head": 0.0}, part="other")
    gates = gates_of(model)
    own = [group for group in gates.groups if group.structure == "neuron"]
    heads = [gate for group, gate in gates.pairs() if group.structure == "head"]
    with torch.no_grad():
        heads[0].log_alpha.fill_(-4.0)  # all heads of a layer are gone: 4 x 64 x 64 weights
    count = WeightCount(model, gates.groups)
    settle(gates, own, count, 0.4)
    now = {name: (gate != 0).float() for name, gate in gates.decided().items()}
    assert float(count.removed(now)) == pytest.approx(0.4, abs=0.003)
    assert all((gate.settled < 0).all() for gate in heads)


def test_without_a_target_evaluation_decides():
    model = model_with(["neuron"], 0.0)
    gates = gates_of(model)
    before = gates.decided()
    assert settle(gates, gates.groups) == 0.0
    assert all(torch.equal(gate.settled, before[group.name]) for group, gate in gates.pairs())


def run_toy(target, steps=1200, lr=0.05, pull=0.0):
    """Gates with values from 0 to 1, of which the loss loses what is closed, under a constraint."""
    gate = HardConcreteGate(200, 2.0)
    gate.generator = torch.Generator().manual_seed(0)
    worth = torch.linspace(0, 1, 200)
    multipliers = Multipliers()
    optimizer = torch.optim.Adam(
        [
            {"params": [gate.log_alpha], "lr": lr},
            {"params": list(multipliers.parameters()), "lr": lr, "maximize": True},
        ]
    )
    history = []
    for _ in range(steps):
        expected = 1 - gate.open_probability().mean()
        loss = pull * (worth * (1 - gate.values())).mean() + multipliers(expected, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        gate.clamp_()
        history.append((expected.item(), multipliers.lambda_1.item(), multipliers.lambda_2.item()))
    return gate, history


def test_the_lagrangian_reaches_half():
    gate, history = run_toy(0.5, pull=1.0)
    tail = [expected for expected, _, _ in history[-100:]]
    assert sum(tail) / len(tail) == pytest.approx(0.5, abs=0.01)
    # And it is the worthless half that has gone.
    opened = gate.open_probability()
    assert opened[:80].mean() < 0.2 and opened[120:].mean() > 0.8


def test_the_signs_of_the_multipliers():
    _, history = run_toy(0.5, steps=30)
    below = [entry for entry in history if entry[0] < 0.5]
    assert len(below) > 10
    firsts, seconds = [e[1] for e in below], [e[2] for e in below]
    # Too little is removed: the first falls, so that removing lowers the loss; the second always grows.
    assert all(a > b for a, b in pairwise(firsts)) and firsts[-1] < 0
    assert all(a < b for a, b in pairwise(seconds)) and seconds[0] > 0
    multipliers = Multipliers()
    multipliers(torch.tensor(0.8), 0.5).backward()
    # Too much is removed: ascent along the gap makes the first positive.
    assert multipliers.lambda_1.grad.item() == pytest.approx(0.3)
    assert multipliers.lambda_2.grad.item() == pytest.approx(0.09)
