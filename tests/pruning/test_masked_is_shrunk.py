"""The shrunk model computes what the masked one computes, to 1e-10 in float64."""

import pytest
import torch

from lit_compress.models.anatomy import dissect
from lit_compress.pruning.groups import find_groups
from lit_compress.pruning.shrink import shrink
from tests.families import EVERY_FAMILY, GENERATORS, HIDDEN, SHARED, family_batch, family_model
from tests.pruning.gating import STRUCTURES, close, close_at_random, fix, soften, structures_of

pytestmark = pytest.mark.usefixtures("exact_norms")
LAYERED = [name for name in EVERY_FAMILY if name not in SHARED]
EVERY_STRUCTURE = [
    (name, structure) for name in EVERY_FAMILY for structure in STRUCTURES if structure in structures_of(name)
]


@torch.no_grad()
def run(model, name):
    return model(**family_batch(name)).logits


def assert_same(masked, name, differs_from=None):
    """Shrink a model, compare, and return the smaller one; the gates must have done something."""
    before = run(masked, name)
    small = shrink(masked)
    assert before.dtype == torch.float64
    assert (run(small, name) - before).abs().max().item() < 1e-10
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in masked.parameters())
    assert (run(differs_from or family_model(name), name) - before).abs().max().item() > 1e-3
    assert not [key for key in small.state_dict() if "gates" in key or "parametrizations" in key]
    return small


@pytest.mark.parametrize(("name", "structure"), EVERY_STRUCTURE)
def test_one_structure_at_random(name, structure):
    model = family_model(name)
    gates = fix(model, [structure])
    close_at_random(gates, seed=EVERY_FAMILY.index(name))
    assert any(not gate.open.all() for _, gate in gates.pairs())
    small = assert_same(model, name)
    if structure in ("head", "neuron", "hidden"):
        left = {group.name: group.units for group in find_groups(small, [structure], strict=False)}
        assert left == {g.name: int(gate.open.sum()) for g, gate in gates.pairs() if gate.open.any()}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", EVERY_FAMILY)
def test_all_structures_together(name, attention):
    model = family_model(name, attention=attention)
    close_at_random(fix(model, structures_of(name)), seed=1)
    assert model.config._attn_implementation == attention
    assert_same(model, name)


@pytest.mark.parametrize("name", EVERY_FAMILY)
def test_gates_between_0_and_1_are_folded(name):
    structures = [structure for structure in structures_of(name) if structure != "layer"]
    for some in ([structure] for structure in structures):
        model = family_model(name)
        gates = soften(model, some)
        before = run(model, name)
        small = shrink(model)
        assert (run(small, name) - before).abs().max().item() < 1e-10, some
        assert any(0 < value < 1 for _, gate in gates.pairs() for value in gate.decided().tolist())
    model = family_model(name)
    soften(model, structures)
    assert_same(model, name)


@pytest.mark.parametrize("name", EVERY_FAMILY)
def test_without_heads_the_output_bias_stays(name):
    model, closed = family_model(name), family_model(name)
    assert close(fix(model, ["head"]), "head", layer=0)
    small = assert_same(model, name)
    left = [len(block.attentions) for block in dissect(small).blocks]
    assert left == [0, *(len(block.attentions) for block in dissect(closed).blocks[1:])]
    close(fix(closed, ["attention"]), "attention", layer=0)
    has_bias = any(slot.tensor == "bias" for slot in find_groups(closed, ["attention"])[0].gated)
    difference = (run(closed, name) - run(small, name)).abs().max().item()
    assert (difference > 1e-3) if has_bias else (difference < 1e-10)


@pytest.mark.parametrize("name", EVERY_FAMILY)
def test_without_neurons_the_output_bias_stays(name):
    model, closed = family_model(name), family_model(name)
    close(fix(model, ["neuron"]), "neuron", layer=0)
    small = assert_same(model, name)
    assert dissect(small).blocks[0].feed_forward is None
    close(fix(closed, ["feed_forward"]), "feed_forward", layer=0)
    has_bias = any(slot.tensor == "bias" for slot in find_groups(closed, ["feed_forward"])[0].gated)
    difference = (run(closed, name) - run(small, name)).abs().max().item()
    assert (difference > 1e-3) if has_bias else (difference < 1e-10)


@pytest.mark.parametrize("name", EVERY_FAMILY)
def test_a_closed_attention_and_a_closed_feed_forward_network_leave_nothing(name):
    model = family_model(name)
    gates = fix(model, ["attention", "feed_forward"])
    close(gates, "attention", layer=0)
    close(gates, "feed_forward", layer=0)
    small = assert_same(model, name)
    block = dissect(small).blocks[0]
    assert block.attentions == () and block.feed_forward is None
    written = [p for key, p in small.named_parameters() if key.startswith(f"{block.path}.") and p.dim() > 1]
    assert written == []


