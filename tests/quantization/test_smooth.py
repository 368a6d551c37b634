"""SmoothQuant: an identity until something is rounded, the scales of the paper, and what they are good for."""

import copy

import pytest
import torch

from lit_compress.quantization import Scheme
from lit_compress.quantization.awq_folds import folds_of
from lit_compress.quantization.inputs import DYNAMIC
from lit_compress.quantization.post_training import quantize_model
from lit_compress.quantization.smooth import smooth_activations
from tests.families import family_batch, family_model

W8, A8 = Scheme(8), Scheme(8, False, "tensor")


def projections(model):
    """All but the head, which is tied to the embedding in some families."""
    return [
        name for name, module in model.named_modules() if name.count(".") > 1 and hasattr(module, "weight")
    ]


@torch.no_grad()
def logits(model, family, seed=5):
    return model(**family_batch(family, seed)).logits.double()


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2", "vit", "bert", "albert"])
def test_is_an_identity_in_float64(family):
    model = family_model(family, 2).double()
    batches = [
        {k: v.double() if v.is_floating_point() else v for k, v in family_batch(family, s).items()}
        for s in (0, 1)
    ]
    with torch.no_grad():
        wanted = model(**batches[0]).logits
        before = copy.deepcopy(model.state_dict())
        folds = smooth_activations(model, projections(model), 0.5, batches)
        changed = [name for name, tensor in model.state_dict().items() if not tensor.equal(before[name])]
        assert len(changed) >= 2 * len(folds) > 0
        torch.testing.assert_close(model(**batches[0]).logits, wanted, rtol=1e-10, atol=1e-10)


def test_shares_the_outliers_as_in_equation_4():
    model = family_model("llama", 1)
    # Nothing is padding, so that every token counts.
    batches = [{"input_ids": family_batch("llama", seed)["input_ids"]} for seed in (0, 1)]
    block = model.model.layers[0]
    norm, readers = block.post_attention_layernorm, (block.mlp.gate_proj, block.mlp.up_proj)

    def largest():
        seen = []
        handle = readers[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].abs()))
        with torch.no_grad():
            for batch in batches:
                model(**batch)
        handle.remove()
        return torch.cat(seen).amax((0, 1)), torch.cat([one.weight.abs() for one in readers]).amax(0)

    inputs, weights = largest()
    before = norm.weight.clone()
    smooth_activations(model, projections(model), 0.7, batches)
    wanted = inputs**0.7 / weights**0.3
    torch.testing.assert_close(before / norm.weight, wanted)
    torch.testing.assert_close(largest()[0], inputs / wanted)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_outliers_cost_less(family):
    model = family_model(family, 2)
    norms = [
        fold.source
        for fold in folds_of(model, family_batch(family))
        if "norm" in fold.source or "ln_" in fold.source
    ]
    with torch.no_grad():
        for name in norms:
            # Loud channels, and weights that read them quietly.
            model.get_submodule(name).weight[::6] *= 40.0
    for fold in folds_of(model, family_batch(family)):
        if fold.source in norms:
            for reader in fold.readers:
                weight = model.get_submodule(reader).weight.data
                (weight.t() if family == "gpt2" else weight)[:, ::6] /= 40.0
    batches = [family_batch(family, seed) for seed in range(3)]
    wanted, errors = logits(model, family), {}
    for alpha in (None, 0.5):
        rounded = copy.deepcopy(model)
        quantize_model(rounded, W8, None, A8, DYNAMIC, "nearest", batches, exclude=["lm_head"], smooth=alpha)
        errors[alpha] = float((logits(rounded, family) - wanted).norm() / wanted.norm())
    assert errors[0.5] < 0.5 * errors[None]


def test_scales_of_channels_that_nothing_uses_are_one():
    model = family_model("llama", 1)
    norm = model.model.layers[0].input_layernorm.weight
    with torch.no_grad():
        norm[3] = 0.0
    smooth_activations(model, projections(model), 0.5, [family_batch("llama")])
    assert norm[3] == 0.0 and all(bool(tensor.isfinite().all()) for tensor in model.parameters())


# -- refusals --------------------------------------------------------------------------------------


def refused(message, alpha=0.5, activations=A8, method="nearest", batches=None, **options):
    batches = [family_batch("llama")] if batches is None else batches
    with pytest.raises(ValueError, match=message):
        quantize_model(
            family_model("llama", 1),
            W8,
            None,
            activations,
            "min_max",
            method,
            batches,
            smooth=alpha,
            **options,
        )


def test_refuses_what_cannot_be_smoothed():
    refused(r"smooth \(the share of outliers that weights take\) in \[0, 1\] but got 1.5", alpha=1.5)
    refused("Expected activations that are rounded for smooth", activations=None)
    refused("Expected smooth with nearest or gptq but got awq", method="awq")
    refused("texts to find outliers with but got none", batches=[])
    refused("LlamaForCausalLM has none among them", include=["q_proj"])


def test_refuses_activations_that_are_not_finite():
    model = family_model("llama", 1)
    with torch.no_grad():
        model.model.embed_tokens.weight[:] = float("nan")
    with pytest.raises(ValueError, match="Expected finite values before"):
        smooth_activations(model, projections(model), 0.5, [family_batch("llama")])
