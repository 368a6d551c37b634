"""A model that computes one token behind its last attention, where its head reads no other: the same logits."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2ForSequenceClassification

from lit_compress.callbacks.student import deployable
from lit_compress.export.first_token import first_token_alone, last_attention
from tests.export.test_ragged import ragged
from tests.quantization.test_fake_model import trained
from tests.tiny import TEXT_FAMILIES, tiny_batch, tiny_bert, tiny_model


def logits(model, lengths=(9, 4, 7)):
    batch = tiny_batch(lengths)
    with torch.inference_mode():
        return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.numpy()


def products(model, where):
    """The number of tokens, of nine, of every product within the model, in their order."""
    found, handles = [], []
    for module in model.modules():
        if isinstance(module, nn.Linear):
            keep = lambda module, args, output: found.append(output.shape[1])  # noqa: E731
            handles.append(module.register_forward_hook(keep))
    with first_token_alone(model, where):
        logits(model)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", TEXT_FAMILIES)  # layers that share their weights among them
def test_logits_stay_and_the_rest_of_the_last_block_is_computed_for_one_token(family, attention):
    model = tiny_model(family, layers=3).eval()
    model.set_attn_implementation(attention)
    wanted, where = logits(model), last_attention(model)
    with first_token_alone(model, where):
        got = logits(model)
    np.testing.assert_allclose(got, wanted, atol=1e-5, rtol=1e-5)
    counts = products(model, where)
    first = counts.index(1)
    # Query, key, value, output, and the two products of the feed-forward network.
    assert counts[first : first + 6] == [1, 9, 9, 1, 1, 1]
    assert set(counts[:first]) == {9} and first in (12, 13)  # two blocks, and what makes embeddings wider


def test_afterwards_the_model_is_what_it_was():
    model = tiny_bert().eval()
    model.set_attn_implementation("eager")
    wanted = logits(model)
    with pytest.raises(KeyError), first_token_alone(model, last_attention(model)):
        raise KeyError
    assert model.config._attn_implementation == "eager"
    np.testing.assert_array_equal(logits(model), wanted)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("family", ["bert", "distilbert"])
@pytest.mark.parametrize(("headless", "last"), [(1, 3), (3, 0)])
def test_blocks_of_different_sizes_and_without_attention(family, headless, last):
    model = ragged(family, (headless,))
    where, wanted = last_attention(model), logits(model)
    assert where.block.endswith(f".{last}")
    with first_token_alone(model, where):
        np.testing.assert_allclose(logits(model), wanted, atol=1e-5, rtol=1e-5)


class Mean(nn.Module):
    def forward(self, hidden):
        return hidden.mean(1)


class Second(nn.Module):
    def forward(self, hidden):
        return hidden[:, 1] + hidden[:, 0]


@pytest.mark.parametrize("pooler", [Mean, Second])
def test_a_head_that_reads_another_token_leaves_the_model_as_it_is(pooler):
    model = tiny_bert().eval()
    model.bert.pooler = pooler()
    where, wanted = last_attention(model), logits(model)
    assert where is None
    with first_token_alone(model, where):
        np.testing.assert_array_equal(logits(model), wanted)


def test_models_without_a_first_token_to_read_stay_as_they_are():
    sizes = {"n_layer": 2, "n_embd": 16, "n_head": 2, "vocab_size": 50, "pad_token_id": 0}
    assert last_attention(GPT2ForSequenceClassification(GPT2Config(**sizes)).eval()) is None
    assert last_attention(tiny_model("vit").eval()) is None
    assert last_attention(tiny_bert().eval().bert) is None


def test_inputs_with_fixed_ranges_are_rounded_as_before():
    model = deployable(trained(tiny_bert(), {}))
    wanted, where = logits(model), last_attention(model)
    with first_token_alone(model, where):
        np.testing.assert_allclose(logits(model), wanted, atol=1e-5, rtol=1e-5)
    assert where is not None


def test_inputs_with_the_range_of_all_tokens_are_left_to_them():
    assert last_attention(deployable(trained(tiny_bert(), {"ranges": "dynamic"}))) is None


def test_ranges_of_the_batch_at_hand_do_not_hide_what_the_head_reads():
    """A head that reads all tokens for its range alone reads them."""

    class Rounds(nn.Module):
        def forward(self, hidden):
            return (hidden / hidden.abs().max() * 127).round()[:, 0]

    model = tiny_bert().eval()
    model.bert.pooler = Rounds()
    assert last_attention(model) is None
