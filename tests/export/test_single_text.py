"""What LiteRT and ExecuTorch export of a model, in torch; neither need be installed."""

import sys

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    XLNetConfig,
    XLNetForSequenceClassification,
)

from lit_compress.benchmark.runtimes.executorch import ExecuTorchFp32, ExecuTorchInt8
from lit_compress.benchmark.runtimes.litert import LiteRtFp32, LiteRtInt8
from lit_compress.export.single_text import (
    LONGEST,
    SingleText,
    longest_text,
    plain_attention,
    quantize_embeddings,
)
from lit_compress.models.checkpoint import save_folder
from tests.export.single_texts import wanted
from tests.export.test_ragged import ragged
from tests.tiny import tiny_bert, tiny_model


@torch.inference_mode()
def logits(model, ids, length, padded):
    with plain_attention(model, padded=padded):
        single = SingleText(model, padded).eval()
        inputs = {**single.example(ids.shape[1]), "input_ids": ids.int()}
        if padded:
            inputs["attention_mask"] = (torch.arange(ids.shape[1]) < length)[None].int()
        return single(**inputs).numpy()


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "electra", "albert", "ragged"])
def test_one_text_gets_its_logits_whatever_stands_behind_it(family):
    model = ragged() if family == "ragged" else tiny_model(family, layers=2).eval()
    before = model.config._attn_implementation
    ids = torch.randint(5, 100, (1, 20), generator=torch.Generator().manual_seed(0))
    text = {"input_ids": ids[:, :13].numpy(), "attention_mask": np.ones((1, 13), dtype=np.int64)}
    expected = wanted(model, text)
    np.testing.assert_allclose(logits(model, ids[:, :13], 13, padded=False), expected, atol=2e-5)
    np.testing.assert_allclose(logits(model, ids, 13, padded=True), expected, atol=2e-5)
    assert np.abs(logits(model, ids, 20, padded=True) - expected).max() > 1e-3
    assert model.config._attn_implementation == before


def test_inputs_are_int32_and_only_those_that_the_model_has():
    for family, names in (("bert", ["input_ids", "token_type_ids"]), ("distilbert", ["input_ids"])):
        inputs = SingleText(tiny_model(family, layers=1), padded=False).example(7)
        assert list(inputs) == names
        assert {tensor.dtype for tensor in inputs.values()} == {torch.int32}
        assert {tuple(tensor.shape) for tensor in inputs.values()} == {(1, 7)}


def test_the_longest_text_is_what_the_model_reads_within_bounds():
    assert longest_text(tiny_bert(layers=1)) == 130
    model = tiny_bert(layers=1)
    model.bert.embeddings.position_embeddings = nn.Embedding(2000, 32)
    assert longest_text(model) == LONGEST == 512


@pytest.mark.parametrize("way", [LiteRtFp32, LiteRtInt8, ExecuTorchFp32, ExecuTorchInt8])
@pytest.mark.parametrize(("positions", "longest"), [(130, 130), (700, 512), (-1, 512)])
def test_the_facts_of_a_file_have_its_longest_text(way, positions, longest, tmp_path):
    model = tiny_bert(layers=1).eval()
    if positions < 0:  # a model that knows no limit
        config = XLNetConfig(vocab_size=50, d_model=16, n_layer=1, n_head=2, d_inner=32)
        model = XLNetForSequenceClassification(config)
    elif positions != 130:
        model = BertForSequenceClassification(
            BertConfig(**{**model.config.to_dict(), "max_position_embeddings": positions})
        )
    folder = save_folder(tmp_path / "model", model, None, {})
    assert way().facts(folder)["max_positions"] == longest


def test_embeddings_are_rounded_to_the_nearest_of_255_values_per_row():
    model = tiny_bert(layers=1).eval()
    table = model.bert.embeddings.word_embeddings
    table.weight.data[3] = 0
    weight = table.weight.detach().clone()
    quantize_embeddings(model)
    assert not any(isinstance(module, nn.Embedding) for module in model.modules())
    rounded = model.bert.embeddings.word_embeddings(torch.arange(100))
    scale = weight.abs().amax(1, keepdim=True) / 127
    assert ((rounded - weight).abs() <= 0.501 * scale).all()
    assert (rounded[3] == 0).all() and (rounded != weight).any()
    stored = model.bert.embeddings.word_embeddings.state_dict()
    assert (stored["weight"].dtype, stored["scale"].shape) == (torch.int8, (100, 1))


@pytest.mark.parametrize(
    ("ways", "module"),
    [
        ((LiteRtFp32, LiteRtInt8), "litert_torch"),
        ((LiteRtFp32, LiteRtInt8), "ai_edge_litert"),
        ((ExecuTorchFp32, ExecuTorchInt8), "executorch"),
    ],
)
def test_refuses_where_a_library_is_missing(ways, module, monkeypatch, tmp_path):
    tiny_bert(layers=1).save_pretrained(tmp_path / "model")
    monkeypatch.setitem(sys.modules, module, None)
    extra = "executorch" if module == "executorch" else "litert"
    for way in ways:
        for call in (way().check, lambda way=way: way().build(tmp_path / "model", tmp_path)):
            with pytest.raises(ImportError, match=rf'{module} .*pip install "lit-compress\[{extra}\]"'):
                call()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
