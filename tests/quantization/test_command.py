"""`lit-compress quantize` as a user calls it."""

import json

import pytest
import torch
import yaml

import lit_compress
from lit_compress.__main__ import main
from lit_compress.models.checkpoint import save_folder
from lit_compress.models.transforms import transforms_of
from lit_compress.quantization.inputs import input_quantizers_of
from lit_compress.quantization.packed import packed_of
from tests.callbacks.conftest import texts  # noqa: F401
from tests.tiny import tiny_bert


@pytest.fixture
def data(texts, tmp_path):  # noqa: F811
    """A YAML file with a data section."""
    source = {"folder": str(texts), "train": "train.csv", "validation": "dev.csv"}
    arguments = {
        "source": {"class_path": "Files", "init_args": source},
        "tokenizer": str(texts / "tokenizer"),
        "batch_size": 8,
        "cache_dir": str(texts / "cache"),
    }
    content = {"data": {"class_path": "TextClassificationDataModule", "init_args": arguments}}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(content))
    return str(tmp_path / "data.yaml")


@pytest.fixture
def folder(tmp_path):
    model = tiny_bert(layers=2, labels=2, hidden=64, vocab=2000)
    return str(
        save_folder(tmp_path / "model", model, None, {"method": "x", "metrics": {"val/accuracy": 0.5}})
    )


def run(*words):
    return main(["quantize", *map(str, words)])


def test_weights_alone_need_no_data(folder, tmp_path, capsys):
    out = tmp_path / "small"
    assert run(folder, "--out", out, "--bits", 4, "--group-size", 16) == 0
    model = lit_compress.load(out)
    schemes = {name: str(packed.scheme) for name, packed in packed_of(model)}
    assert schemes["bert.encoder.layer.0.output.dense.weight"] == "int4 per group of 16"
    assert schemes["bert.embeddings.word_embeddings.weight"] == "int8 per channel"
    assert "MB, 0.2" in capsys.readouterr().out
    manifest = json.loads((out / "lit_compress.json").read_text())
    assert manifest["quantization"]["weights"] == "int4 per group of 16" and "metrics" not in manifest
    assert "few bits" in (out / "README.md").read_text()


@pytest.mark.parametrize("method", ["nearest", "gptq"])
def test_with_texts(method, folder, data, tmp_path, capsys):
    out = tmp_path / "small"
    words = (
        "--method",
        method,
        "--activations",
        "static",
        "--data",
        data,
        "--texts",
        5,
        "--exclude",
        "classifier",
    )
    assert run(folder, "--out", out, *words) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "On 16 texts of validation the logits differ by" in text and "get the same label" in text
    model = lit_compress.load(out)
    assert len(list(input_quantizers_of(model))) == 13
    assert all(quantizer.is_frozen for _, quantizer in input_quantizers_of(model))
    # Of the histograms of the texts only the ranges are left.
    weights = sum(packed.integers.numel() for _, packed in packed_of(model))
    assert (out / "lit_compress.safetensors").stat().st_size < weights + 60_000


@pytest.mark.parametrize("seed", [(), ("--seed", 1)])
def test_no_text_is_counted_twice(seed, folder, data, tmp_path, capsys):
    words = ("--out", tmp_path / "small", "--data", data, "--texts", 100000, *seed)
    assert run(folder, *words, "--method", "gptq") == 0
    said = "Calibrated with 24 texts, all that there are for training, instead of 100000."
    assert capsys.readouterr().out.count(said) == 1
    manifest = json.loads((tmp_path / "small" / "lit_compress.json").read_text())
    assert manifest["quantization"]["texts"] == 24
    assert main(["prune", *map(str, (folder, *words)), "--method", "wanda", "--pattern", "2:4"]) == 0
    assert capsys.readouterr().out.count(said) == 1
    manifest = json.loads((tmp_path / "small" / "lit_compress.json").read_text())
    assert manifest["pruning"]["texts"] == 24


def test_a_seed_draws_other_texts(folder, data, tmp_path):
    grids = []
    for number, seed in enumerate(((), ("--seed", 1), ("--seed", 2), ("--seed", 2))):
        out = tmp_path / str(number)
        assert run(folder, "--out", out, "--activations", "static", "--data", data, "--texts", 3, *seed) == 0
        model = lit_compress.load(out)
        grids.append([float(each.grid().scale) for _, each in input_quantizers_of(model)])
    assert grids[0] != grids[1] != grids[2] == grids[3]


def test_float16_refuses_what_it_cannot_hold(folder, tmp_path, capsys):
    model = lit_compress.load(folder)
    model.classifier.weight.data[0, 0] = 1e5
    large = save_folder(tmp_path / "large", model, None, {"method": "x"})
    assert run(large, "--out", tmp_path / "half", "--method", "fp16") == 1
    text = " ".join(capsys.readouterr().err.split())
    assert "weights up to 65,504 for float16 but classifier.weight has larger ones" in text
    assert not (tmp_path / "half").exists()


