import pytest
import torch

from lit_compress.benchmark.facts import model_facts
from tests.tiny import tiny_bert, tiny_model


def macs_by_hand(layers, hidden, inner, labels, length=128):
    """Query, key, value and output; two products of the MLP; scores and their sum; pooler and head."""
    block = 4 * length * hidden**2 + 2 * length * hidden * inner + 2 * length**2 * hidden
    return layers * block + hidden**2 + hidden * labels


@pytest.mark.parametrize("heads", [2, 4])
def test_macs_of_bert_are_those_of_the_formula(heads):
    model = tiny_bert(layers=3, hidden=32, heads=heads, labels=5).eval()
    assert model_facts(model)["macs"] == {"length": 128, "count": macs_by_hand(3, 32, 64, 5)}
    assert model.config._attn_implementation == "sdpa"


def test_macs_follow_the_layers_that_are_there():
    model = tiny_bert(layers=4).eval()
    del model.bert.encoder.layer[1:3]
    assert model_facts(model)["macs"]["count"] == macs_by_hand(2, 32, 64, 3)


def test_a_model_for_shorter_texts_has_no_macs():
    model = tiny_bert(layers=1).eval()
    model.bert.embeddings.position_embeddings = torch.nn.Embedding(100, 32)
    assert model_facts(model)["macs"] is None
    assert model_facts(model)["max_positions"] == 100


def test_zeros_are_parameters_but_not_counted_as_nonzero():
    model = tiny_bert(layers=1).eval()
    params = sum(parameter.numel() for parameter in model.parameters())
    zeros = sum(int((parameter == 0).sum()) for parameter in model.parameters())
    with torch.no_grad():
        model.bert.encoder.layer[0].output.dense.weight[:10] = 0
    facts = model_facts(model)
    assert (facts["params"], facts["nonzero_params"]) == (params, params - zeros - 10 * 64)


@pytest.mark.parametrize("family", ["roberta", "distilbert", "electra", "albert"])
def test_every_family_has_shape_and_macs(family):
    facts = model_facts(tiny_model(family, layers=2).eval())
    inside = facts["shape"].pop("per_layer", {"heads": 4, "neurons": 64})
    assert inside == {"heads": 4, "neurons": 64}
    assert facts["shape"] == {"family": family, "layers": 2, "hidden": 32, "vocab": 100}
    # Head and embeddings differ; the blocks are the same.
    blocks = macs_by_hand(2, 32, 64, 0) - 32**2
    assert 0 < facts["macs"]["count"] - blocks < 0.1 * blocks
    assert (facts["num_labels"], facts["pad_token_id"], facts["vocab_size"]) == (3, 0, 100)
