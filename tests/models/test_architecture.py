"""What is read off a model."""

import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
)

from lit_compress.models.architecture import Architecture, block_list, describe
from tests.tiny import IMAGE_FAMILIES, TEXT_FAMILIES, tiny_batch, tiny_bert, tiny_images, tiny_model

FAMILIES = [*TEXT_FAMILIES, *IMAGE_FAMILIES]


@pytest.mark.parametrize("family", FAMILIES)
def test_describe_reads_the_sizes(family):
    model = tiny_model(family, layers=3, hidden=24, heads=2, vocab=90, labels=5)
    expected = Architecture(
        family=family,
        num_layers=3,
        hidden_size=24,
        num_heads=2,
        head_dim=12,
        vocab_size=None if family in IMAGE_FAMILIES else 90,
        num_labels=5,
    )
    assert describe(model) == expected
    assert describe(model.base_model).num_layers == 3


@pytest.mark.parametrize("family", FAMILIES)
def test_the_blocks_run_in_the_order_of_the_list_and_give_the_hidden_states(family):
    model = tiny_model(family, layers=3).eval()
    blocks, seen = block_list(model), []
    for block in {id(b): b for b in blocks}.values():
        block.register_forward_hook(lambda module, _, out: seen.append((module, out)))
    inputs = tiny_images() if family in IMAGE_FAMILIES else tiny_batch()
    accepted = {k: v for k, v in inputs.items() if k in ("input_ids", "attention_mask", "pixel_values")}
    with torch.no_grad():
        states = model(**accepted, output_hidden_states=True).hidden_states
    assert [id(module) for module, _ in seen] == [id(block) for block in blocks]
    for (_, out), state in zip(seen, states[1:], strict=True):
        assert torch.equal(out[0] if isinstance(out, tuple) else out, state)


def test_albert_groups_are_listed_by_call():
    config = AlbertConfig(
        vocab_size=50, embedding_size=8, hidden_size=16, num_attention_heads=2, intermediate_size=16,
        num_hidden_layers=6, num_hidden_groups=2,
    )  # fmt: skip
    model = AlbertForSequenceClassification(config)
    groups = model.albert.encoder.albert_layer_groups
    expected = [groups[0].albert_layers[0]] * 3 + [groups[1].albert_layers[0]] * 3
    assert [id(b) for b in block_list(model)] == [id(b) for b in expected]


def test_assigning_a_block_changes_the_model():
    model, other = tiny_bert(seed=0).eval(), tiny_bert(seed=1)
    inputs = {"input_ids": tiny_batch()["input_ids"]}
    before = model(**inputs).logits
    block_list(model)[1] = block_list(other)[1]
    assert not torch.allclose(before, model(**inputs).logits)


def test_refuses_an_unknown_family():
    model = GPT2ForSequenceClassification(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=20))
    with pytest.raises(
        ValueError, match=r"families albert, bert, .* but got 'gpt2' \(GPT2ForSequenceClassification\)"
    ):
        describe(model)