def test_a_cast_is_an_ordinary_folder(folder, tmp_path):
    assert run(folder, "--out", tmp_path / "half", "--method", "bf16") == 0
    model = lit_compress.load(tmp_path / "half")
    assert {tensor.dtype for tensor in model.parameters()} == {torch.bfloat16}
    assert transforms_of(model) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--method", "adaround"), "Expected a method among nearest, gptq, awq"),
        (("--method", "adaround"), "but got 'adaround'; change --method."),
        (
            ("--method", "int8"),
            "leave --method out, as 8 bits are usual; for a runtime's own int8 call lit-compress",
        ),
        (
            ("--method", "openvino-int8"),
            "call lit-compress export FOLDER --format openvino --precision int8.",
        ),
        (("--method", "wanda"), "call lit-compress prune FOLDER --method wanda."),
        (("--method", "smoothquant"), "give --smooth 0.5 --activations static."),
        (("--method", "torchao"), "give --bits, --group-size or --activations."),
        (("--method", "gptq"), "nothing names data; give a YAML file with a data section with --data"),
        (("--activations", "static"), "nothing names data"),
        (
            ("--activations", "fixed"),
            "Expected activations to be one of none, static, dynamic but got 'fixed'",
        ),
        (("--method", "bf16", "--bits", "4"), "options that the method bf16 takes (none) but got --bits"),
        (("--texts", "0", "--activations", "static"), "at least one text to calibrate with but got 0"),
        (("--bits", "9"), "Expected bits from 2 to 8 but got 9; correct bits (--bits, --embedding-bits"),
        (("--group-size", "-1"), "but got -1; correct group_size (--group-size), or leave it out"),
        (("--method", "kmeans", "--clusters", "300"), "but got 300; correct clusters (--clusters or"),
        (("--method", "kmeans", "--rows", "0"), "but got 0; correct rows (--rows or --embedding-rows)"),
        (
            ("--data", "absent.yaml"),
            "Expected a YAML file with a data section at absent.yaml but there is none; correct the path (--data).",
        ),
        (("--group-size", "7"), "divides the 64 inputs of every output but got 7"),
        (("--exclude", "nothing"), "'nothing' is in no name"),
    ],
)
def test_refuses_in_one_paragraph_and_leaves_nothing(words, message, folder, tmp_path, capsys):
    assert run(folder, "--out", tmp_path / "small", *words) == 1
    text = capsys.readouterr().err
    assert message in " ".join(text.split()) and text.count("\n") == 1
    assert not (tmp_path / "small").exists()


def test_refuses_a_place_that_something_else_has(folder, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    assert run(folder, "--out", tmp_path / "mine") == 1
    assert "something else is there" in capsys.readouterr().err
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "x"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--ranges", "nonsense"], "Expected ranges to be one of"),
        (["--activation-bits", "6"], "Expected --activations static or dynamic with --activation-bits 6"),
        (["--per", "tensor", "--group-size", "16"], "Expected either --group-size or --per"),
        (["--per", "rows"], "Expected group_size"),
        (["--ranges", "percentile"], "Expected --activations static with --ranges percentile"),
        (
            ["--activations", "dynamic", "--ranges", "min_max"],
            "Expected --activations static with --ranges min_max",
        ),
        (["--texts", "16"], "Expected gptq, awq, --smooth or --activations static with --texts"),
        (["--seed", "1"], "Expected gptq, awq, --smooth or --activations static with --texts and --seed"),
        (
            ["--embedding-bits", "0", "--embedding-group-size", "16"],
            "Expected embeddings that are rounded with",
        ),
        (
            ["--method", "kmeans", "--embedding-clusters", "0", "--embedding-rows", "8"],
            "Expected embeddings that are clus",
        ),
    ],
)
def test_refuses_options_that_would_do_nothing(words, message, folder, tmp_path, capsys):
    assert run(folder, "--out", tmp_path / "small", *words) == 1
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "small").exists()


@pytest.mark.parametrize("method", ["nearest", "gptq", "awq"])
@pytest.mark.parametrize("per", ["channel", "tensor", "group of 16"])
def test_the_textbook_set(method, per, folder, data, tmp_path):
    shared = ("--group-size", 16) if per.startswith("group") else ("--per", per)
    words = ("--method", method, "--bits", 6, "--zero-points", *shared, "--activations", "static")
    assert run(folder, "--out", tmp_path / "small", *words, "--activation-bits", 6, "--data", data) == 0
    model = lit_compress.load(tmp_path / "small")
    schemes = {name: str(packed.scheme) for name, packed in packed_of(model)}
    assert schemes["bert.encoder.layer.0.output.dense.weight"] == f"uint6 per {per}"
    assert schemes["bert.embeddings.word_embeddings.weight"] == "uint8 per channel"
    assert {str(quantizer.scheme) for _, quantizer in input_quantizers_of(model)} == {"uint6 per tensor"}
    manifest = json.loads((tmp_path / "small" / "lit_compress.json").read_text())
    assert manifest["quantization"]["activations"] == "static uint6 per tensor"
    weight = lit_compress.load(folder).bert.encoder.layer[0].output.dense.weight
    found = model.bert.encoder.layer[0].output.dense.weight
    assert float((found - weight).norm() / weight.norm()) < 0.05
