"""The physical shrink: again, rounded, to one shape, and what other tools made zero."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from lit_compress.models.anatomy import UniformShape
from lit_compress.models.ragged import build_model
from lit_compress.models.transforms import transforms_of
from lit_compress.pruning.fixed_gates import apply_fixed_gates
from lit_compress.pruning.gates import gates_of
from lit_compress.pruning.shape import shape_of
from lit_compress.pruning.shrink import shrink
from lit_compress.pruning.sizes import ModelSize, ShrinkReport
from tests.families import EVERY_FAMILY, family_batch, family_model

FFN = "bert.encoder.layer.{}.intermediate.neuron"
HEADS = "bert.encoder.layer.{}.attention.self.head"


def logits(model, family="bert"):
    with torch.no_grad():
        return model(**family_batch(family)).logits


def same(model, other, family="bert"):
    return bool((logits(model, family) - logits(other, family)).abs().max() <= 1e-10)


def bert(**closed):
    """A BERT of three blocks with 4 heads and 20 neurons; ``closed`` names the units to close, by structure."""
    model = family_model("bert")
    apply_fixed_gates(model, list(closed))
    for group, gate in gates_of(model).pairs():
        units = closed[group.structure]
        gate.open[units[group.layer] if isinstance(units, dict) and group.layer is not None else units] = 0
    return model


# -- again -----------------------------------------------------------------------------------------


def test_a_second_shrink_records_units_of_the_full_model():
    once = shrink(bert(neuron={0: [0, 1], 1: [3], 2: []}))
    layers = once.bert.encoder.layer
    layers[0].output.dense.weight.data[:, 0] = 0  # neuron 2 of the full model
    layers[2].output.dense.weight.data[:, 7] = 0
    twice = shrink(once)
    units = shape_of(twice)["units"]
    assert units[FFN.format(0)] == list(range(3, 20))
    assert units[FFN.format(1)] == [n for n in range(20) if n != 3]
    assert units[FFN.format(2)] == [n for n in range(20) if n != 7]
    assert same(once, twice)
    assert shape_of(once)["units"].keys() == {FFN.format(0), FFN.format(1)}  # not changed


def test_what_is_recorded_is_renumbered_when_layers_go():
    once = shrink(bert(neuron={0: [0], 1: [1], 2: [2]}, head={0: [0], 1: [], 2: [2]}))
    apply_fixed_gates(once, ["layer", "hidden"])
    for group, gate in gates_of(once).pairs():
        if group.layer == 1:
            gate.open.zero_()
        if group.structure == "hidden":
            gate.open[[0, 5]] = 0
    twice = shrink(once)
    shape = shape_of(twice)
    assert shape["units"] == {
        HEADS.format(0): [1, 2, 3],
        FFN.format(0): list(range(1, 20)),
        HEADS.format(1): [0, 1, 3],
        FFN.format(1): [n for n in range(20) if n != 2],
        "hidden": [n for n in range(24) if n not in (0, 5)],
    }
    assert shape["config"] == {"hidden_size": 24}
    assert same(once, twice)
    rebuilt = build_model(type(twice), twice.config, transforms_of(twice), "this test").double()
    rebuilt.load_state_dict(twice.state_dict())
    assert torch.equal(logits(rebuilt), logits(twice))


def test_shrinking_twice_changes_nothing():
    once = shrink(
        bert(neuron={0: range(20), 1: [3], 2: []}, head={0: [0], 1: range(4), 2: []}, hidden=[1, 2])
    )
    twice = shrink(once)
    assert transforms_of(once) == transforms_of(twice)
    assert torch.equal(logits(once), logits(twice))


@pytest.mark.parametrize(
    ("round_to", "left"), [(1, [7, 20, 0]), (8, [8, 20, 0]), (6, [12, 20, 0]), (100, [20, 20, 0])]
)
def test_neurons_are_rounded_up(round_to, left):
    model = bert(neuron={0: range(13), 1: [], 2: range(20)})
    small = shrink(model, round_to=round_to)
    assert list(ModelSize.of(small).neurons) == left
    assert same(model, small)
    assert set(range(13, 20)) <= set(shape_of(small)["units"].get(FFN.format(0), range(20)))


# -- zeros of other tools --------------------------------------------------------------------------


def test_columns_that_torch_pruned_are_removed():
    model = family_model("bert")
    for block in model.bert.encoder.layer:
        prune.ln_structured(block.output.dense, "weight", amount=6, n=2, dim=1)
        prune.remove(block.output.dense, "weight")
    small = shrink(model)
    assert ModelSize.of(small).neurons == (14, 14, 14)
    assert same(model, small)


@pytest.mark.parametrize(("activation", "left"), [("gelu", 18), ("relu", 18), ("sigmoid", 20)])
def test_neurons_without_inputs_go_where_the_activation_keeps_zero(activation, left):
    model = family_model("bert")
    model.config.hidden_act = activation
    block = model.bert.encoder.layer[1]
    block.intermediate.intermediate_act_fn = {"gelu": nn.GELU(), "relu": nn.ReLU(), "sigmoid": nn.Sigmoid()}[
        activation
    ]
    inside = block.intermediate.dense
    inside.weight.data[[3, 4, 5]] = 0
    inside.bias.data[[3, 4]] = 0  # neuron 5 still has its bias
    small = shrink(model)
    assert ModelSize.of(small).neurons == (20, left, 20)
    assert same(model, small)


@pytest.mark.parametrize("part", ["gate_proj", "up_proj"])
def test_a_gated_neuron_needs_both_factors(part):
    model = family_model("llama")
    layer = getattr(model.model.layers[0].mlp, part)
    layer.weight.data[2] = 0
    layer.bias.data[2] = 0
    small = shrink(model)
    assert ModelSize.of(small).neurons[0] == 19
    assert same(model, small, "llama")


def test_heads_without_values_go():
    model = family_model("bert")
    value = model.bert.encoder.layer[2].attention.self.value
    value.weight.data[6:18] = 0
    value.bias.data[6:12] = 0  # head 2 still has its bias
    small = shrink(model)
    assert ModelSize.of(small).heads == (4, 4, 3)
    assert shape_of(small)["units"] == {HEADS.format(2): [0, 2, 3]}
    assert same(model, small)


def test_heads_without_values_go_from_a_fused_projection():
    model = family_model("gpt2")
    fused = model.transformer.h[0].attn.c_attn
    fused.weight.data[:, 48:54] = 0
    fused.bias.data[48:54] = 0
    small = shrink(model)
    assert ModelSize.of(small).heads == (3, 4, 4)
    assert same(model, small, "gpt2")


# -- one shape -------------------------------------------------------------------------------------


def test_one_shape_equals_the_masked_model_that_has_it_already():
    model = bert(neuron={0: range(12), 1: range(5, 17), 2: range(8, 20)}, layer={0: [], 1: [0], 2: []})
    small = shrink(model, UniformShape(neurons=8))
    assert same(model, small)
    assert transforms_of(small) == []
    assert (small.config.intermediate_size, small.config.num_hidden_layers) == (8, 2)
    stock = type(small)(small.config).double().eval()
    stock.load_state_dict(small.state_dict())
    assert torch.equal(logits(stock), logits(small))


def test_the_strongest_units_and_layers_stay():
    model = family_model("bert")
    blocks = model.bert.encoder.layer
    for index, block in enumerate(blocks):
        block.output.dense.weight.data *= [3.0, 0.01, 1.0][index]
        block.attention.output.dense.weight.data *= [3.0, 0.01, 1.0][index]
    wanted = [blocks[index].output.dense.weight.norm(dim=0).topk(5).indices.sort().values for index in (0, 2)]
    rows = [blocks[index].intermediate.dense.weight[kept] for index, kept in zip((0, 2), wanted, strict=True)]
    small = shrink(model, UniformShape(layers=2, neurons=5))
    for block, expected in zip(small.bert.encoder.layer, rows, strict=True):
        assert torch.equal(block.intermediate.dense.weight, expected)


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_every_family_says_a_uniform_shape_in_its_configuration(family):
    model = family_model(family)
    layers = None if family == "albert_groups" else 2
    small = shrink(model, UniformShape(layers=layers, neurons=12))
    assert set(ModelSize.of(small).neurons) == {12}
    stock = type(small)(copy.deepcopy(small.config)).double().eval()
    stock.load_state_dict(small.state_dict())
    stock.set_attn_implementation("sdpa")
    assert torch.equal(logits(stock, family), logits(small, family))
    assert shape_of(small) == {"units": {}, "config": {}}


def test_hidden_dimensions_go_with_the_heads_and_the_pooler():
    model = bert(hidden=range(6))
    small = shrink(model, UniformShape(heads=2, hidden=12))
    assert small.bert.pooler.dense.weight.shape == (12, 12) and small.classifier.weight.shape == (3, 12)
    assert (small.config.num_attention_heads, small.config.hidden_size) == (2, 12)
    assert torch.isfinite(logits(small)).all()
    closed = shrink(bert(hidden=range(12)), UniformShape(heads=2))
    assert closed.config.hidden_size == 12
    norm = family_model("bert").bert.embeddings.LayerNorm.weight[12:]
    assert torch.equal(closed.bert.embeddings.LayerNorm.weight, norm)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"heads": 0}, "uniform heads to be at least 1 but got 0"),
        ({"neurons": 21}, "at most 20 neurons"),
        ({"layers": 4}, "at most the 3 layers"),
        ({"hidden": 25}, "at most the 24 hidden dimensions"),
        ({"heads": 2}, "set hidden=12"),
    ],
)
def test_refuses_a_shape_that_cannot_be(shape, message):
    with pytest.raises(ValueError, match=message):
        shrink(family_model("bert"), UniformShape(**shape))


def test_refuses_a_shape_that_a_cut_model_does_not_fill():
    small = shrink(bert(neuron={0: range(12), 1: [], 2: []}, head={0: [], 1: [0], 2: []}))
    with pytest.raises(
        ValueError, match=r"same number of heads in all blocks but got \[3, 4\]; give heads, at most 3"
    ):
        shrink(small, UniformShape(neurons=8))
    with pytest.raises(ValueError, match="at most 8 neurons, as the smallest block has"):
        shrink(small, UniformShape(heads=3, neurons=9))
    with pytest.raises(ValueError, match="round_to to be at least 1"):
        shrink(small, round_to=0)


# -- report ----------------------------------------------------------------------------------------


def test_the_report_counts_what_is_left():
    model = bert(neuron={0: range(20), 1: [0, 1], 2: []}, head={0: [], 1: range(4), 2: [0]})
    small = shrink(model)
    report = ShrinkReport.of(model, small)
    assert report.before == ModelSize.of(family_model("bert"))
    assert (report.after.heads, report.after.neurons) == ((4, 0, 3), (0, 18, 20))
    # 3 blocks of 4 * 24 * 24 + 2 * 24 * 20 weights; a head has 4 * 24 * 6 of them, a neuron 2 * 24.
    assert report.before.encoder_weights == 3 * (4 * 24 * 24 + 2 * 24 * 20)
    gone = 5 * 4 * 24 * 6 + 22 * 2 * 24
    assert report.before.encoder_weights - report.after.encoder_weights == gone
    biases = 5 * 3 * 6 + 22
    assert report.before.parameters - report.after.parameters == gone + biases
    assert report.after.parameters == sum(p.numel() for p in small.parameters())
    lines = str(report).splitlines()
    assert lines[4] == "heads per layer    4 in each of 3 → 4 0 3"
    assert lines[5] == "neurons per layer  20 in each of 3 → 0 18 20"
    assert f"({gone / (3 * (4 * 24 * 24 + 960)):.1%} removed)" in lines[1]
