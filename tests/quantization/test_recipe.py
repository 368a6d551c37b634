"""The options of `lit-compress quantize` in a YAML file."""

import json

import pytest

from lit_compress.__main__ import main
from lit_compress.models.checkpoint import save_folder
from tests.runs import RECIPES
from tests.tiny import tiny_bert


@pytest.fixture
def run(tmp_path):
    """Quantize a tiny model by a file of this content."""
    model = save_folder(tmp_path / "model", tiny_bert(layers=1, hidden=64), None, {})

    def call(content, *words):
        (tmp_path / "mine.yaml").write_text(content)
        config = ["--config", str(tmp_path / "mine.yaml")]
        return main(["quantize", *config, str(model), "--out", str(tmp_path / "small"), *words])

    return call


def facts(folder):
    return json.loads((folder / "lit_compress.json").read_text())["quantization"]


def test_takes_the_options_of_a_file(run, tmp_path):
    assert run("{method: nearest, bits: 4, group_size: 16, embedding_bits: 0}") == 0
    assert facts(tmp_path / "small")["weights"] == "int4 per group of 16"
    assert facts(tmp_path / "small")["embeddings"] is None


def test_options_on_the_command_line_win(run, tmp_path):
    assert run("{method: nearest, bits: 4, group_size: 16}", "--bits", "6") == 0
    assert facts(tmp_path / "small")["weights"] == "int6 per group of 16"
    # Another method must take what the file says, too.
    assert run("{method: nearest, bits: 4}", "--method", "bf16") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{method: nearest, bitz: 4}", "options that the method nearest takes"),
        ("{method: nf4, bits: 4}", "but got --bits"),
        ("{method: gptqq}", "but got 'gptqq'"),
        ("{method: 4}", "but got 4"),
        ("{method: nearest, data: {class_path: X}}", "Expected str | None as data in"),
        ("{method: nearest, bits: four}", "Expected int as bits in"),
        ("{method: nearest, bits: true}", "but got True"),
        ("{method: nearest, include: query}", "Expected list[str] | None as include in"),
        ("{bits: 4}", "Expected a method in"),
        ("[nearest]", "Expected keys"),
        ("", "Expected keys"),
        ("{method: nearest, out: x}", "but got --out"),
        ("{method: [", "mine.yaml"),
    ],
)
def test_refuses_what_is_no_option_and_names_the_file(content, message, run, tmp_path, capsys):
    assert run(content) == 1
    text = capsys.readouterr().err
    assert message in text and "mine.yaml" in text and text.count("\n") == 1
    assert not (tmp_path / "small").exists()


def test_refuses_a_file_that_is_not_there(run, capsys):
    assert main(["quantize", "--config", "nothing.yaml", "x", "--out", "y"]) == 1
    assert "nothing.yaml" in capsys.readouterr().err


def test_refuses_a_recipe_for_fit(tmp_path, capsys):
    recipe = str(RECIPES / "distil" / "pkd_skip.yaml")
    assert main(["quantize", "--config", recipe, "x", "--out", str(tmp_path / "y")]) == 1
    assert "recipes for lit-compress fit are not for lit-compress quantize" in capsys.readouterr().err


def test_refuses_to_fit_it(capsys):
    recipe = str(RECIPES / "quantize" / "gptq.yaml")
    assert main(["fit", "--config", recipe]) != 0
    assert f"run lit-compress quantize --config {recipe} FOLDER --out DIR" in capsys.readouterr().err


def test_validates(run, tmp_path, capsys):
    (tmp_path / "wrong.yaml").write_text("{method: nearest, bitz: 4}")
    assert main(["recipes", "validate", str(tmp_path / "wrong.yaml")]) == 1
    assert "--bitz" in capsys.readouterr().err
    (tmp_path / "right.yaml").write_text("{method: nearest, bits: 4}")
    assert main(["recipes", "validate", str(tmp_path / "right.yaml")]) == 0
    assert "valid" in capsys.readouterr().out
