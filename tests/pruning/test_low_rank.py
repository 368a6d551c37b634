"""Factorised layers (FLOP): start from the SVD, counting, cutting, merging, model folders."""

import copy

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

import lit_compress
from lit_compress.models.checkpoint import save_folder
from lit_compress.models.low_rank import LowRankLinear
from lit_compress.models.transforms import restore, transforms_of
from lit_compress.pruning.counting import WeightCount
from lit_compress.pruning.fixed_gates import apply_fixed_gates
from lit_compress.pruning.gates import gates_of
from lit_compress.pruning.hard_concrete_gates import apply_hard_concrete_gates
from lit_compress.pruning.low_rank import apply_low_rank, default_ranks, factorize, merge
from lit_compress.pruning.masks import apply_weight_masks
from lit_compress.pruning.shrink import shrink
from lit_compress.quantization.inputs import apply_input_quantizers
from tests.families import family_batch, family_model
from tests.tiny import tiny_bert

KEY = "bert.encoder.layer.0.attention.self.key"
FAMILIES = ("bert", "distilbert", "albert", "vit", "llama", "gpt2", "whisper")


def projection(kind, inputs=12, outputs=20, bias=True):
    torch.manual_seed(0)
    made = Conv1D(outputs, inputs) if kind == "conv1d" else nn.Linear(inputs, outputs, bias=bias)
    nn.init.normal_(made.weight)
    return made.double()


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
def test_full_rank_reproduces_the_layer_and_merging_gives_it_back(kind):
    layer = projection(kind)
    factors = factorize(layer, 12)
    states = torch.randn(3, 5, 12, dtype=torch.float64)
    assert (
        factors.rank == 12
        and factors.reduce.weight.shape == (12, 12)
        and factors.expand.weight.shape == (20, 12)
    )
    assert torch.allclose(factors(states), layer(states), atol=1e-10, rtol=0)
    again = merge(factors)
    assert type(again) is type(layer)
    assert torch.allclose(again.weight, layer.weight, atol=1e-10, rtol=0)
    assert again.bias is layer.bias


def test_a_lower_rank_is_the_best_approximation():
    layer = projection("linear", bias=False)
    values = torch.linalg.svdvals(layer.weight)
    factors = factorize(layer, 7)
    # Eckart and Young: the error is the length of the singular values that were left out.
    error = torch.linalg.matrix_norm(factors.weight - layer.weight)
    assert error.item() == pytest.approx(values[7:].norm().item(), rel=1e-9)
    # Both factors share the scale.
    assert torch.allclose(factors.reduce.weight.norm(dim=1), factors.expand.weight.norm(dim=0))
    assert factors.bias is None


def test_ranks_of_flop():
    model = tiny_bert(layers=1, hidden=24)  # neurons: 48
    equal = default_ranks(model, "equal")
    assert {path.rpartition("layer.0.")[2]: rank for path, rank in equal.items()} == {
        "attention.self.query": 12,
        "attention.self.key": 12,
        "attention.self.value": 12,
        "attention.output.dense": 12,
        "intermediate.dense": 16,
        "output.dense": 16,
    }
    assert set(default_ranks(model).values()) == {24}
    with pytest.raises(ValueError, match="rank to be one of full, equal but got 'half'"):
        default_ranks(model, "half")


def low_rank(name="bert", rank="full", keep=0.3, seed=0, evaluation="expected"):
    """A factorised model of a family in float64 whose rank gates are open at random, in eval mode."""
    model = family_model(name, layers=2)
    apply_low_rank(model, default_ranks(model, rank))
    apply_hard_concrete_gates(model, ["rank"], {"rank": 0.0}, beta=1.0, evaluation=evaluation)
    model = model.double().eval()
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, gate in gates_of(model).pairs():
            gate.log_alpha.copy_(torch.where(torch.rand(gate.units, generator=draw) < keep, 3.0, -4.0))
    return model


