"""What the adapters say about their families, against what the models do."""

import copy

import pytest
import torch
from torch import nn
from transformers import (
    AutoModel,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForTokenClassification,
    DeiTForImageClassificationWithTeacher,
    DistilBertForMaskedLM,
    DistilBertForTokenClassification,
    GPT2ForSequenceClassification,
    LlamaForSequenceClassification,
    Qwen3ForTokenClassification,
    RobertaForMaskedLM,
    ViTForMaskedImageModeling,
    XLNetConfig,
    XLNetModel,
)

from lit_compress.models.anatomy import UniformShape, dissect, family_of
from lit_compress.models.architecture import block_list, describe
from lit_compress.pruning.cutting import cut_units
from lit_compress.pruning.groups import find_groups
from lit_compress.pruning.shrink import shrink
from tests.families import EVERY_FAMILY, HIDDEN, NEURONS, family_batch, family_model
from tests.pruning.conftest import exact_norms
from tests.pruning.gating import close_at_random, fix, structures_of

__all__ = ["exact_norms"]
DESCRIBED = ("bert", "roberta", "xlm-roberta", "electra", "distilbert", "albert", "vit", "deit")
CLASSES = [
    ("bert", BertForTokenClassification),
    ("bert", BertForQuestionAnswering),
    ("distilbert", DistilBertForTokenClassification),
    ("deit", DeiTForImageClassificationWithTeacher),
    ("gpt2", GPT2ForSequenceClassification),
    ("llama", LlamaForSequenceClassification),
    ("qwen3", Qwen3ForTokenClassification),
]


def as_class(name, build, seed=0):
    """A model of the family with another task head, or without."""
    config = copy.deepcopy(family_model(name).config)
    config.num_labels = 2
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(config)
        with torch.no_grad():
            for tensor in model.parameters():
                tensor.copy_(0.3 * torch.randn_like(tensor) + (tensor.dim() == 1))
    return model.double().eval()


@torch.no_grad()
def first(model, name):
    return model(**family_batch(name))[0]


@pytest.mark.parametrize("name", EVERY_FAMILY)
def test_heads_and_neurons_are_those_of_the_configuration(name):
    anatomy = dissect(family_model(name))
    heads = {"llama": 2, "qwen2": 2, "qwen3": 2}.get(name, 4)
    for block in anatomy.blocks:
        decoder = ".decoder." in block.path
        assert {attention.heads for attention in block.attentions} == {3 if decoder else heads}
        assert len(block.attentions) == (2 if decoder else 1)
        assert block.feed_forward.neurons == NEURONS + 4 * decoder
    expected = {"albert": 1, "albert_groups": 4, "whisper": 6}.get(name, 3)
    assert len(anatomy.blocks) == expected and anatomy.stream.size == HIDDEN


@pytest.mark.parametrize("name", EVERY_FAMILY)
def test_no_norm_over_the_hidden_dimensions_is_forgotten(name):
    model = family_model(name)
    norms = {
        path
        for path, module in model.named_modules()
        if "norm" in type(module).__name__.lower() and module.weight.shape == (HIDDEN,)
    }
    assert set(dissect(model).stream.norms) == norms and len(norms) > 1


@pytest.mark.usefixtures("exact_norms")
@pytest.mark.parametrize("name", EVERY_FAMILY)
@pytest.mark.parametrize("structure", ["head", "neuron", "hidden"])
def test_permuted_units_compute_the_same(name, structure):
    """Every tensor in which a unit lives is named, and only the places where it lives."""
    model = family_model(name)
    before = first(model, name)
    draw = torch.Generator().manual_seed(1)
    for group in find_groups(model, [structure]):
        order = torch.randperm(group.units, generator=draw).roll(1)
        done = set()
        for slot in group.cut:
            tensor = getattr(model.get_submodule(slot.module), slot.tensor)
            if (id(tensor), slot.axis, slot.start) not in done:
                done.add((id(tensor), slot.axis, slot.start))
                stretch = tensor.data.narrow(slot.axis, slot.start, group.units * slot.width)
                pieces = stretch.unflatten(slot.axis, (group.units, slot.width))
                stretch.copy_(pieces.index_select(slot.axis, order).flatten(slot.axis, slot.axis + 1))
    weights = family_model(name).state_dict()
    assert any(not torch.equal(tensor, weights[key]) for key, tensor in model.state_dict().items())
    assert (first(model, name) - before).abs().max().item() < 1e-10


