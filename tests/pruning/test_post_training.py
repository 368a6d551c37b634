"""Pruning without training: `prune_model` on every family, and `lit-compress prune` as a user calls it."""

import copy
import json

import pytest
import torch
from transformers import AutoModelForCausalLM

import lit_compress
from lit_compress.__main__ import main
from lit_compress.models.anatomy import dissect
from lit_compress.pruning.counting import encoder_matrices
from lit_compress.pruning.post_training import METHODS, prune_model
from lit_compress.pruning.sparsegpt import sparsegpt, wanda
from lit_compress.quantization import Scheme
from lit_compress.quantization.awq import outputs_first
from lit_compress.quantization.calibration import read_by
from lit_compress.quantization.packed import packed_of
from lit_compress.quantization.post_training import quantize_model
from tests.families import EVERY_FAMILY, family_batch, family_model
from tests.language import llama_folder, text_file
from tests.quantization.test_fake_model import batch, logits
from tests.tiny import tiny_bert


def batches(count=4):
    return [batch(seed) for seed in range(count)]


def run(*words):
    return main(["prune", *map(str, words)])


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_every_family_has_exact_counts_in_its_blocks_and_all_else_as_it_was(family):
    model = family_model(family, 2).float()
    texts = [family_batch(family, seed, torch.float32) for seed in range(2)]
    for method in METHODS:
        small = copy.deepcopy(model)
        prune_model(small, method, pattern=(2, 4), batches=texts)
        names = encoder_matrices(small, dissect(small))
        for name in names:
            weight = outputs_first(small.get_submodule(name.removesuffix(".weight")))
            assert bool(((weight.reshape(len(weight), -1, 4) != 0).sum(-1) == 2).all()), name
        for name, tensor in small.named_parameters():
            assert name in names or torch.equal(tensor, model.get_parameter(name))


def test_blocks_are_calibrated_with_the_pruned_blocks_before_them():
    model = tiny_bert(layers=2).eval()
    small = copy.deepcopy(model)
    prune_model(small, "sparsegpt", 0.5, batches=batches())
    half = copy.deepcopy(model)  # by hand: only the first block is pruned
    with torch.no_grad():
        for name, tensor in half.named_parameters():
            if "layer.0." in name:
                tensor.copy_(small.get_parameter(name))
    query = "bert.encoder.layer.1.attention.self.query"
    for start, same in ((half, True), (model, False)):
        statistics = next(iter(read_by(copy.deepcopy(start), [[query]], batches())))[query]
        wanted = sparsegpt(model.get_submodule(query).weight, statistics.hessian(), 0.5)
        assert torch.equal(wanted, small.get_submodule(query).weight) == same


def test_the_more_a_method_knows_the_nearer_are_the_logits():
    model = tiny_bert(layers=2, hidden=64).eval()
    with torch.no_grad():  # some inputs are louder than others, which magnitude does not know
        for name, tensor in model.named_parameters():
            if "LayerNorm.weight" in name:
                tensor[::4] *= 4
    wanted = torch.stack([logits(model, seed) for seed in range(20, 25)])
    errors = []
    for method in METHODS:
        small = copy.deepcopy(model)
        prune_model(small, method, 0.5, batches=batches(10))
        found = torch.stack([logits(small, seed) for seed in range(20, 25)])
        errors.append(float((found - wanted).square().mean()))
    assert errors == sorted(errors) and errors[0] < 0.8 * errors[2]


def test_magnitude_compares_the_weights_of_a_matrix_and_wanda_those_of_an_output():
    model = tiny_bert(layers=1).eval()
    query = model.bert.encoder.layer[0].attention.self.query
    with torch.no_grad():
        query.weight[:16] *= 1e-6  # half of the outputs have small weights
    small = copy.deepcopy(model)
    prune_model(small, "magnitude", 0.5, include=["query"])
    left = small.bert.encoder.layer[0].attention.self.query.weight
    assert int(left[:16].count_nonzero()) == 0 and int(left[16:].count_nonzero()) == 16 * 32
    even = wanda(query.weight, torch.ones(32), 0.5)
    assert bool(((even != 0).sum(1) == 16).all())
    assert torch.equal(
        small.bert.encoder.layer[0].output.dense.weight, model.bert.encoder.layer[0].output.dense.weight
    )