@pytest.mark.parametrize("name", EVERY_FAMILY)
def test_one_head_and_one_neuron_left(name):
    model = family_model(name)
    gates = fix(model, ["head", "neuron"])
    for structure in ("head", "neuron"):
        for group, gate in gates.pairs():
            if group.structure == structure:
                gate.open[:] = 0.0
                gate.open[1] = 1.0
    small = assert_same(model, name)
    assert {group.units for group in find_groups(small, ["head", "neuron"])} == {1}


@pytest.mark.parametrize("name", EVERY_FAMILY)
def test_nothing_left_in_any_block(name):
    model = family_model(name)
    gates = fix(model, ["head", "neuron"])
    close(gates, "head")
    close(gates, "neuron")
    small = assert_same(model, name)
    assert find_groups(small, ["head", "neuron"], strict=False) == []


@pytest.mark.parametrize("name", EVERY_FAMILY)
@pytest.mark.parametrize("left", [HIDDEN - 7, 2])
def test_a_region_of_hidden_dimensions_closed(name, left):
    model = family_model(name)
    close(fix(model, ["hidden"]), "hidden", units=range(HIDDEN - left))
    small = assert_same(model, name)
    assert dissect(small).stream.size == small.config.hidden_size == left


@pytest.mark.parametrize("name", LAYERED)
def test_first_and_last_layer_dropped(name):
    model = family_model(name)
    gates = fix(model, ["layer"])
    for path in dissect(model).block_lists:
        for group, gate in gates.pairs():
            if group.name in (f"{path}.0.layer", f"{path}.2.layer"):
                gate.open[:] = 0.0
    small = assert_same(model, name)
    paths = [block.path for block in dissect(small).blocks]
    assert paths == [f"{path}.0" for path in dissect(model).block_lists]


@pytest.mark.parametrize("name", LAYERED)
def test_without_the_first_layer_it_is_the_model_that_its_configuration_builds(name):
    model = family_model(name)
    gates = fix(model, ["layer"])
    for path in dissect(model).block_lists:
        gates[f"{path}.0.layer".replace(".", "/")].open[:] = 0.0
    small = assert_same(model, name)
    built = type(small)(type(small.config).from_dict(small.config.to_dict())).double().eval()
    built.load_state_dict(small.state_dict())
    assert (run(built, name) - run(small, name)).abs().max().item() < 1e-10


@pytest.mark.parametrize("name", SHARED)
def test_refuses_layers_that_are_called_several_times(name):
    with pytest.raises(ValueError, match=r"structure layer in AlbertForSequenceClassification .* leave the"):
        find_groups(family_model(name), ["head", "layer"])


@pytest.mark.parametrize("name", GENERATORS)
def test_token_by_token_with_a_cache(name):
    """The first block lost its heads, the second is gone: the cache must still count and number rightly."""
    model = family_model(name)
    gates = fix(model, ["head", "layer", "neuron", "hidden"])
    close_at_random(gates, seed=3)
    for group, gate in gates.pairs():
        if group.structure == "head":  # the others must have heads, or no position would matter
            gate.open[:] = float(group.name.split(".")[-3] != "0")
    small = shrink(model)
    assert len(small.state_dict()) < len(model.state_dict())
    ids = family_batch(name)["decoder_input_ids" if name == "whisper" else "input_ids"][:1]
    sound = {"input_features": family_batch(name)["input_features"][:1]} if name == "whisper" else {}
    key = "decoder_input_ids" if name == "whisper" else "input_ids"
    with torch.no_grad():
        whole = model(**{key: ids}, **sound).logits
        cache, steps = None, []
        for position in range(ids.shape[1]):
            given = {key: ids[:, position : position + 1]}
            out = small(**given, **sound, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            steps.append(out.logits)
    assert (torch.cat(steps, 1) - whole).abs().max().item() < 1e-10


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt2"])
def test_generation_is_the_same(name):
    model = family_model(name)
    close_at_random(fix(model, ["head", "layer", "neuron", "hidden"]), seed=4)
    small, batch = shrink(model), {"input_ids": family_batch(name)["input_ids"][:1]}
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "output_logits": True}
    expected, found = (
        each.generate(**batch, **options, return_dict_in_generate=True) for each in (model, small)
    )
    assert torch.equal(found.sequences, expected.sequences) and found.sequences.shape == (1, 15)
    torch.testing.assert_close(torch.stack(found.logits), torch.stack(expected.logits), rtol=0, atol=1e-5)