def answer(model, name):
    with torch.no_grad():
        result = model(**family_batch(name))
    return result.logits


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("keep", [0.3, 0.8])
def test_folded_and_cut_is_masked(name, keep):
    model = low_rank(name, keep=keep)
    closed = sum(int((gate.decided() == 0).sum()) for _, gate in gates_of(model).pairs())
    assert closed > 10
    small = shrink(model)
    assert torch.allclose(answer(small, name), answer(model, name), atol=1e-10, rtol=0)
    layers = [module for module in small.modules() if isinstance(module, LowRankLinear)]
    if keep < 0.5:
        assert layers
    for layer in layers:  # what is left is cheaper than a matrix
        assert layer.rank * (layer.in_features + layer.out_features) < layer.in_features * layer.out_features
    assert not [module for module in small.modules() if hasattr(module, "parametrizations")]


def test_where_the_matrix_is_cheaper_it_is_one_again():
    small = shrink(low_rank(keep=0.95))
    assert not [module for module in small.modules() if isinstance(module, LowRankLinear)]
    assert small.state_dict().keys() == family_model("bert", layers=2).state_dict().keys()
    assert transforms_of(small) == []


def test_expected_size_is_the_sum_over_ranks():
    model = low_rank(keep=0.5)
    gates = gates_of(model)
    count = WeightCount(model, gates.groups)
    open_ = gates.open_probability()
    expected = 0.0
    dense = 0
    for group, _ in gates.pairs():
        layer = model.get_submodule(group.name.removesuffix(".rank"))
        expected += float(open_[group.name].sum()) * (layer.in_features + layer.out_features)
        dense += layer.in_features * layer.out_features
    assert float(count.kept(open_)) == pytest.approx(expected, rel=1e-5)
    assert count.total == dense == WeightCount(family_model("bert", layers=2), []).total


@pytest.mark.parametrize("keep", [0.1, 0.3, 0.6])
def test_the_merged_count_is_that_of_the_shrunk_model(keep):
    model = low_rank(keep=keep)
    gates = gates_of(model)
    decided = {name: (gate != 0).float() for name, gate in gates.decided().items()}
    counted = float(WeightCount(model, gates.groups, merged=True).kept(decided))
    small = shrink(model)
    assert counted == WeightCount(small, []).stored
    rest = sum(p.numel() for p in small.parameters()) - WeightCount(small, []).stored
    full = family_model("bert", layers=2)
    assert rest == sum(p.numel() for p in full.parameters()) - WeightCount(full, []).stored


def test_one_rank_stays_of_a_closed_layer():
    model = low_rank(evaluation="threshold")
    with torch.no_grad():
        for _, gate in gates_of(model).pairs():
            gate.log_alpha.fill_(-4.6)
    small = shrink(model)
    ranks = {module.rank for module in small.modules() if isinstance(module, LowRankLinear)}
    assert ranks == {1}
    assert torch.allclose(answer(small, "bert"), answer(model, "bert"), atol=1e-10, rtol=0)


def test_no_random_number_is_drawn():
    state = torch.get_rng_state()
    model = tiny_bert(layers=1, hidden=16)
    before = torch.get_rng_state()
    apply_low_rank(model, default_ranks(model))
    assert torch.equal(before, torch.get_rng_state()) and torch.equal(state, before)


def test_restored_from_its_record_and_done_once():
    model = low_rank()
    twin = family_model("bert", layers=2)
    restore(twin, transforms_of(model))
    twin.double().load_state_dict(model.state_dict())
    assert torch.equal(answer(twin.eval(), "bert"), answer(model, "bert"))
    names = list(model.state_dict())
    restore(model, transforms_of(model))
    assert list(model.state_dict()) == names


def test_a_model_folder_of_low_rank_layers(tmp_path):
    small = shrink(low_rank().float())
    assert [name for name, _ in transforms_of(small)] == ["low_rank"]
    save_folder(tmp_path / "x", small, None, {})
    again = lit_compress.load(tmp_path / "x")
    batch = family_batch("bert", dtype=torch.float32)
    assert torch.equal(again(**batch).logits, small(**batch).logits)