@pytest.mark.usefixtures("exact_norms")
@pytest.mark.parametrize("name", EVERY_FAMILY)
def test_models_without_a_task_head(name):
    model = as_class(name, AutoModel.from_config)
    gates = fix(model, structures_of(name))
    close_at_random(gates, seed=2)
    before = first(model, name)
    left = gates["hidden"].open.bool()
    assert (first(shrink(model), name) - before[..., left]).abs().max().item() < 1e-10
    assert before[..., ~left].abs().max().item() == 0.0
    assert (first(as_class(name, AutoModel.from_config), name) - before)[..., left].abs().max().item() > 1e-3


@pytest.mark.usefixtures("exact_norms")
@pytest.mark.parametrize(("name", "build"), CLASSES, ids=lambda value: getattr(value, "__name__", value))
def test_models_with_other_task_heads(name, build):
    model = as_class(name, build)
    close_at_random(fix(model, structures_of(name)), seed=2)
    before = first(model, name)
    assert (first(shrink(model), name) - before).abs().max().item() < 1e-10
    assert (first(as_class(name, build), name) - before).abs().max().item() > 1e-3


@pytest.mark.parametrize(
    ("name", "build", "unknown"),
    [
        ("bert", BertForMaskedLM, "cls.predictions.transform.dense"),
        ("roberta", RobertaForMaskedLM, "lm_head.dense"),
        ("distilbert", DistilBertForMaskedLM, "vocab_transform"),
        ("vit", ViTForMaskedImageModeling, "decoder.0"),
    ],
)
def test_refuses_hidden_dimensions_below_a_head_that_is_not_known(name, build, unknown):
    model = as_class(name, lambda config: build(_with_stride(config)))
    with pytest.raises(ValueError, match=rf"hidden dimensions .* '{name}' knows but it also has {unknown}"):
        find_groups(model, ["head", "hidden"])
    gates = fix(model, ["head", "neuron"])
    close_at_random(gates, seed=2)
    assert (first(shrink(model), name) - first(model, name)).abs().max().item() < 1e-10


def _with_stride(config):
    if hasattr(config, "encoder_stride"):
        config.encoder_stride = config.patch_size
    return config


@pytest.mark.parametrize("name", EVERY_FAMILY)
def test_attributes_follow_the_tensors_and_the_smaller_model_trains(name):
    model = family_model(name)
    gates = fix(model, structures_of(name))
    close_at_random(gates, seed=5)
    small = shrink(model).train()
    assert len(dissect(small).blocks) <= len(dissect(model).blocks)
    for path, module in small.named_modules():
        if isinstance(module, nn.Linear):
            assert (module.out_features, module.in_features) == tuple(module.weight.shape), path
        if isinstance(module, (nn.Conv1d, nn.Conv2d)):
            assert (module.out_channels, module.in_channels) == tuple(module.weight.shape[:2]), path
        if isinstance(module, nn.LayerNorm):
            assert module.normalized_shape == tuple(module.weight.shape), path
        if isinstance(module, nn.Embedding):
            assert (module.num_embeddings, module.embedding_dim) == tuple(module.weight.shape), path
        for attribute in ("embed_dim", "dim", "hidden_size"):
            if isinstance(getattr(module, attribute, None), int):
                assert getattr(module, attribute) == dissect(small).stream.size, (path, attribute)
    small(**family_batch(name)).logits.square().mean().backward()
    sources = [getattr(small.get_submodule(a.module), a.tensor) for a in dissect(small).stream.sources]
    assert any(source.grad is not None and bool(source.grad.abs().sum() > 0) for source in sources)


@pytest.mark.parametrize("name", ["vit", "deit", "qwen2", "qwen3", "mistral", "llama"])
def test_configurations_with_a_width_of_heads_say_any_uniform_shape(name):
    model = family_model(name)
    heads, hidden = 1, HIDDEN - 6
    shape = UniformShape(heads=heads, neurons=7, hidden=hidden)
    units = {
        g.name: range({"head": heads, "neuron": 7}[g.structure])
        for g in find_groups(model, ["head", "neuron"])
    }
    cut_units(model, units | {"hidden": range(hidden)})
    config = copy.deepcopy(model.config)
    family_of(model).write_config(config, shape)
    stock = type(model)(type(config).from_dict(config.to_dict())).double().eval()
    stock.load_state_dict(model.state_dict())
    assert (first(stock, name) - first(model, name)).abs().max().item() < 1e-6