@pytest.mark.parametrize("method", ["nearest", "gptq", "awq"])
def test_quantizing_keeps_the_zeros(method):
    model = tiny_bert(layers=2).eval()
    prune_model(model, "sparsegpt", pattern=(2, 4), batches=batches())
    zeros = {name: model.get_parameter(name) == 0 for name in encoder_matrices(model, dissect(model))}
    quantize_model(model, Scheme(4, True, "group", 8), method=method, batches=batches())
    for name, packed in packed_of(model):
        if name in zeros:
            assert bool((packed.values[zeros[name]] == 0).all()) and bool(
                (packed.whole_numbers()[zeros[name]] == 0).all()
            )


def test_a_pruned_language_model_is_an_ordinary_folder(tmp_path, capsys):
    folder, path = llama_folder(tmp_path / "model"), text_file(tmp_path / "text.txt")
    words = ("--method", "wanda", "--pattern", "2:4", "--data", path, "--length", 8, "--texts", 10)
    assert run(folder, "--out", tmp_path / "sparse", *words) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "the perplexity goes from" in text and "it is not smaller and not faster" in text
    stock = AutoModelForCausalLM.from_pretrained(tmp_path / "sparse")
    weight = stock.model.layers[1].mlp.down_proj.weight
    assert bool(((weight.view(32, -1, 4) != 0).sum(-1) == 2).all())
    ours = lit_compress.load(tmp_path / "sparse")
    assert torch.equal(ours.lm_head.weight, lit_compress.load(folder).lm_head.weight)
    manifest = json.loads((tmp_path / "sparse" / "lit_compress.json").read_text())
    assert manifest["pruning"]["method"] == "wanda" and manifest["pruning"]["encoder_sparsity"] == 0.5
    assert "metrics" not in manifest
    assert "50.0 % (50.0 % asked)" in (tmp_path / "sparse" / "README.md").read_text()
    assert main(["quantize", str(tmp_path / "sparse"), "--out", str(tmp_path / "small"), "--bits", "4"]) == 0
    assert "pruning" in json.loads((tmp_path / "small" / "lit_compress.json").read_text())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--method", "random", "--sparsity", 0.5),
            "Expected a method among sparsegpt, wanda, magnitude but got 'random'",
        ),
        (
            ("--method", "wanda"),
            "Expected one of --sparsity and --pattern but got sparsity=None, pattern=None",
        ),
        (
            ("--method", "wanda", "--sparsity", 0.5, "--pattern", "2:4"),
            "Expected one of --sparsity and --pattern",
        ),
        (
            ("--method", "magnitude", "--pattern", "half"),
            "Expected a pattern n:m such as 2:4 but got --pattern half",
        ),
        (("--method", "magnitude", "--pattern", "3:2"), "q_proj: Expected a pattern n:m with n <= m"),
        (("--method", "magnitude", "--sparsity", 1.5), "Expected a sparsity from 0 to 1"),
        (("--method", "wanda", "--sparsity", 0.5), "nothing names data"),
        (("--method", "magnitude", "--sparsity", 0.5, "--include", "lm_head"), "'lm_head' is in none"),
        (("--method", "magnitude", "--sparsity", 0.5, "--exclude", "proj"), "include and exclude leave none"),
        (
            ("--method", "magnitude", "--sparsity", 0.5, "--data", "nowhere.txt"),
            "at nowhere.txt but there is none",
        ),
    ],
)
def test_refuses_in_one_paragraph_and_leaves_nothing(words, message, tmp_path, capsys):
    assert run(llama_folder(tmp_path / "model"), "--out", tmp_path / "sparse", *words) == 1
    text = capsys.readouterr().err
    assert message in " ".join(text.split()) and text.count("\n") == 1
    assert not (tmp_path / "sparse").exists()


def test_refuses_a_model_that_is_rounded_already(tmp_path, capsys):
    folder = llama_folder(tmp_path / "model")
    assert main(["quantize", folder, "--out", str(tmp_path / "small")]) == 0
    assert run(tmp_path / "small", "--out", tmp_path / "x", "--method", "magnitude", "--sparsity", 0.5) == 1
    assert "Expected a model whose weights are not rounded yet but it has packed_weights" in " ".join(
        capsys.readouterr().err.split()
    )


def test_refuses_activations_that_are_no_numbers():
    model = tiny_bert(layers=1).eval()
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight.fill_(float("nan"))
    for method in ("sparsegpt", "wanda"):
        with pytest.raises(ValueError, match="Expected finite activations"):
            prune_model(model, method, 0.5, batches=batches(1))