def test_heads_and_neurons_of_a_factorised_model_can_still_be_cut():
    model = shrink(low_rank())
    structures = ["head", "neuron"]
    apply_hard_concrete_gates(model, structures, dict.fromkeys(structures, 2.0))
    with torch.no_grad():
        for group, gate in gates_of(model).pairs():
            gate.log_alpha[: group.units // 2] = -4.0
            if group.layer == 0 and group.structure == "head":
                gate.log_alpha.fill_(-4.0)
    expected = answer(model.double().eval(), "bert")
    small = shrink(model)
    assert torch.allclose(answer(small, "bert"), expected, atol=1e-10, rtol=0)
    assert sum(p.numel() for p in small.parameters()) < 0.9 * sum(p.numel() for p in model.parameters())


def test_gradients_and_frozen_layers():
    layer = projection("linear").requires_grad_(False)
    assert not [p for p in factorize(layer, 4).parameters() if p.requires_grad]
    model = low_rank().train()
    model(**family_batch("bert")).logits.square().sum().backward()
    assert all(gate.log_alpha.grad is not None for _, gate in gates_of(model).pairs())


@pytest.mark.parametrize("rank", [0, 13])
def test_refuses_an_impossible_rank(rank):
    with pytest.raises(ValueError, match="rank from 1 to 12"):
        factorize(projection("linear"), rank)


def test_refuses_to_factorise_twice():
    with pytest.raises(ValueError, match="not factorised yet"):
        factorize(factorize(projection("linear"), 3), 2)
    model = tiny_bert(layers=1, hidden=16)
    apply_low_rank(model, default_ranks(model, "equal"))
    with pytest.raises(ValueError, match="low_rank"):
        apply_low_rank(copy.deepcopy(model), default_ranks(tiny_bert(layers=1, hidden=16)))


@pytest.mark.parametrize(
    ("transform", "at"),
    [
        (lambda model: apply_fixed_gates(model, ["head"]), "query"),
        (lambda model: apply_fixed_gates(model, ["layer"]), "query"),
        (lambda model: apply_weight_masks(model, [KEY + ".weight"]), "key"),
        (
            lambda model: apply_input_quantizers(
                model, [KEY], {"symmetric": False, "per": "tensor"}, "min_max"
            ),
            "key",
        ),
    ],
    ids=["gates", "gates that lie on no matrix", "masks", "rounded inputs"],
)
def test_refuses_layers_that_have_something_on_them(transform, at):
    model = tiny_bert(layers=1, hidden=16)
    transform(model)
    before = transforms_of(model)
    with pytest.raises(
        ValueError, match=rf"self\.{at} has gates, masks, rounding .* call apply_low_rank before"
    ):
        apply_low_rank(model, default_ranks(model, "equal"))
    assert transforms_of(model) == before


@pytest.mark.parametrize("structure", ["head", "layer", "rank"])
def test_what_comes_after_the_factors_acts_on_them(structure):
    model = family_model("bert").eval()
    ranks = default_ranks(model, "equal")
    apply_low_rank(model, ranks)
    apply_fixed_gates(model, [structure])
    apply_low_rank(model, ranks)  # as every later stage of a fit does: nothing happens
    before = answer(model, "bert")
    for _, gate in gates_of(model).pairs():
        gate.open.zero_()
    assert not torch.allclose(answer(model, "bert"), before, atol=0.1)


def test_refuses_an_unknown_start_and_a_model_without_factors():
    with pytest.raises(ValueError, match="svd or zeros but got 'random'"):
        factorize(projection("linear"), 3, "random")
    with pytest.raises(ValueError, match="structure rank .* none is left"):
        apply_hard_concrete_gates(tiny_bert(layers=1, hidden=16), ["rank"], {"rank": 0.0})
