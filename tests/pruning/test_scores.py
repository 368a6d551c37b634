"""Scores against finite differences, hand computation and the curves of the papers."""

import math

import pytest
import torch

from lit_compress.pruning import Fisher, Frequency, Magnitude, Movement, Random, SoftMovement, Taylor
from lit_compress.pruning.gates import gates_of
from lit_compress.pruning.patterns import pattern_of
from lit_compress.pruning.sites import GateSite
from tests.tiny import tiny_batch, tiny_bert

UNITS = ("head", "neuron", "attention", "feed_forward", "layer", "hidden", "vocabulary")


def inputs(seed=0):
    batch = tiny_batch(seed=seed)
    batch.pop("example_id")
    return batch


def listening(structure, score, block=None):
    """A float64 model whose sites write their gradients into the kept numbers of a score."""
    model = tiny_bert(layers=2, hidden=16).double()
    pattern = pattern_of(structure, "global", block, [], [], None)
    pattern.apply(model)
    model.double()
    sites = pattern.sites(model)
    kept = score.start(sites)
    for site in sites:
        site.listen(kept.get(site.name))
    return model, sites, kept


def loss_with(model, site, unit, value):
    """The loss in float64 with one gate a little off 1."""
    gate = site.gate.open
    before = gate.clone()
    gate[unit] = value
    with torch.no_grad():
        loss = model(**inputs()).loss.item()
    gate.copy_(before)
    return loss


@pytest.mark.parametrize("structure", UNITS)
def test_taylor_is_the_change_of_the_loss_for_a_small_change_of_the_gate(structure):
    score = Taylor(decay=1.0)
    model, sites, kept = listening(structure, score)
    model(**inputs()).loss.backward()
    for site in sites:
        score.collect(kept[site.name], kept[site.name].grad)
    checked, epsilon = 0, 1e-5
    for site in sites:
        # The tokens of most rows of the vocabulary are not in the batch: the first units, and the ones that matter.
        for unit in {0, 1, *kept[site.name].detach().topk(min(3, site.open.numel())).indices.tolist()}:
            if unit >= site.open.numel():
                continue
            up, down = (loss_with(model, site, unit, 1 + sign * epsilon) for sign in (1, -1))
            slope = abs(up - down) / (2 * epsilon)
            assert score.values(site, kept[site.name])[unit].item() == pytest.approx(
                slope, rel=1e-4, abs=1e-8
            )
            checked += slope > 1e-6
    assert checked >= 2


def test_taylor_of_a_head_is_the_sum_over_its_gated_weights():
    score = Taylor(decay=1.0)
    model, sites, kept = listening("head", score)
    model(**inputs()).loss.backward()
    for site in sites:
        projection = model.get_submodule(site.group.gated[0].module)
        weight = projection.parametrizations.weight.original
        product = (weight * weight.grad).detach().view(16, 4, 4).sum((0, 2))  # 4 heads of width 4
        assert torch.allclose(kept[site.name].grad, product, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(("structure", "block"), [("weight", None), ("block", [4, 2]), ("head", None)])
def test_sums_over_the_steps_by_hand(structure, block):
    decay = 0.5
    found = {}
    for score in (Taylor(decay), Fisher(decay)):
        model, sites, kept = listening(structure, score, block)
        gradients = []
        for seed in range(3):
            model(**inputs(seed)).loss.backward()
            numbers = kept[sites[0].name]
            gradients.append(numbers.grad.clone())
            score.collect(numbers, numbers.grad)
            numbers.grad = None
        power = 1 if isinstance(score, Taylor) else 2
        expected = sum(decay ** (2 - t) * g.abs() ** power for t, g in enumerate(gradients))
        assert torch.allclose(score.values(sites[0], kept[sites[0].name]), expected, rtol=1e-12, atol=0)
        found[type(score)] = expected
    assert not torch.allclose(found[Taylor], found[Fisher])


def test_closed_units_are_still_scored():
    score = Taylor(decay=1.0)
    model, sites, kept = listening("neuron", score)
    sites[0].gate.open[3] = 0.0
    model(**inputs()).loss.backward()
    assert kept[sites[0].name].grad[3].abs() > 0


def test_magnitude_is_the_sum_of_squares_of_all_that_goes_with_a_unit():
    model, sites, _ = listening("neuron", Magnitude())
    first = model.bert.encoder.layer[0]
    rows, bias = first.intermediate.dense.weight, first.intermediate.dense.bias
    columns = first.output.dense.parametrizations.weight.original
    expected = rows.square().sum(1) + bias.square() + columns.square().sum(0)
    assert torch.allclose(Magnitude().values(sites[0], None), expected, rtol=1e-12)
    gates_of(model).of(sites[0].group).open[:] = 0.0
    assert torch.allclose(Magnitude().values(sites[0], None), expected, rtol=1e-12)


def test_random_scores_are_those_of_the_seed_and_leave_other_numbers_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    _, sites, _ = listening("head", one := Random(seed=3))
    _, others, _ = listening("head", other := Random(seed=3))
    _, thirds, _ = listening("head", third := Random(seed=4))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one.values(sites[0], None), other.values(others[0], None))
    assert not torch.equal(one.values(sites[0], None), third.values(thirds[0], None))
    assert not torch.equal(one.values(sites[0], None), one.values(sites[1], None))
    third.load(one.state())
    third.start(thirds)
    assert torch.equal(one.values(sites[1], None), third.values(thirds[1], None))


