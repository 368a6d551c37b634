"""Masks on weights: zeros in the forward pass and after baking, straight-through gradients, biases with rows."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from lit_compress.models.transforms import restore, transforms_of
from lit_compress.pruning.bake import bake
from lit_compress.pruning.masks import apply_weight_masks, mask_on, masks_of, original
from lit_compress.pruning.patterns import pattern_of
from lit_compress.pruning.target import Target
from tests.families import family_batch, family_model
from tests.tiny import tiny_batch, tiny_bert, tiny_model

QUERY = "bert.encoder.layer.0.attention.self.query.weight"


class Small(nn.Module):
    def __init__(self, rows=4, columns=6):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(columns, rows, dtype=torch.float64)


def small(block=(1, 1), keep=None):
    model = Small()
    apply_weight_masks(model, ["linear.weight"], block)
    mask = mask_on(model.linear, "weight")
    if keep is not None:
        mask.keep.copy_(keep)
    return model, mask


def test_golden_check_9_gradient_of_the_scores():
    """dS = dW' * W exactly, also where the mask is closed, and closed weights get no gradient."""
    keep = torch.tensor([[1, 0, 1, 1, 0, 1]] * 4).bool()
    model, mask = small(keep=keep)
    scores = torch.zeros(4, 6, dtype=torch.float64, requires_grad=True)
    mask.listener = (scores,)
    states = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    functional.gelu(model.linear(states)).square().sum().backward()
    weight = original(model.linear, "weight").detach()
    masked = (weight * keep).requires_grad_()
    functional.gelu(functional.linear(states, masked, model.linear.bias)).square().sum().backward()
    assert torch.equal(scores.grad, masked.grad * weight)
    assert scores.grad[~keep].abs().min() > 0
    assert torch.equal(original(model.linear, "weight").grad, masked.grad * keep)


