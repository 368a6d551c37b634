"""Folders with codebooks, for runtimes that know none."""

import json

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from lit_compress.benchmark import artefacts
from lit_compress.callbacks.student import deployable
from lit_compress.models.checkpoint import save_folder
from lit_compress.models.manifest import read_manifest
from lit_compress.quantization.clustering.plain_folder import plain_folder
from tests.quantization.clustering.test_clustered_model import clustered
from tests.quantization.test_fake_model import batch, logits
from tests.tiny import tiny_bert, tiny_tokenizer

FACTS = {"method": "k-means", "label_names": ["a", "b", "c"]}


@pytest.fixture
def folder(tmp_path):
    model = deployable(clustered(tiny_bert(layers=1), clusters=4, entropy=True))
    path = save_folder(tmp_path / "model", model, None, FACTS, "card")
    tiny_tokenizer(path)
    return path, logits(model)


def test_stock_transformers_loads_what_computes_the_same(folder):
    path, wanted = folder
    with plain_folder(path) as plain:
        assert torch.equal(logits(AutoModelForSequenceClassification.from_pretrained(plain).eval()), wanted)
        assert (plain / "tokenizer.json").read_bytes() == (path / "tokenizer.json").read_bytes()
        manifest = read_manifest(plain)
        assert manifest["transforms"] == [] and manifest["method"] == "k-means"
        assert not list(plain.glob("lit_compress*.safetensors"))
    assert not plain.exists()


def test_other_folders_are_yielded_as_they_are(tmp_path):
    path = save_folder(tmp_path / "model", tiny_bert(layers=1), None, FACTS)
    with plain_folder(path) as plain:
        assert plain == path
    with plain_folder(tmp_path) as plain:  # without a manifest
        assert plain == tmp_path


def test_an_artefact_computes_with_the_clustered_weights(folder, tmp_path):
    path, wanted = folder
    target = tmp_path / "artefact"
    target.mkdir()
    artefacts._work("torchscript-fp32", path, target)
    (file,) = (item for item in target.iterdir() if item.suffix == ".pt")
    rows = batch(9)
    found = torch.jit.load(str(file))(rows["input_ids"], rows["attention_mask"], rows["token_type_ids"])
    found = found if isinstance(found, torch.Tensor) else found[0]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    facts = json.loads(next(target.glob("*.json")).read_text())["facts"]
    assert facts["params"] == tiny_bert(layers=1).num_parameters()