def test_frequency_counts_tokens():
    score = Frequency()
    _, sites, kept = listening("vocabulary", score)
    score.observe(kept, {"input_ids": torch.tensor([[5, 7, 7], [5, 7, 0]])}, lambda counts: counts)
    score.observe(kept, {"input_ids": torch.tensor([[9, 7, 0]])}, lambda counts: 2 * counts)
    counts = score.values(sites[0], kept["vocabulary"])
    assert {int(i): int(counts[i]) for i in counts.nonzero()} == {0: 3, 5: 2, 7: 5, 9: 2}


def test_frequency_is_for_the_vocabulary():
    _, sites, _ = listening("head", Frequency())
    with pytest.raises(ValueError, match="structure: vocabulary"):
        Frequency().check(sites)
    with pytest.raises(ValueError, match="input_ids"):
        Frequency().observe({}, {"pixel_values": 0}, lambda counts: counts)


# -- movement --------------------------------------------------------------------------------------


def test_scores_move_against_the_gradient_from_zero():
    score = Movement(lr=0.01)
    model, sites, kept = listening("weight", score)
    assert all(not numbers.any() for numbers in kept.values())
    optimizer = score.optimizer(kept)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0}
    model(**inputs()).loss.backward()
    gradient = kept[sites[0].name].grad.clone()
    optimizer.step()
    moved = gradient.abs() > 1e-5  # Adam's first step has the size of the learning rate
    assert torch.allclose(kept[sites[0].name][moved], -0.01 * gradient[moved].sign(), rtol=1e-2)


@pytest.mark.parametrize(("structure", "block"), [("weight", None), ("block", (4, 4)), ("neuron", None)])
def test_scores_that_start_from_magnitudes_rank_as_magnitudes_do_and_have_mean_one(structure, block):
    score = Movement(start_from="magnitude")
    _, sites, kept = listening(structure, score, block)
    for site in sites:
        scores, magnitude = kept[site.name].detach(), Magnitude().values(site, None).detach()
        assert torch.equal(scores.flatten().argsort(stable=True), magnitude.flatten().argsort(stable=True))
        assert scores.mean().item() == pytest.approx(1.0, rel=1e-5)
        assert kept[site.name].requires_grad and kept[site.name].is_leaf


def test_the_ranking_of_scores_that_start_from_zeros_does_not_depend_on_their_rate_the_other_does():
    rankings = {}
    for start in ("zeros", "magnitude"):
        for lr in (1e-3, 1e-1):
            score = Movement(lr=lr, start_from=start)
            model, sites, kept = listening("weight", score)
            optimizer = score.optimizer(kept)
            for seed in range(3):
                optimizer.zero_grad()
                model(**inputs(seed)).loss.backward()
                optimizer.step()
            rankings[start, lr] = kept[sites[0].name].detach().flatten().argsort(stable=True)
    assert (rankings["zeros", 1e-3] == rankings["zeros", 1e-1]).double().mean() > 0.9
    assert (rankings["magnitude", 1e-3] == rankings["magnitude", 1e-1]).double().mean() < 0.1


def test_soft_threshold_by_hand():
    score = SoftMovement(threshold=0.2, keep=0.01)
    scores = torch.linspace(-5, 5, 101)
    for position in (0.0, 0.25, 1.0):
        expected = [1 / (1 + math.exp(-float(s))) > 0.2 * position for s in scores]
        assert score.above(scores, 1, position).tolist() == expected


def test_soft_threshold_keeps_a_least_share():
    score = SoftMovement(keep=0.005)
    scores = torch.full((1000,), -50.0)
    scores[7] = -49.0
    kept = score.above(scores, 1, 1.0)
    assert int(kept.sum()) == 5
    assert kept[7]
    assert int(score.above(scores, 9, 1.0).sum()) == 9


def test_the_penalty_is_the_mean_over_matrices_and_grows_with_the_ramp():
    score = SoftMovement(penalty=400.0)
    kept = {
        "a": torch.tensor([0.0, math.log(3.0)], requires_grad=True),
        "b": torch.zeros(3, requires_grad=True),
    }
    # The means are (1/2 + 3/4) / 2 and 1/2.
    expected = 400.0 * 0.5 * (0.625 + 0.5) / 2
    penalty = score.regularization(kept, 0.5)
    assert penalty.item() == pytest.approx(expected, rel=1e-6)
    penalty.backward()
    assert kept["b"].grad.tolist() == pytest.approx([400 * 0.5 * 0.25 / 3 / 2] * 3)
    assert (kept["a"].grad > 0).all()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Taylor(decay=0.0), r"decay in \(0, 1\]"),
        (lambda: Fisher(decay=1.1), r"decay in \(0, 1\]"),
        (lambda: Movement(lr=0.0), "lr > 0"),
        (lambda: Movement(start_from="random"), "zeros or magnitude but got 'random'"),
        (lambda: SoftMovement(threshold=0.5), "between 0 and 0.5"),
        (lambda: SoftMovement(penalty=0.0), "take Movement"),
        (lambda: SoftMovement(keep=1.0), "share of each matrix"),
    ],
)
def test_refuses_bad_numbers(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_sites_name_their_places():
    _, sites, _ = listening("head", Magnitude())
    assert all(isinstance(site, GateSite) for site in sites)
    assert [site.name for site in sites] == [f"bert.encoder.layer.{i}.attention.self.head" for i in (0, 1)]