@pytest.mark.parametrize(("structure", "block"), [("weight", (1, 1)), ("block", (4, 2)), ("2:4", (1, 1))])
@pytest.mark.parametrize("family", ["bert", "gpt2", "albert", "albert_groups", "llama", "whisper", "vit"])
def test_golden_check_9_in_every_kind_of_family(family, structure, block):
    """Transposed projections (GPT-2) and layers that are called several times (ALBERT): the weights W' = M * W are
    leaves of a stock model, whose gradients say what those of scores and weights have to be."""
    pattern = pattern_of(structure, "global", list(block) if structure == "block" else None, [], [], None)
    model, stock = family_model(family).train(), family_model(family).train()
    pattern.apply(model)
    draw, leaves, expanded, expected = torch.Generator().manual_seed(0), {}, {}, {}
    sites = pattern.sites(model)
    if structure == "2:4":
        pattern.prepare(model, sites, Target(sparsity=0.5))
    for site in sites:
        values = torch.rand(site.open.shape, generator=draw)
        opened = pattern.decide({site.name: values}, 0.5)[site.name] if structure == "2:4" else values < 0.5
        site.close(opened)
        weight = stock.get_parameter(site.name)
        inputs = 0 if isinstance(site.module, Conv1D) else 1
        sizes = block if inputs == 1 else block[::-1]
        keep = torch.kron(opened.double(), torch.ones(sizes, dtype=torch.double))
        if structure == "2:4":
            assert (keep.movedim(inputs, -1).reshape(-1, 4).sum(1) == 2).all()
        bias = site.name.removesuffix("weight") + "bias"
        if bias in dict(stock.named_parameters()):
            leaves[bias] = (stock.get_parameter(bias) * keep.any(inputs)).detach()
        leaves[site.name] = (weight * keep).detach().requires_grad_()
        expanded[site.name] = keep
        expected[site.name] = leaves[site.name], weight.detach(), sizes
    scores = {
        site.name: torch.zeros(site.open.shape, dtype=torch.double, requires_grad=True) for site in sites
    }
    for site in sites:
        site.listen(scores[site.name])
    batch = family_batch(family)
    logits = model(**batch).logits
    logits.sin().sum().backward()
    wanted = torch.func.functional_call(stock, leaves, kwargs=batch).logits
    torch.testing.assert_close(logits, wanted, rtol=0, atol=1e-10)
    wanted.sin().sum().backward()
    for site in sites:
        leaf, weight, (rows, columns) = expected[site.name]
        product = leaf.grad * weight
        tiles = product.reshape(len(product) // rows, rows, -1, columns).sum((1, 3))
        torch.testing.assert_close(scores[site.name].grad, tiles, rtol=0, atol=1e-10)
        found = original(site.module, "weight").grad
        torch.testing.assert_close(found, leaf.grad * expanded[site.name], rtol=0, atol=1e-10)
        assert scores[site.name].grad[~site.open].any()
    bake(model)
    for name, keep in expanded.items():
        assert torch.equal(model.get_parameter(name), stock.get_parameter(name) * keep)


def test_gradient_of_the_scores_of_blocks_is_the_sum_over_the_block():
    model, mask = small((2, 3))
    scores = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    mask.listener = (scores,)
    states = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    model.linear(states).square().sum().backward()
    product = original(model.linear, "weight").grad * original(model.linear, "weight").detach()
    for row in range(2):
        for column in range(2):
            part = product[2 * row : 2 * row + 2, 3 * column : 3 * column + 3]
            assert scores.grad[row, column].item() == pytest.approx(part.sum().item(), rel=1e-12)


def test_blocks_close_their_weights_by_hand():
    model, _ = small((2, 3), torch.tensor([[True, False], [False, True]]))
    expected = original(model.linear, "weight").detach().clone()
    expected[:2, 3:] = 0
    expected[2:, :3] = 0
    assert torch.equal(model.linear.weight.detach(), expected)


def test_a_row_without_weights_loses_its_bias():
    keep = torch.ones(4, 6, dtype=torch.bool)
    keep[1] = False
    keep[2, :5] = False
    model, _ = small(keep=keep)
    bias = original(model.linear, "bias").detach()
    assert model.linear.bias.tolist() == [bias[0].item(), 0.0, bias[2].item(), bias[3].item()]


def test_transposed_projections_count_blocks_as_outputs_by_inputs():
    config = GPT2Config(vocab_size=60, n_positions=16, n_embd=8, n_layer=1, n_head=2)
    model = GPT2LMHeadModel(config)
    name = "transformer.h.0.mlp.c_fc.weight"  # 8 inputs, 32 outputs, stored as (8, 32)
    apply_weight_masks(model, [name], (4, 2))
    module = model.transformer.h[0].mlp.c_fc
    mask = mask_on(module, "weight")
    assert mask.keep.shape == (4, 8)
    mask.keep[:, 1] = False
    assert not module.weight[:, 4:8].any()
    assert not module.bias[4:8].any()
    assert module.weight[:, :4].all()


@pytest.mark.parametrize("block", [(1, 1), (4, 8)])
def test_baked_equals_masked_and_has_its_names_again(block):
    model = tiny_bert(layers=2, hidden=16).double().eval()
    names, batch = set(model.state_dict()), tiny_batch()
    batch.pop("example_id")
    apply_weight_masks(model, [QUERY, QUERY.replace("query", "value")], block)
    generator = torch.Generator().manual_seed(0)
    for _, mask in masks_of(model):
        mask.keep.copy_(torch.rand(mask.keep.shape, generator=generator) > 0.7)
    whole = copy.deepcopy(model)
    expected = model(**batch).logits
    bake(model)
    assert set(model.state_dict()) == names
    assert torch.equal(model(**batch).logits, expected)
    assert transforms_of(model) == []
    zeros = (model.state_dict()[QUERY] == 0).float().mean()
    assert zeros > 0.5
    assert torch.equal(whole(**batch).logits, expected)  # a copy is not touched


def test_masks_are_put_on_once_and_again_from_their_record():
    model = tiny_bert(layers=2, hidden=16)
    apply_weight_masks(model, [QUERY], (2, 2), "a")
    apply_weight_masks(model, [QUERY], (2, 2), "a")
    apply_weight_masks(model, [QUERY.replace("query", "key")], (1, 1), "b")
    assert len(dict(masks_of(model))) == 2
    fresh = tiny_bert(layers=2, hidden=16, seed=1)
    restore(fresh, transforms_of(model))
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(**inputs()).logits, model(**inputs()).logits)


def inputs():
    batch = tiny_batch()
    batch.pop("example_id")
    return batch


def test_shared_modules_are_masked_once():
    model = tiny_model("albert", layers=3, hidden=16)
    before = model(**inputs()).logits
    from lit_compress.models.anatomy import dissect
    from lit_compress.pruning.counting import encoder_matrices

    names = encoder_matrices(model, dissect(model))
    apply_weight_masks(model, names)
    assert len(list(masks_of(model))) == len(names) == 6
    assert torch.equal(model(**inputs()).logits, before)


def test_refuses_a_second_mask():
    model = tiny_bert(layers=2, hidden=16)
    apply_weight_masks(model, [QUERY], part="a")
    with pytest.raises(ValueError, match=r"query\.weight: Expected a matrix without a mask"):
        apply_weight_masks(model, [QUERY], part="b")


def test_refuses_blocks_that_do_not_fill_the_matrix():
    with pytest.raises(ValueError, match=r"16 x 16 but got block=\[5, 4\]"):
        apply_weight_masks(tiny_bert(layers=2, hidden=16), [QUERY], (5, 4))


def test_refuses_tied_matrices():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=60, n_positions=16, n_embd=8, n_layer=1, n_head=2))
    with pytest.raises(ValueError, match="tied to lm_head.weight"):
        apply_weight_masks(model, ["transformer.wte.weight"])
