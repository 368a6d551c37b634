"""The method ``kmeans`` of ``lit-compress quantize``."""

import json

import pytest
import torch

import lit_compress
from lit_compress.__main__ import main
from lit_compress.models.checkpoint import save_folder
from lit_compress.quantization.clustering.codebook import blocks_of
from lit_compress.quantization.clustering.codebook_weights import codebooks_of
from lit_compress.quantization.clustering.kmeans import kmeans
from tests.tiny import tiny_bert

MATRIX = "bert.encoder.layer.1.output.dense.weight"


@pytest.fixture
def model():
    found = tiny_bert(layers=2, labels=2, hidden=64, vocab=2000)
    # Three quarters of every projection are pruned.
    draw = torch.Generator().manual_seed(0)
    for name, parameter in found.named_parameters():
        if name.endswith("dense.weight"):
            parameter.data *= torch.rand(parameter.shape, generator=draw) < 0.25
    return found


@pytest.fixture
def folder(model, tmp_path):
    return str(save_folder(tmp_path / "model", model, None, {"method": "x"}))


def run(*words):
    return main(["quantize", *map(str, words), "--method", "kmeans"])


def size(path):
    return sum(file.stat().st_size for file in path.glob("*.safetensors"))


def test_every_weight_is_the_nearest_value_of_k_means(folder, model, tmp_path, capsys):
    assert run(folder, "--out", tmp_path / "small", "--clusters", 8, "--embedding-clusters", 0) == 0
    small = lit_compress.load(tmp_path / "small")
    stored = dict(codebooks_of(small))
    assert len(stored) == 14 and not any("embeddings" in name for name in stored)
    before = model.get_parameter(MATRIX).detach()
    centroids = kmeans(before, 8, "kmeans++", generator=torch.Generator().manual_seed(0))
    owner = (before.reshape(-1, 1).double() - centroids.double()).abs().argmin(1)
    assert torch.equal(stored[MATRIX].values, centroids[owner].view(before.shape))
    manifest = json.loads((tmp_path / "small" / "lit_compress.json").read_text())
    assert manifest["quantization"]["projections"] == "8 float32 values per tensor"
    assert "MB, 0." in capsys.readouterr().out


def test_pruned_weights_stay_zero_and_their_short_words_make_the_file_smaller(folder, model, tmp_path):
    shared = ("--keep-zeros", "--centroid-bits", 8, "--rows", 32, "--embedding-rows", 100)
    assert run(folder, "--out", tmp_path / "packed", *shared) == 0
    assert run(folder, "--out", tmp_path / "coded", *shared, "--entropy") == 0
    packed, coded = (lit_compress.load(tmp_path / name) for name in ("packed", "coded"))
    for name, stored in codebooks_of(coded):
        assert torch.equal(stored.values, dict(codebooks_of(packed))[name].values)
        assert stored.centroids.dtype == torch.int8
        if name == MATRIX:
            assert torch.equal(stored.values == 0, model.get_parameter(MATRIX) == 0)
            assert len(stored.indices) < 0.5 * len(dict(codebooks_of(packed))[name].indices)
        for block in blocks_of(stored.values, stored.codebook.rows):
            assert len(block.unique()) <= 16
    assert size(tmp_path / "coded") < 0.9 * size(tmp_path / "packed")


def test_files_have_the_bytes_of_their_bits(folder, tmp_path):
    full = size(tmp_path / "model")
    for clusters, bits in ((256, 8), (16, 4), (8, 3), (2, 1)):
        out = tmp_path / str(clusters)
        assert run(folder, "--out", out, "--clusters", clusters, "--embedding-clusters", clusters) == 0
        assert bits / 32 * full < size(out) < (bits / 32 + 0.14) * full


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--clusters", 257), "Expected 2 to 256 clusters"),
        (("--init", "far"), "Expected init to be one of linear, density, kmeans++ but got 'far'"),
        (("--bits", 4), "Expected options that the method kmeans takes"),
        (("--include", "nothing"), "'nothing' is in no name"),
    ],
)
def test_refuses_in_one_paragraph_and_leaves_nothing(words, message, folder, tmp_path, capsys):
    assert run(folder, "--out", tmp_path / "small", *words) == 1
    text = capsys.readouterr().err
    assert message in " ".join(text.split()) and text.count("\n") == 1
    assert not (tmp_path / "small").exists()


def test_refuses_a_model_of_few_bits(folder, tmp_path, capsys):
    assert run(folder, "--out", tmp_path / "small") == 0
    assert run(tmp_path / "small", "--out", tmp_path / "again") == 1
    assert "Expected a model of ordinary weights but it has codebook_weights" in capsys.readouterr().err


def test_refuses_weights_that_are_no_numbers(model, tmp_path, capsys):
    model.classifier.weight.data[0, 0] = float("nan")
    folder = save_folder(tmp_path / "broken", model, None, {"method": "x"})
    assert run(folder, "--out", tmp_path / "small") == 1
    assert "classifier.weight: Expected finite values to cluster" in capsys.readouterr().err
