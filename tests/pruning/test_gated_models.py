"""A gated model is the same model: open gates change nothing, and nothing stays behind."""

import copy

import pytest
import torch

from lit_compress.models.anatomy import dissect
from lit_compress.pruning.counting import WeightCount, encoder_matrices, named_tensor
from lit_compress.pruning.fixed_gates import apply_fixed_gates
from lit_compress.pruning.gates import Gate, gates_of, install_gates, remove_gates
from lit_compress.pruning.groups import find_groups
from lit_compress.pruning.shrink import shrink
from tests.families import EVERY_FAMILY, family_batch, family_model
from tests.pruning.gating import close_at_random, fix, soften, structures_of

TEXTS = [name for name in EVERY_FAMILY if name not in ("vit", "deit")]
pytestmark = pytest.mark.usefixtures("exact_norms")


def run(model, name):
    return model(**family_batch(name)).logits


@pytest.mark.parametrize("name", EVERY_FAMILY)
def test_open_gates_change_nothing_and_leave_nothing(name):
    plain, gated = family_model(name), family_model(name)
    expected = run(plain, name)
    apply_fixed_gates(gated, structures_of(name))
    assert set(plain.state_dict()) != set(gated.state_dict())
    assert (run(gated, name) - expected).abs().max().item() < 1e-12
    remove_gates(gated)
    assert torch.equal(run(gated, name), expected)
    assert sorted(gated.state_dict()) == sorted(plain.state_dict())
    for key, tensor in plain.state_dict().items():
        assert torch.equal(gated.state_dict()[key], tensor), key
    assert {key for key, _ in gated.named_parameters()} == {key for key, _ in plain.named_parameters()}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in gated.modules())
    assert not any("forward" in vars(module) for module in gated.modules())


@pytest.mark.parametrize("name", EVERY_FAMILY)
def test_gates_are_in_the_state_dict_once_and_are_loaded(name):
    model, fresh = family_model(name), family_model(name, seed=1)
    gates = fix(model, structures_of(name))
    close_at_random(gates)
    state = model.state_dict()
    assert sum(key.endswith(".open") for key in state) == len(gates.groups)
    assert {key.split(".")[0] for key in state if key.endswith(".open")} == {"gates"}
    apply_fixed_gates(fresh, structures_of(name))
    fresh.load_state_dict(state)
    assert torch.equal(run(fresh, name), run(model, name))
    assert (run(family_model(name), name) - run(fresh, name)).abs().max() > 1e-3


@pytest.mark.parametrize("name", EVERY_FAMILY)
def test_learned_gates_are_parameters_of_the_model_once(name):
    model = family_model(name)
    structures = [structure for structure in structures_of(name) if structure != "layer"]
    gates = soften(model, structures)
    run(model.train(), name)
    strengths = [key for key, _ in model.named_parameters(remove_duplicate=False) if key.startswith("gates.")]
    assert len(strengths) == len(gates.groups)


@pytest.mark.parametrize("name", ["bert", "albert", "llama", "gpt2", "whisper"])
def test_deep_copies_are_independent(name):
    model = family_model(name)
    soften(model, [structure for structure in structures_of(name) if structure != "layer"])
    run(model.train(), name).sum().backward()  # leaves drawn gates with a graph behind
    model.eval()
    before = run(model, name)
    other = copy.deepcopy(model)
    assert torch.equal(run(other, name), before)
    for gate in gates_of(other).values():
        gate.strength.data.zero_()
        gate.strength.data[0] = 1.0
    assert (run(other, name) - before).abs().max() > 1e-3
    assert torch.equal(run(model, name), before)
    remove_gates(other)
    assert torch.equal(run(model, name), before)


@pytest.mark.parametrize("name", EVERY_FAMILY)
@pytest.mark.parametrize("seed", [0, 1])
def test_counted_weights_are_the_weights_of_the_shrunk_model(name, seed):
    model = family_model(name)
    gates = fix(model, structures_of(name))
    count = WeightCount(model, gates.groups)
    assert count.kept(gates.decided()).item() == count.total == _weights(family_model(name))
    close_at_random(gates, seed)
    kept = count.kept(gates.decided()).item()
    assert 0 < kept < count.total
    assert kept == pytest.approx(_weights(shrink(model)), rel=1e-6)


