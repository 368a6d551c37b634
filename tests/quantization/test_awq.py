"""AWQ: scales that change nothing until weights are rounded, and never a worse rounding than the nearest."""

import copy

import pytest
import torch
from torch import nn

import lit_compress
from lit_compress.models.checkpoint import save_folder
from lit_compress.pruning.low_rank import apply_low_rank
from lit_compress.quantization import Scheme
from lit_compress.quantization.awq import awq, best_cuts, best_scales, output_errors
from lit_compress.quantization.awq_folds import Fold, apply_fold, folds_of, within
from lit_compress.quantization.grid import dequantize, grid_of, quantize, range_of, rows_of
from lit_compress.quantization.hessian import InputStatistics
from lit_compress.quantization.packed import packed_of
from lit_compress.quantization.post_training import quantize_model
from tests.families import EVERY_FAMILY, family_batch, family_model

SCHEMES = [Scheme(4), Scheme(3, True, "group", 4), Scheme(3, False, "group", 8), Scheme(4, True, "tensor")]
# Per block: behind both norms of a pre-norm model, values, and the up projection where there is a gate.
FOLDS = {"bert": 3, "albert": 1, "llama": 12, "mistral": 12, "qwen3": 12, "gpt2": 9, "vit": 9}


def problem(seed=0, inputs=24, loud=30.0):
    """Weights and what they read; a few inputs are much louder than the others."""
    draw = torch.Generator().manual_seed(seed)
    read = torch.randn(200, inputs, generator=draw)
    read[:, ::7] *= loud
    statistics = InputStatistics(inputs)
    statistics.add(read)
    return nn.Linear(inputs, 10, bias=False).requires_grad_(False), statistics, read


def rounded(weight, grid, scheme):
    return dequantize(quantize(rows_of(weight, scheme), grid, scheme), grid).view(weight.shape)


def covering(weight, scheme):
    return grid_of(*range_of(rows_of(weight, scheme), scheme), scheme)


def untied(model, folds):
    """Folds without the heads that are tied to an embedding."""
    tables = {module.weight.data_ptr() for module in model.modules() if isinstance(module, nn.Embedding)}
    return [
        fold
        for fold in folds
        if all(model.get_submodule(name).weight.data_ptr() not in tables for name in fold.readers)
    ]


def random_scales(model, fold, seed):
    source = model.get_submodule(fold.source)
    outputs = source.weight.shape[-1 if type(source).__name__ == "Conv1D" else 0]
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(fold.width or outputs, generator=draw, dtype=torch.float64) * 5 + 0.2


@torch.no_grad()
def outputs(model, family):
    found = model(**family_batch(family, 5))
    return found.logits


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_scales_change_nothing_in_float64(family):
    model = family_model(family, 3)
    wanted = outputs(model, family)
    folds = untied(model, folds_of(model, family_batch(family)))
    assert len(folds) == FOLDS.get(family, len(folds)) and folds
    before = copy.deepcopy(model)
    for number, fold in enumerate(folds):
        apply_fold(model, fold, random_scales(model, fold, number))
    torch.testing.assert_close(outputs(model, family), wanted, rtol=1e-9, atol=1e-9)
    changed = [
        name for name, tensor in model.named_parameters() if not tensor.equal(before.get_parameter(name))
    ]
    assert len(changed) >= 2 * len(folds)


def test_folds_reach_through_low_rank_projections():
    model = family_model("llama", 2)
    projections = ["model.layers.0.self_attn.v_proj", "model.layers.1.mlp.down_proj"]
    apply_low_rank(model, dict.fromkeys(projections, 5))
    wanted = outputs(model, "llama")
    folds = folds_of(model, family_batch("llama"))
    assert {f"{projections[0]}.expand", "model.layers.1.mlp.up_proj"} <= {fold.source for fold in folds}
    for number, fold in enumerate(folds):
        apply_fold(model, fold, random_scales(model, fold, number))
    torch.testing.assert_close(outputs(model, "llama"), wanted, rtol=1e-9, atol=1e-9)


def test_behind_the_norm_of_a_post_norm_model_nothing_can_be_undone():
    model = family_model("bert", 2)
    wanted = outputs(model, "bert")
    attention = "bert.encoder.layer.1.attention.self"
    fold = Fold(
        "bert.encoder.layer.0.output.LayerNorm",
        tuple(f"{attention}.{name}" for name in ("query", "key", "value")),
    )
    apply_fold(model, fold, random_scales(model, fold, 0))
    assert float((outputs(model, "bert") - wanted).abs().max()) > 1e-2