@pytest.mark.parametrize("name", ["gpt2", "distilbert"])
def test_configurations_without_it_say_shapes_whose_heads_fill_the_hidden_dimensions(name):
    model = family_model(name) if name == "gpt2" else as_class(name, AutoModel.from_config)
    shape = UniformShape(heads=3, neurons=7, hidden=18)
    units = {
        g.name: range({"head": 3, "neuron": 7}[g.structure]) for g in find_groups(model, ["head", "neuron"])
    }
    cut_units(model, units | {"hidden": range(18)})
    config = copy.deepcopy(model.config)
    family_of(model).write_config(config, shape)
    stock = type(model)(type(config).from_dict(config.to_dict())).double().eval()
    stock.load_state_dict(model.state_dict())
    assert torch.equal(first(stock, name), first(model, name))


@pytest.mark.parametrize("name", ["bert", "electra", "distilbert", "albert", "gpt2", "whisper"])
def test_refuses_heads_that_do_not_fill_the_hidden_dimensions(name):
    model = family_model(name)
    with pytest.raises(
        ValueError, match=r"hidden = heads x \d, .* but got hidden=24 and heads=2; set hidden="
    ):
        family_of(model).write_config(copy.deepcopy(model.config), UniformShape(heads=2))


def test_refuses_query_heads_that_llama_could_not_load():
    model = family_model("llama")
    with pytest.raises(ValueError, match=r"multiple of the 4 query heads.* but got hidden=18; choose heads"):
        family_of(model).write_config(copy.deepcopy(model.config), UniformShape(hidden=18))


def test_an_inner_width_that_depends_on_the_hidden_size_is_written_down():
    config = copy.deepcopy(family_model("gpt2").config)
    config.n_inner = None
    family_of(family_model("gpt2")).write_config(config, UniformShape(heads=2, hidden=12))
    assert (config.n_inner, config.n_embd, config.n_head) == (96, 12, 2)


def test_dropped_layers_keep_the_kind_of_their_attention_and_number_their_caches():
    model = family_model("qwen2")
    assert model.config.layer_types == ["full_attention", "sliding_attention", "sliding_attention"]
    gates = fix(model, ["layer"])
    gates["model/layers/0/layer"].open[:] = 0.0
    small = shrink(model)
    assert small.config.layer_types == ["sliding_attention"] * 2 and small.config.num_hidden_layers == 2
    assert [layer.self_attn.layer_idx for layer in small.model.layers] == [0, 1]


def test_whisper_has_two_depths():
    model = family_model("whisper")
    gates = fix(model, ["layer"])
    gates["model/encoder/layers/0/layer"].open[:] = 0.0
    gates["model/decoder/layers/1/layer"].open[:] = 0.0
    gates["model/decoder/layers/2/layer"].open[:] = 0.0
    small = shrink(model)
    assert (small.config.encoder_layers, small.config.decoder_layers) == (2, 1)
    assert {layer.self_attn.layer_idx for layer in small.model.encoder.layers} == {None}


@pytest.mark.parametrize("name", DESCRIBED)
def test_shrunk_models_are_described_by_what_they_are(name):
    model = family_model(name)
    assert (describe(model).num_heads, describe(model).head_dim) == (4, 6)
    groups = {group.name: range(4) for group in find_groups(model, ["head"])}
    groups[next(iter(groups))] = [1, 3]
    cut_units(model, groups | {"hidden": range(5, 22)})
    described = describe(model)
    assert (described.num_heads, described.head_dim, described.hidden_size) == (2, 6, 17)
    assert len(block_list(model)) == described.num_layers == 3


def test_dropped_layers_leave_the_list_of_blocks():
    model = family_model("bert")
    fix(model, ["layer"])["bert/encoder/layer/1/layer"].open[:] = 0.0
    small = shrink(model)
    assert len(block_list(small)) == describe(small).num_layers == 2
    kept, old = block_list(small)[1].state_dict(), block_list(model)[2].state_dict()
    assert all(torch.equal(kept[key], old[key]) for key in kept)


def test_refuses_an_unknown_architecture_with_what_an_adapter_must_give():
    model = XLNetModel(XLNetConfig(vocab_size=20, d_model=16, n_layer=1, n_head=2, d_inner=16))
    with pytest.raises(
        ValueError, match=r"families albert, bert, .* but got 'xlnet' \(XLNetModel\)"
    ) as error:
        dissect(model)
    for word in (
        "query",
        "output projection",
        "feed-forward",
        "normalisations",
        "embeddings",
        "docs/adapters.md",
    ):
        assert word in str(error.value)
