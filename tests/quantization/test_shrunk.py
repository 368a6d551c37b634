"""What is left after the shrink is rounded as it was: the small model computes what the gated one computes."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lit_compress.callbacks.student import deployable
from lit_compress.models.transforms import transforms_of
from lit_compress.pruning.low_rank import apply_low_rank, default_ranks
from lit_compress.quantization.fake_weights import apply_fake_weights, before_rounding, fake_weights_of
from lit_compress.quantization.inputs import apply_input_quantizers, input_quantizers_of
from lit_compress.quantization.packed import packed_of
from lit_compress.quantization.shrunk import refuse_shared_scales, shrink_to_integers
from lit_compress.quantization.stage import FROZEN, ROUND
from tests.families import EVERY_FAMILY, SHARED, family_batch, family_model
from tests.pruning.conftest import exact_norms  # noqa: F401
from tests.pruning.gating import close, close_at_random, fix, soften, structures_of

pytestmark = pytest.mark.usefixtures("exact_norms")
INT8, ACTIVATION = {"bits": 8, "per": "channel"}, {"bits": 8, "symmetric": False, "per": "tensor"}


def projections(model):
    """Those that share their weight with nothing."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and id(module.weight) not in tables
    ]


@torch.no_grad()
def run(model, name):
    return model(**family_batch(name)).logits


@torch.no_grad()
def put_rounding_on(model, name, scheme=INT8, learned=False, ranges="min_max"):
    """Round all projections and what they read, with ranges that a batch shows; steps apart from each other."""
    names = projections(model)
    apply_fake_weights(model, [f"{each}.weight" for each in names], scheme, learned)
    apply_input_quantizers(model, names, ACTIVATION, ranges)
    for _, quantizer in input_quantizers_of(model):
        quantizer.train()
    run(model, name)
    for _, quantizer in input_quantizers_of(model):
        quantizer.eval().set_stage(FROZEN)
    for number, (tensor, fake) in enumerate(fake_weights_of(model)):
        fake.begin(before_rounding(model, tensor))
        fake.set_stage(ROUND)
        if fake.step is not None:
            spread = torch.rand(fake.step.shape, generator=torch.Generator().manual_seed(number))
            fake.step.mul_(0.5 + spread)


def assert_same(model, name):
    before, plain = run(model, name), run(family_model(name), name)
    small = shrink_to_integers(model)
    left = sum(packed.values.numel() for _, packed in packed_of(small))
    assert left < sum(fake.size for _, fake in fake_weights_of(model))
    # A block of this GPT-2 divides by its number: what was folded into its float32 scales is rounded there.
    limit = 1e-5 if name == "gpt2" else 1e-10
    assert (run(small, name) - before).abs().max().item() < limit
    assert (plain - before).abs().max().item() > 1e-4
    assert [entry[0] for entry in transforms_of(small)][-2:] == ["packed_weights", "input_quantizers"]
    assert not [key for key in small.state_dict() if "gates" in key or "parametrizations" in key]
    return small


@pytest.mark.parametrize("first", ["gates", "rounding"])
@pytest.mark.parametrize("name", EVERY_FAMILY)
def test_all_structures_in_both_orders(name, first):
    model = family_model(name)
    if first == "rounding":
        put_rounding_on(model, name)
    gates = fix(model, structures_of(name))
    close_at_random(gates, seed=1)
    if first == "gates":
        put_rounding_on(model, name)
    assert_same(model, name)


@pytest.mark.parametrize("name", EVERY_FAMILY)
def test_gates_between_0_and_1_are_rounded_with_the_weights(name):
    model = family_model(name)
    soften(model, [structure for structure in structures_of(name) if structure != "layer"])
    put_rounding_on(model, name)
    assert_same(model, name)


@pytest.mark.parametrize("name", EVERY_FAMILY)
def test_learned_steps_go_with_their_outputs(name):
    model = family_model(name)
    close_at_random(fix(model, structures_of(name)), seed=2)
    put_rounding_on(model, name, {"bits": 4, "per": "channel"}, learned=True)
    small = assert_same(model, name)
    scales = sum(len(packed.scale) for _, packed in packed_of(small))
    assert scales < sum(len(fake.step) for _, fake in fake_weights_of(model))


@pytest.mark.parametrize("name", [name for name in EVERY_FAMILY if name not in SHARED])
def test_blocks_that_vanish_take_their_ranges_with_them(name):
    model = family_model(name)
    gates = fix(model, structures_of(name))
    close(gates, "head", layer=0)
    if "layer" in structures_of(name):
        close(gates, "layer", layer=0)
    put_rounding_on(model, name)
    small = assert_same(model, name)
    assert (run(deployable(model), name) - run(small, name)).abs().max().item() == 0.0
    assert len(list(input_quantizers_of(small))) < len(list(input_quantizers_of(model)))
    assert len(list(packed_of(small))) == len(list(input_quantizers_of(small)))


GROUPS = {"bits": 4, "per": "group", "group_size": 4}


def test_groups_stay_in_matrices_that_nothing_is_cut_out_of():
    model = family_model("bert")
    close_at_random(fix(model, ["head", "neuron"]), seed=3)
    table = next(name for name, module in model.named_modules() if isinstance(module, nn.Embedding))
    apply_fake_weights(model, [f"{table}.weight"], GROUPS, part="embeddings")
    put_rounding_on(model, "bert")
    small = assert_same(model, "bert")
    groups = dict(packed_of(small))[f"{table}.weight"].scale
    assert groups.numel() == model.get_submodule(table).weight.numel() // 4


def test_refuses_groups_that_would_be_torn_apart():
    model = family_model("bert")
    name = next(name for name in projections(model) if name.endswith("intermediate.dense"))
    apply_fake_weights(model, [f"{name}.weight"], GROUPS)
    fix(model, ["head"])
    refuse_shared_scales(model)
    fix(model, ["neuron"])
    with pytest.raises(ValueError, match=rf"beside structured pruning but {name}.weight has int4 per group"):
        shrink_to_integers(model)


def test_refuses_dynamic_ranges_beside_heads():
    model = family_model("bert")
    apply_input_quantizers(model, ["classifier"], ACTIVATION, "dynamic")
    fix(model, ["neuron"])
    refuse_shared_scales(model)
    fix(model, ["head"])
    with pytest.raises(
        ValueError, match=r"but classifier has dynamic ones, which heads that are closed would widen"
    ):
        refuse_shared_scales(model)


def test_refuses_one_scale_for_outputs_that_the_shrink_multiplies():
    model = family_model("gpt2")
    close(fix(model, ["layer"]), "layer", layer=0)
    put_rounding_on(model, "gpt2", {"bits": 8, "per": "tensor"})
    with pytest.raises(ValueError, match=r"c_attn.weight, of which the shrink multiplies some"):
        shrink_to_integers(model)


def test_refuses_factors():
    model = family_model("bert")
    apply_low_rank(model, default_ranks(model, "full"))
    with pytest.raises(ValueError, match="beside QAT but got rank"):
        refuse_shared_scales(model)