def test_heads_of_queries_that_share_values_share_scales():
    fold = Fold("v", ("o",), 0, 4, 2)  # two heads of values of width 2, each read by three heads of queries
    sizes = torch.arange(12.0)
    assert fold.shared(sizes).tolist() == [2.0, 3.0, 8.0, 9.0]
    assert fold.repeated(torch.tensor([1.0, 2.0, 3.0, 4.0]), 12).tolist() == [
        1,
        2,
        1,
        2,
        1,
        2,
        3,
        4,
        3,
        4,
        3,
        4,
    ]


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("loud", [1.0, 30.0])
def test_scales_are_the_best_of_the_grid_and_never_worse_than_none(scheme, loud):
    for seed in range(4):
        reader, statistics, read = problem(seed, loud=loud)
        model = nn.ModuleDict({"norm": nn.LayerNorm(24), "one": reader})
        found = best_scales(model, Fold("norm", ("one",)), statistics, scheme)
        weight, sizes = reader.weight, read.abs().mean(0).double()

        def error(scales, weight=weight, read=read):
            wide = weight * scales.float()
            difference = rounded(wide, covering(wide, scheme), scheme) / scales.float() - weight
            return float((read @ difference.t()).square().sum())

        candidates = [
            (sizes**alpha) / ((sizes**alpha).max() * (sizes**alpha).min()).sqrt()
            for alpha in torch.arange(20) / 20
        ]
        errors = [error(scales) for scales in candidates]
        assert error(found) <= min(errors) * (1 + 1e-4)
        assert error(found) <= error(torch.ones(24)) * (1 + 1e-6)
        if loud > 1 and scheme.per != "tensor":
            assert error(found) < 0.8 * error(torch.ones(24))


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_cuts_are_never_worse_than_the_full_range(scheme):
    gained = []
    for seed in range(4):
        reader, statistics, _ = problem(seed, loud=3.0)
        weight, hessian = reader.weight.clone(), statistics.hessian().float()
        weight[:, 3] *= 4  # one weight makes the range wide
        full, cut = covering(weight, scheme), best_cuts(weight, statistics.hessian(), scheme)
        errors = [output_errors(rounded(weight, grid, scheme) - weight, hessian) for grid in (cut, full)]
        if scheme.per == "tensor":
            errors = [error.sum() for error in errors]
        assert bool((errors[0] <= errors[1] * (1 + 1e-5)).all())
        gained.append(float(errors[0].sum() / errors[1].sum()))
    # One range for the whole matrix is made by its largest weights, and cannot be cut for others.
    assert min(gained) < 0.97 or scheme.per == "tensor"


def test_output_errors_are_those_of_the_texts():
    _, statistics, read = problem()
    difference = torch.randn(10, 24)
    by_hand = (read @ difference.t()).square().mean(0) * 2
    torch.testing.assert_close(
        output_errors(difference, statistics.hessian().float()), by_hand, rtol=1e-4, atol=1e-3
    )
    torch.testing.assert_close(statistics.magnitudes(), read.abs().mean(0).double())


def loud_llama():
    """A language model in which some hidden dimensions are loud behind every norm."""
    model = family_model("llama", 2).float()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "norm" in name:
                tensor[::5] *= 20
    return model


def texts(count=6):
    return [family_batch("llama", seed, torch.float32) for seed in range(count)]


def test_a_model_with_loud_dimensions_keeps_its_outputs_nearer_and_reloads_bit_by_bit(tmp_path):
    model = loud_llama()
    fresh = family_batch("llama", 50, torch.float32)
    with torch.no_grad():
        wanted = model(**fresh).logits
    errors = {}
    for method in ("nearest", "awq"):
        small = copy.deepcopy(model)
        quantize_model(small, Scheme(4, True, "group", 4), method=method, batches=texts())
        with torch.no_grad():
            found = small(**fresh).logits
        errors[method] = float((found - wanted).square().mean())
        save_folder(tmp_path / method, small, None, {})
        with torch.no_grad():
            assert torch.equal(lit_compress.load(tmp_path / method)(**fresh).logits, found)
    assert errors["awq"] < 0.7 * errors["nearest"]


def test_what_is_not_rounded_is_not_scaled():
    model = loud_llama()
    small = copy.deepcopy(model)
    quantize_model(small, Scheme(4), method="awq", batches=texts(2), exclude=["k_proj", "lm_head", "up_proj"])
    for name in ("model.norm.weight", "model.layers.0.input_layernorm.weight", "lm_head.weight"):
        assert torch.equal(small.get_parameter(name), model.get_parameter(name))
    assert not any("k_proj" in name for name, _ in packed_of(small))


def test_weights_that_were_zero_stay_zero():
    model = loud_llama()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.weight[:, ::2] = 0
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    awq(model, names, Scheme(4, True, "group", 4), texts(2))
    assert all(bool((model.get_submodule(name).weight[:, ::2] == 0).all()) for name in names)


def test_folds_are_those_whose_readers_are_all_rounded():
    folds = [Fold("norm", ("a", "b")), Fold("c", ("d",))]
    assert within(folds, {"a", "d"}) == [folds[1]]


def test_refuses_texts_that_are_no_numbers_and_none():
    model = loud_llama()
    with pytest.raises(ValueError, match="Expected texts to calibrate with but got none"):
        quantize_model(copy.deepcopy(model), Scheme(4), method="awq")
    with torch.no_grad():
        model.model.embed_tokens.weight[4:20] = float("nan")
    with pytest.raises(ValueError, match="Expected finite activations"):
        quantize_model(model, Scheme(4), method="awq", batches=texts(2))
