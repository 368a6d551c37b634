"""The file with the bits of every matrix, and what training and rounding make of it."""

import json
from pathlib import Path

import pytest
import torch

import lit_compress
from lit_compress.callbacks import QAT
from lit_compress.callbacks.student import deployable
from lit_compress.models.checkpoint import save_folder
from lit_compress.quantization import Scheme
from lit_compress.quantization.fake_weights import fake_weights_of
from lit_compress.quantization.inputs import input_quantizers_of
from lit_compress.quantization.mixed.file import read_mixed, write_mixed
from lit_compress.quantization.packed import packed_of
from lit_compress.quantization.post_training import quantize_model
from tests.quantization.test_fake_model import batch, logits, trained
from tests.tiny import tiny_bert

BLOCK = "bert.encoder.layer.{}.{}.weight"
SCHEMES = {
    BLOCK.format(0, "output.dense"): Scheme(2, True, "rows", 8),
    BLOCK.format(1, "output.dense"): Scheme(4, True, "rows", 8),
    BLOCK.format(1, "attention.self.query"): Scheme(3, True, "rows", 8),
    "classifier.weight": Scheme(8),
    "bert.embeddings.word_embeddings.weight": Scheme(8),
}


@pytest.fixture
def file(tmp_path):
    write_mixed(tmp_path / "bits.json", SCHEMES, {"bytes": 5})
    return str(tmp_path / "bits.json")


def test_the_file_comes_back(file):
    assert read_mixed(file, tiny_bert(layers=2)) == SCHEMES
    assert json.loads(Path(file).read_text())["bytes"] == 5


@pytest.mark.parametrize("learned", [False, True])
def test_training_rounds_each_matrix_as_the_file_says(learned, file, tmp_path):
    model = tiny_bert(layers=2)
    model = trained(model, {"mixed": file, "learned_steps": learned})
    fakes = dict(fake_weights_of(model))
    assert {name: fake.scheme for name, fake in fakes.items()} == SCHEMES
    tables = "bert.embeddings.word_embeddings.weight"
    assert all((fake.step is not None) == (learned and name != tables) for name, fake in fakes.items())
    rounded = {name for name, _ in input_quantizers_of(model)}
    assert rounded == {name.removesuffix(".weight") for name in SCHEMES if name != tables}
    for name in SCHEMES:
        path, _, tensor = name.rpartition(".")
        values = getattr(model.get_submodule(path), tensor)
        rows = values.detach().view(values.shape[0] // (SCHEMES[name].group_size or 1), -1)
        assert max(len(row.unique()) for row in rows) <= 2 ** SCHEMES[name].bits - 1
    # Each matrix is packed at its own bits, and needs the file no more.
    (tmp_path / "bits.json").unlink()
    wanted = logits(model)
    save_folder(tmp_path / "model", deployable(model), None, {})
    loaded = lit_compress.load(tmp_path / "model")
    assert torch.equal(logits(loaded), wanted)
    assert {name: packed.scheme for name, packed in packed_of(loaded)} == SCHEMES


def test_a_fit_reports_the_bits_per_weight(file, tmp_path):
    callback = QAT(mixed=file)
    model = tiny_bert(layers=2)
    callback.apply(model)
    callback.apply(model)  # of the next stage
    sizes = {
        name: model.get_parameter(f"{name.removesuffix('.weight')}.parametrizations.weight.original").numel()
        for name in SCHEMES
    }
    wanted = sum(sizes[name] * scheme.bits for name, scheme in SCHEMES.items()) / sum(sizes.values())
    assert callback.figures(model)["compress/weight_bits"] == pytest.approx(wanted)


@pytest.mark.parametrize("method", ["nearest", "gptq"])
def test_rounding_without_training_takes_the_same_bits(method, file, tmp_path):
    model = tiny_bert(layers=2).eval()
    plain = logits(model)
    untouched = model.get_parameter(BLOCK.format(0, "attention.self.query")).clone()
    quantize_model(model, read_mixed(file, model), method=method, batches=[batch(seed) for seed in range(8)])
    assert {name: packed.scheme for name, packed in packed_of(model)} == SCHEMES
    assert torch.equal(model.get_parameter(BLOCK.format(0, "attention.self.query")), untouched)
    assert not torch.equal(logits(model), plain)
    save_folder(tmp_path / "model", model, None, {})
    assert torch.equal(logits(lit_compress.load(tmp_path / "model")), logits(model))


def test_refuses_a_file_that_is_not_there(tmp_path):
    with pytest.raises(
        ValueError, match=r"at mixed=.*none\.json but there is none; write it with lit-compress sens"
    ):
        QAT(mixed=str(tmp_path / "none.json")).apply(tiny_bert(layers=1))


@pytest.mark.parametrize(
    "content",
    ["{", "[]", "{}", '{"matrices": {"a": 4}}', '{"matrices": {"a": {"bits": 1}}}', '{"matrices": []}'],
)
def test_refuses_a_file_that_holds_no_schemes(content, tmp_path):
    (tmp_path / "bits.json").write_text(content)
    with pytest.raises(
        ValueError, match=r"Expected JSON with matrices: .*bits\.json but got: .*; write it anew"
    ):
        read_mixed(tmp_path / "bits.json", tiny_bert(layers=1))


def test_refuses_a_file_without_matrices(tmp_path):
    write_mixed(tmp_path / "bits.json", {}, {})
    with pytest.raises(ValueError, match="names none; write it anew"):
        read_mixed(tmp_path / "bits.json", tiny_bert(layers=1))


def test_refuses_the_file_of_another_model(file):
    with pytest.raises(
        ValueError, match=r"of this model in .*bits\.json but it has no bert.encoder.layer.1.output"
    ):
        read_mixed(file, tiny_bert(layers=1))


def test_refuses_two_ways_to_say_how_weights_are_rounded(file):
    with pytest.raises(ValueError, match="Expected no weights, embeddings, include and exclude with mixed="):
        QAT(mixed=file, weights=Scheme(4))


def test_refuses_steps_that_cannot_be_learned(tmp_path):
    name = BLOCK.format(0, "output.dense")
    write_mixed(tmp_path / "bits.json", {name: Scheme(2, False, "rows", 8)}, {})
    with pytest.raises(ValueError, match=f"{name}: Expected a symmetric scheme for learned steps"):
        QAT(mixed=str(tmp_path / "bits.json"), learned_steps=True).apply(tiny_bert(layers=1))


def test_refuses_awq_with_a_scheme_per_matrix(file):
    with pytest.raises(ValueError, match="Expected one scheme for awq but got one per matrix"):
        quantize_model(tiny_bert(layers=2).eval(), SCHEMES, method="awq", batches=[batch()])