def _weights(model):
    return sum(named_tensor(model, key).numel() for key in encoder_matrices(model, dissect(model)))


@pytest.mark.parametrize("name", ["bert", "qwen3"])
def test_the_gradient_of_a_gate_is_the_finite_difference(name):
    model = family_model(name, layers=2)
    gates = soften(model, ["head", "neuron", "hidden"])
    logits = run(model, name)
    weights = torch.randn(logits.shape, dtype=torch.float64)
    if logits.dim() == 3:  # torch gives the embedding of padding no gradient
        weights *= family_batch(name)["attention_mask"].unsqueeze(-1)

    def loss():
        return (run(model, name) * weights).sum()

    loss().backward()
    for group in (gates.groups[0], gates.groups[1], gates.groups[-1]):
        strength = gates.of(group).strength
        for unit in (0, 1):
            if strength[unit] == 0:  # a norm over the open dimensions jumps where one opens
                continue
            step = torch.zeros_like(strength)
            step[unit] = 1e-6
            with torch.no_grad():
                strength += step
                above = loss()
                strength -= 2 * step
                below = loss()
                strength += step
            assert strength.grad[unit].item() == pytest.approx(
                (above - below).item() / 2e-6, rel=1e-5, abs=1e-7
            )


def test_the_gradient_of_a_shared_gate_is_the_sum_over_its_calls():
    """ALBERT with one group of weights against ALBERT with three groups of the same weights."""
    shared = family_model("albert", layers=3)
    config = copy.deepcopy(shared.config)
    config.num_hidden_groups = 3
    apart = type(shared)(config).double().eval()
    state = shared.state_dict()
    layer = "albert.encoder.albert_layer_groups."
    apart.load_state_dict(
        {
            key: state[f"{layer}0.{key[len(layer) + 2 :]}" if key.startswith(layer) else key]
            for key in apart.state_dict()
        }
    )
    gradients = []
    for model in (shared, apart):
        gates = install_gates(model, find_groups(model, ["head"]), lambda group: Strength(group.units))
        run(model, "albert").square().sum().backward()
        gradients.append([gates.of(group).strength.grad for group in gates.groups])
    (whole,), parts = gradients
    assert len(parts) == 3 and all(part.abs().min() > 1e-6 for part in parts)
    torch.testing.assert_close(whole, torch.stack(parts).sum(0), rtol=1e-10, atol=1e-12)


class Strength(Gate):
    """Learned gates that begin open."""

    def __init__(self, units):
        super().__init__(units)
        self.strength = torch.nn.Parameter(torch.ones(units, dtype=torch.float64))

    def values(self):
        return self.strength

    def decided(self):
        return self.strength


@pytest.mark.parametrize("name", TEXTS)
def test_closed_rows_are_zero_wherever_they_are_read(name):
    """An output layer that is tied to the embedding scores closed pieces with zero, as it does when it is shipped."""
    model, plain = family_model(name), family_model(name)
    gates = fix(model, ["vocabulary"])
    close_at_random(gates)
    closed = gates.decided()["vocabulary"] == 0
    embedding, output = plain.get_input_embeddings(), plain.get_output_embeddings()
    tied = output is not None and output.weight is embedding.weight
    assert tied == (name in ("qwen2", "qwen3", "gpt2", "whisper"))
    with torch.no_grad():
        embedding.weight[closed] = 0.0
    assert torch.equal(run(model, name), run(plain, name))
    if tied:
        assert not run(model, name)[..., closed].any()
    before, small = run(model, name), shrink(model)
    assert torch.equal(run(small, name), before)
    assert (small.get_output_embeddings() is not None) == (output is not None)
    if tied:
        assert small.get_output_embeddings().weight is small.get_input_embeddings().weight
