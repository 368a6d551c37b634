"""Learned gates: drawn once per forward pass, decided in evaluation, folded into the weights."""

import copy
import math

import pytest
import torch

from lit_compress.models.transforms import restore, transforms_of
from lit_compress.pruning.bake import bake
from lit_compress.pruning.counting import WeightCount
from lit_compress.pruning.gates import gates_of
from lit_compress.pruning.hard_concrete_gates import (
    LIMIT,
    HardConcreteGate,
    apply_hard_concrete_gates,
    multipliers_of,
    start_of,
)
from lit_compress.pruning.shrink import shrink
from tests.families import family_batch, family_model
from tests.tiny import tiny_batch, tiny_bert

JOINT = ["head", "neuron", "attention", "feed_forward", "hidden"]


def gated(structures=JOINT, start=0.0, model=None, **options):
    model = model or tiny_bert(layers=2, hidden=16)
    apply_hard_concrete_gates(model, structures, dict.fromkeys(structures, start), **options)
    return model


def inputs():
    return {key: value for key, value in tiny_batch().items() if key in ("input_ids", "attention_mask")}


def spread_out(model, seed=0):
    """Locations from surely closed to surely open."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for group, gate in gates_of(model).pairs():
            gate.log_alpha.copy_(torch.randn(gate.units, generator=draw) * 3)
            if group.units == 1:
                gate.log_alpha.fill_(1.0)
    return model


def test_the_published_rules_of_evaluation_by_hand():
    locations = torch.tensor([-3.0, -1.0, 0.5, 4.0])
    paper, code = HardConcreteGate(4), HardConcreteGate(4, beta=1.0, evaluation="expected")
    for gate in (paper, code):
        gate.log_alpha.data.copy_(locations)
    sigmoid = [1 / (1 + math.exp(-a)) for a in locations.tolist()]
    assert paper.decided().tolist() == pytest.approx(
        [min(1, max(0, 1.2 * s - 0.1)) for s in sigmoid], abs=1e-6
    )
    # P(open) with beta 1 is sigmoid(a + log 11): .354, .802, .948, .998, so 4 - 3.102 rounds to one that is closed.
    opened = sum(1 / (1 + math.exp(-a - math.log(11))) for a in locations.tolist())
    assert round(4 - opened) == 1
    expected = [0.0, *(1 / (1 + math.exp(-0.8 * a)) for a in locations.tolist()[1:])]
    assert code.decided().tolist() == pytest.approx(expected, abs=1e-6)


def test_the_start_is_the_location_of_the_paper():
    assert start_of(0.5) == 0.0
    assert start_of(0.05) == pytest.approx(math.log(19))
    assert start_of(1e-9) == LIMIT
    gate = HardConcreteGate(10_000, start_of(0.05), seed=1)
    assert gate.log_alpha.mean().item() == pytest.approx(math.log(19), abs=1e-3)
    assert gate.log_alpha.std().item() == pytest.approx(0.01, abs=1e-3)


def test_one_draw_per_forward_pass_of_training_and_none_in_evaluation():
    model = gated().train()
    generator = torch.Generator().manual_seed(1)
    for _, gate in gates_of(model).pairs():
        gate.generator = generator
    before = torch.get_rng_state()
    first = model(**inputs()).logits
    drawn = {group.name: gate.drawn for group, gate in gates_of(model).pairs()}
    # What is read between two passes is what the pass computed with.
    block = model.bert.encoder.layer[0]
    head = gates_of(model)["bert/encoder/layer/0/attention/self/head"].drawn
    part = gates_of(model)["bert/encoder/layer/0/attention/self/attention"].drawn
    dense = block.attention.output.dense
    original = dense.parametrizations.weight.original
    expected = original * head.repeat_interleave(4)[None] * part
    assert torch.allclose(dense.weight, expected, atol=1e-7)
    assert all(gate.drawn is drawn[group.name] for group, gate in gates_of(model).pairs())
    assert not torch.equal(first, model(**inputs()).logits)
    generator.manual_seed(1)
    assert torch.equal(first, model(**inputs()).logits)
    assert torch.equal(before, torch.get_rng_state())  # the global random state is left alone
    model.eval()
    assert torch.equal(model(**inputs()).logits, model(**inputs()).logits)


def test_parts_called_on_their_own_after_training_have_the_gates_of_evaluation():
    model = gated().eval()
    expected = model.bert(**inputs()).last_hidden_state
    model.train()(**inputs())
    assert torch.equal(model.eval().bert(**inputs()).last_hidden_state, expected)
    # And those of this moment: not the ones of the last evaluation.
    model(**inputs())
    spread_out(model)
    moved = model.bert(**inputs()).last_hidden_state
    assert not torch.equal(moved, expected)
    assert torch.equal(moved, copy.deepcopy(model).bert(**inputs()).last_hidden_state)


def test_an_encoder_and_generation_after_training_have_the_gates_of_evaluation():
    model = gated(["head", "neuron"], model=family_model("whisper")).eval()
    batch = family_batch("whisper")
    features = batch["input_features"]
    options = {
        "max_new_tokens": 3,
        "do_sample": False,
        "output_logits": True,
        "return_dict_in_generate": True,
    }
    expected = model.get_encoder()(features)[0], model.generate(features, **options)
    model.train()(**batch)
    model.eval()
    assert torch.equal(model.get_encoder()(features)[0], expected[0])
    again = model.generate(features, **options)
    assert all(map(torch.equal, again.logits, expected[1].logits))


def test_an_interrupted_evaluation_leaves_no_gates_behind():
    model = gated().eval()
    with pytest.raises(ValueError, match="input_ids"):
        model(attention_mask=inputs()["attention_mask"])
    assert all(gate.drawn is None for _, gate in gates_of(model).pairs())
    hooks = len(tiny_bert(layers=2, hidden=16)._forward_hooks)
    shrunk = shrink(model)
    assert len(shrunk._forward_hooks) == len(shrunk._forward_hooks_always_called) == hooks


def test_recomputed_activations_have_the_gates_that_were_drawn():
    grads = []
    for recompute in (False, True):
        model = gated(["head", "neuron"]).train()
        if recompute:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        for _, gate in gates_of(model).pairs():
            gate.generator = torch.Generator().manual_seed(1)
        torch.manual_seed(0)
        model(**inputs()).logits.square().sum().backward()
        grads.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    assert all(torch.allclose(grads[0][name], grads[1][name], atol=1e-7) for name in grads[0])


def test_gradients_reach_every_location():
    model = gated().train()
    model(**inputs()).logits.square().sum().backward()
    for group, gate in gates_of(model).pairs():
        assert gate.log_alpha.grad is not None and gate.log_alpha.grad.isfinite().all(), group.name
    assert sum(gate.log_alpha.grad.abs().sum() for _, gate in gates_of(model).pairs()) > 0


def test_a_copy_taken_in_training_draws_from_no_generator_of_the_fit():
    model = gated().train()
    generator = torch.Generator().manual_seed(1)
    for _, gate in gates_of(model).pairs():
        gate.generator = generator
    model(**inputs())
    state = generator.get_state()
    twin = copy.deepcopy(model)
    twin(**inputs())
    assert torch.equal(state, generator.get_state())
    gate = next(iter(gates_of(twin).pairs()))[1]
    assert gate.log_alpha is not next(iter(gates_of(model).pairs()))[1].log_alpha
    with torch.no_grad():
        gate.log_alpha.fill_(-4)  # the gate of the copy switches the copy
    assert not torch.equal(twin.eval()(**inputs()).logits, model.eval()(**inputs()).logits)


def test_settled_gates_are_the_same_in_training_and_have_no_gradient():
    model = gated(["neuron"]).train()
    for _, gate in gates_of(model).pairs():
        gate.settle((torch.arange(gate.units) % 2).float() * 0.5)
    logits = model(**inputs()).logits
    assert torch.allclose(logits, model.eval()(**inputs()).logits, atol=1e-6)
    logits.sum().backward()
    gate = next(iter(gates_of(model).pairs()))[1]
    assert gate.log_alpha.grad is None or gate.log_alpha.grad.abs().max() == 0
    assert gate.open_probability().tolist() == [0.0, 1.0] * (gate.units // 2)


@pytest.mark.parametrize("evaluation", ["threshold", "expected"])
def test_masked_is_shrunk_and_baked(evaluation):
    model = spread_out(gated(evaluation=evaluation).double()).eval()
    gates = gates_of(model).decided()
    assert any(((gate > 0) & (gate < 1)).any() for gate in gates.values())  # soft ones are folded
    assert sum(int((gate == 0).sum()) for gate in gates.values()) > 10
    expected = model(**inputs()).logits
    assert torch.allclose(shrink(model)(**inputs()).logits, expected, atol=1e-10, rtol=0)
    names = set(tiny_bert(layers=2, hidden=16).state_dict())
    no_hidden = spread_out(gated(JOINT[:-1], evaluation=evaluation).double()).eval()
    expected = no_hidden(**inputs()).logits
    bake(no_hidden)
    assert set(no_hidden.state_dict()) == names and not transforms_of(no_hidden)
    assert torch.allclose(no_hidden(**inputs()).logits, expected, atol=1e-10, rtol=0)


def test_at_least_one_hidden_dimension_stays():
    model = gated(["hidden"]).eval()
    gate = gates_of(model)["hidden"]
    with torch.no_grad():
        gate.log_alpha.fill_(-LIMIT)
        gate.log_alpha[3] += 0.01
    assert (gate.decided() != 0).nonzero().flatten().tolist() == [3]


def test_applied_twice_is_applied_once_and_restores_from_its_record():
    model = gated(multipliers=True)
    gated(model=model, multipliers=True)
    record = transforms_of(model)
    assert [name for name, _ in record] == ["hard_concrete_gates"]
    fresh = tiny_bert(layers=2, hidden=16)
    restore(fresh, record)
    assert fresh.state_dict().keys() == model.state_dict().keys()
    # The start is the same too: it does not depend on the global random state.
    assert all(torch.equal(fresh.state_dict()[key], value) for key, value in model.state_dict().items())
    assert multipliers_of(fresh, "l0").lambda_1.item() == 0.0


def test_two_sets_in_any_order():
    one = gated(["head"], part="a")
    gated(["neuron"], model=one, part="b", start=1.0)
    other = gated(["neuron"], part="b", start=1.0)
    gated(["head"], model=other, part="a")
    spread_out(one)
    other.load_state_dict(one.state_dict())
    assert torch.equal(one.eval()(**inputs()).logits, other.eval()(**inputs()).logits)


def test_expected_size_is_the_sum_of_the_products_by_hand():
    model = spread_out(gated())
    groups = gates_of(model).groups
    count = WeightCount(model, groups)
    ones = {group.name: torch.ones(group.units) for group in groups}
    assert float(count.kept(ones)) == count.total == 2 * (4 * 16 * 16 + 2 * 16 * 32)
    open_ = {name: value.double() for name, value in gates_of(model).open_probability().items()}
    size = 0.0
    for layer in range(2):
        at = f"bert.encoder.layer.{layer}"
        heads, part = open_[f"{at}.attention.self.head"], open_[f"{at}.attention.self.attention"]
        neurons, mlp = open_[f"{at}.intermediate.neuron"], open_[f"{at}.intermediate.feed_forward"]
        for hidden in open_["hidden"]:
            size += float((heads * part * hidden).sum()) * 4 * 4  # four matrices, four dimensions per head
            size += float((neurons * mlp * hidden).sum()) * 2
    assert float(count.kept(gates_of(model).open_probability())) == pytest.approx(size, rel=1e-5)


def test_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="evaluation to be one of threshold, expected but got 'soft'"):
        HardConcreteGate(3, evaluation="soft")
    with pytest.raises(ValueError, match="drop between 0 and 1"):
        start_of(1.0)
    with pytest.raises(ValueError, match="none for neuron"):
        apply_hard_concrete_gates(tiny_bert(layers=1, hidden=16), ["head", "neuron"], {"head": 0.0})
    with pytest.raises(ValueError, match="has some already"):
        gated(["head"], part="a", model=gated(["head"], part="b"))
