"""Language models through `lit-compress quantize`, calibrated with plain text."""

import math
import re

import pytest
import torch
from transformers import AutoTokenizer

import lit_compress
from lit_compress.__main__ import main
from lit_compress.data.token_blocks import token_blocks
from lit_compress.models.checkpoint import save_folder
from lit_compress.quantization.packed import packed_of
from lit_compress.quantization.text_file import TextFile
from tests.language import llama_folder, text_file
from tests.tiny import tiny_bert, tiny_tokenizer


@pytest.fixture
def tokenizer(tmp_path):
    return AutoTokenizer.from_pretrained(tiny_tokenizer(tmp_path / "tokenizer"))


def run(*words):
    return main(["quantize", *map(str, words)])


def test_blocks_to_compare_on_are_never_calibrated_with(tokenizer, tmp_path):
    path = tmp_path / "text.txt"
    source = TextFile(path.with_name(text_file(path).rsplit("/", 1)[-1]), tokenizer, 8)
    blocks = token_blocks(path, tokenizer, 8)
    assert len(blocks) == 75
    samples = source.samples("student", 68)
    seen = torch.cat([torch.from_numpy(sample["input_ids"]) for sample in samples])
    assert torch.equal(seen, blocks[:68])  # seven of 75 are kept apart
    drawn = [sample["input_ids"].tolist() for sample in source.samples("student", 20, seed=1)]
    assert drawn == [sample["input_ids"].tolist() for sample in source.samples("student", 20, seed=1)]
    assert drawn != [sample["input_ids"].tolist() for sample in source.samples("student", 20, seed=2)]
    assert all(block[0] in seen.tolist() for block in drawn)


def test_losses_are_those_of_the_next_tokens(tokenizer, tmp_path):
    path = text_file(tmp_path / "text.txt")
    model = lit_compress.load(llama_folder(tmp_path / "model"))
    found = TextFile(tmp_path / "text.txt", tokenizer, 8).losses(model)
    blocks = token_blocks(path, tokenizer, 8)[-7:]
    for loss, block in zip(found, blocks, strict=True):
        with torch.no_grad():
            wanted = model(input_ids=block[None], labels=block[None]).loss
        assert math.isclose(float(loss), float(wanted), rel_tol=1e-5)


@pytest.mark.parametrize("method", ["nearest", "gptq", "awq"])
def test_a_language_model_is_rounded_and_its_perplexity_told(method, tmp_path, capsys):
    folder, path = llama_folder(tmp_path / "model"), text_file(tmp_path / "text.txt")
    words = ("--method", method, "--bits", 4, "--group-size", 16, "--data", path, "--length", 8)
    texts = () if method == "nearest" else ("--texts", 12)
    assert run(folder, "--out", tmp_path / "small", *words, *texts) == 0
    text = " ".join(capsys.readouterr().out.split())
    numbers = re.search(r"On the last 7 blocks of text.txt, .* goes from ([\d.]+) to ([\d.]+)\.", text)
    source = TextFile(tmp_path / "text.txt", AutoTokenizer.from_pretrained(folder), 8)
    small = lit_compress.load(tmp_path / "small")
    for number, model in zip(numbers.groups(), (lit_compress.load(folder), small), strict=True):
        assert math.isclose(float(number), float(source.losses(model).mean().exp()), rel_tol=1e-3)
    assert len(list(packed_of(small))) == 16  # seven projections in each block, embedding and head
    card = (tmp_path / "small" / "README.md").read_text()
    assert "A language model made with" in card and "pipeline_tag: text-generation" in card


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data", "nowhere.txt"), "Expected a text file in UTF-8 at nowhere.txt but there is none"),
        (("--data", "TEXT", "--length", "500"), "at least two blocks of 500 tokens in"),
        (("--data", "TEXT", "--length", "8", "--method", "gptq"), "Expected 128 blocks of 8 tokens in"),
        (("--length", "8"), "Expected a text file with --data for --length 8 but got none"),
        (("--method", "awq"), "nothing names data"),
    ],
)
def test_refuses_texts_in_one_paragraph(words, message, tmp_path, capsys):
    folder, path = llama_folder(tmp_path / "model"), text_file(tmp_path / "text.txt")
    words = [path if word == "TEXT" else word for word in words]
    assert run(folder, "--out", tmp_path / "small", *words) == 1
    text = capsys.readouterr().err
    assert message in " ".join(text.split()) and text.count("\n") == 1
    assert not (tmp_path / "small").exists()


def test_refuses_plain_text_for_a_classifier(tmp_path, capsys):
    folder = save_folder(tmp_path / "model", tiny_bert(layers=1), None, {})
    assert run(folder, "--out", tmp_path / "small", "--data", text_file(tmp_path / "text.txt")) == 1
    assert "plain text is for language models" in " ".join(capsys.readouterr().err.split())


def test_refuses_a_language_model_without_tokenizer(tmp_path, capsys):
    folder = llama_folder(tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "model" / name).unlink()
    assert run(folder, "--out", tmp_path / "small", "--data", text_file(tmp_path / "text.txt")) == 1
    assert "Expected a tokenizer in" in " ".join(capsys.readouterr().err.split())
