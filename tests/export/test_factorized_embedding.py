"""Models with a factorised word embedding in every runtime: the same logits, trained integers too."""

import pytest
import torch
from safetensors.torch import load_file

from lit_compress.export.gguf.encoder import encoder_layout
from lit_compress.models.checkpoint import save_folder
from lit_compress.pruning.factorize_embedding import factorize_embedding
from lit_compress.quantization import Scheme
from tests.export.computes import INTEGERS, error_of
from tests.export.test_every_scheme import rounded
from tests.tiny import tiny_bert, tiny_model

#: Runtime → its largest error, relative to the size of the logits; none of them computes with rounded activations.
PLAIN = {"torchscript-fp32": 1e-5, "onnx-fp32": 1e-4, "openvino-fp32": 1e-4, "litert-fp32": 1e-4}
RANK = 8


def narrow(family="bert"):
    model = tiny_model(family, layers=2)
    factorize_embedding(model, RANK)
    return model.eval()


@pytest.mark.parametrize("way", PLAIN, indirect=True)
def test_floats(way, tmp_path):
    assert error_of(way, narrow(), tmp_path) < PLAIN[way.name]


@pytest.mark.parametrize("way", INTEGERS, indirect=True)
def test_trained_integers(way, tmp_path):
    assert error_of(way, rounded(narrow(), [Scheme(8)], "min_max"), tmp_path) < INTEGERS[way.name]


@pytest.mark.parametrize("family", ["roberta", "distilbert", "electra"])
@pytest.mark.parametrize("way", ["onnx-fp32"], indirect=True)
def test_other_families(way, family, tmp_path):
    assert error_of(way, narrow(family), tmp_path) < PLAIN[way.name]


@pytest.mark.parametrize("way", ["onnx-int8"], indirect=True)
def test_the_file_has_both_factors_and_no_product(way, tmp_path):
    model = tiny_bert(layers=1, hidden=32, vocab=20_000)
    factorize_embedding(model, RANK)
    folder, target = save_folder(tmp_path / "model", model.eval(), None, {}), tmp_path / "file"
    target.mkdir()
    way.build(folder, target)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    assert 20_000 * RANK < size < 20_000 * 32
    assert {tuple(tensor.shape) for tensor in load_file(folder / "lit_compress.safetensors").values()} >= {
        (20_000, RANK),
        (32, RANK),
    }


def test_gguf_files_hold_the_product():
    """llama.cpp has no such layer."""
    model = narrow()
    found = encoder_layout(model).tensors["token_embd.weight"]
    assert torch.equal(found, model.get_input_embeddings().weight.detach()) and found.shape == (100, 32)
