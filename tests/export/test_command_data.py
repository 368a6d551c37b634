"""The export verb and the data of a model: none known, tokens of a teacher, pairs, and texts that are too long."""

import json
from pathlib import Path

import pytest
import yaml

from lit_compress.__main__ import main
from lit_compress.benchmark.artefacts import Artefact
from lit_compress.export import command
from lit_compress.export.check import Agreement
from lit_compress.export.command import export_folder
from lit_compress.models.checkpoint import save_folder
from tests.tiny import tiny_bert, tiny_tokenizer

TEXTS = 60


@pytest.fixture
def built(tmp_path, monkeypatch):
    """Let a file stand for what a clean process builds, and for its comparison; return what was asked for."""
    calls = {"samples": [], "rows": [], "measured": [], "longest": 130}

    def prepare(folder, name, timeout, samples=()):
        calls["samples"].append([batch["input_ids"][0].tolist() for batch in samples])
        (tmp_path / "built").mkdir(exist_ok=True)
        (tmp_path / "built" / "model.onnx").write_bytes(b"graph")
        facts = {
            "max_positions": calls["longest"],
            "vocab_size": 100,
            "pad_token_id": 0,
            "parity_error": 1e-6,
        }
        return Artefact(command.local_folder(folder), tmp_path / "built", 5, facts)

    def agreement(artefact, name, rows, *others):
        calls["rows"] += rows
        return Agreement(len(rows), 1e-4, 1.0, 0.9, 0.9)

    monkeypatch.setattr(command, "prepare", prepare)
    monkeypatch.setattr(command, "agreement", agreement)
    monkeypatch.setattr(command, "benchmark_folders", lambda *given, **more: calls["measured"].append(given))
    return calls


@pytest.fixture
def run(tmp_path):
    """Return a function that makes a run with a model folder and the data that it was trained on."""

    def make(text="text", **data):
        folder = save_folder(tmp_path / "run" / "model", tiny_bert(layers=1, labels=2), None, {})
        tiny_tokenizer(folder)
        rows = [f"{'good film ' * (1 + n % 9)},bad plot,{'ab'[n % 4 == 0]}" for n in range(TEXTS)]
        (tmp_path / "dev.csv").write_text("\n".join(["text,other,label", *rows]) + "\n")
        files = {"folder": str(tmp_path), "train": "dev.csv", "validation": "dev.csv"}
        init = {
            "source": {"class_path": "Files", "init_args": files},
            "text": text,
            "tokenizer": str(folder),
            "cache_dir": str(tmp_path / "cache"),
            **data,
        }
        config = {"data": {"class_path": "TextClassificationDataModule", "init_args": init}}
        (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
        return folder

    return make


@pytest.fixture
def stock(tmp_path):
    """A folder as stock transformers writes it: no manifest, no run."""
    tiny_bert(layers=1).save_pretrained(tmp_path / "stock")
    return tiny_tokenizer(tmp_path / "stock")


def test_a_folder_of_which_no_data_are_known_is_exported_and_not_measured(stock, built, tmp_path, capsys):
    assert main(["export", str(stock), "--format", "onnx"]) == 0
    told = capsys.readouterr().out
    assert "not compared on real texts: no data known; name them with --data" in told
    assert f"python {tmp_path / 'stock-onnx-fp32' / 'infer.py'}" in told
    assert "not measured: no data and no lengths of real texts known; name them with --data" in told
    assert (tmp_path / "stock-onnx-fp32" / "export.json").is_file() and built["measured"] == []


def test_an_export_that_no_program_can_run_does_not_name_one(stock, built, capsys):
    for path in stock.glob("tokenizer*"):
        path.unlink()
    assert main(["export", str(stock), "--format", "onnx"]) == 0
    told = capsys.readouterr().out
    assert "There is no infer.py: the model folder has no tokenizer.json" in told and "python " not in told


def test_recorded_lengths_are_enough_to_measure(built, tmp_path, capsys):
    folder = save_folder(tmp_path / "model", tiny_bert(layers=1), None, {"input_lengths": [5, 9]})
    export_folder(str(folder), "onnx")
    assert built["measured"] == [([str(folder)], str(folder), ["onnx-fp32"], None, "validation")]
    assert "not measured" not in capsys.readouterr().out


def test_a_model_that_lies_in_a_cache_is_exported_to_where_the_user_is(stock, built, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(command, "local_folder", lambda source: stock)
    assert export_folder("org/name", "onnx", benchmark=False) == Path("name-onnx-fp32")
    assert (tmp_path / "here" / "name-onnx-fp32" / "model.onnx").is_file()
    assert not list(tmp_path.glob("stock-*"))


def test_a_teacher_is_calibrated_and_compared_on_its_own_tokens(run, built, tmp_path):
    student = run()
    teacher = tmp_path / "teacher" / "model"
    save_folder(teacher, tiny_bert(layers=1, labels=2, seed=1), None, {})
    tiny_tokenizer(teacher, words=())  # letters only, so that its texts have more tokens
    run(teacher_tokenizer=str(teacher))
    data = str(tmp_path / "run" / "config.yaml")
    for folder in (student, teacher):
        export_folder(str(folder), "openvino", "int8", str(tmp_path / "out"), data, benchmark=False)
    rows = [len(row["input_ids"]) for row in built["rows"]]
    samples = [max(map(len, batches)) for batches in built["samples"]]
    # "good film" is two tokens of the student and eight of the teacher; [CLS] and [SEP] come with both.
    assert (max(rows[:TEXTS]), max(rows[TEXTS:])) == (2 + 9 * 2, 2 + 9 * 8)
    assert samples == [2 + 9 * 2, 2 + 9 * 8]
    assert len(rows) == 2 * TEXTS and built["rows"][TEXTS]["labels"] == built["rows"][0]["labels"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--int8",), "--int8; give --precision int8\n"),
        (("--onnx",), "--onnx; give --format onnx\n"),
        (("--x",), "--x\n"),
    ],
)
def test_a_precision_is_no_option(words, message, stock, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(stock), "--format", "onnx", *words])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.endswith(f"error: unrecognized arguments: {message}")


def test_refuses_a_model_whose_tokens_the_data_do_not_have(run, built, tmp_path):
    run()
    other = save_folder(tmp_path / "other" / "model", tiny_bert(layers=1, labels=2), None, {})
    tiny_tokenizer(other, words=())
    with pytest.raises(ValueError, match="to have the tokenizer of the data but it has another one"):
        export_folder(str(other), "onnx", data=str(tmp_path / "run" / "config.yaml"))
    assert built["samples"] == []


def test_refuses_texts_that_are_longer_than_the_file_reads(run, built, tmp_path):
    built["longest"] = 19
    with pytest.raises(
        ValueError,
        match=r"^Expected texts of at most 19 tokens, the longest that onnx-fp32 reads, but the validation split has "
        r"one of 20; give a data section with max_length: 19 with --data",
    ):
        export_folder(str(run()), "onnx", out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    export_folder(str(run(max_length=19)), "onnx", out=str(tmp_path / "out"))


def test_refuses_pairs_where_the_format_knows_one_segment(run, built, tmp_path, capsys):
    pytest.importorskip("gguf")
    folder = run(text=["text", "other"])
    assert main(["export", str(folder), "--format", "gguf"]) == 1
    assert (
        "Expected data of single texts for gguf-f16, which does not tell the two texts"
        in capsys.readouterr().err
    )
    assert built["samples"] == [] and not list((tmp_path / "run").glob("model-*"))
    assert main(["export", str(folder), "--format", "onnx", "--no-benchmark"]) == 0
    assert main(["export", str(run()), "--format", "gguf"]) == 0
    assert (
        "not compared on real texts and not measured: nothing here runs gguf-f16" in capsys.readouterr().out
    )
    assert (
        "llama.cpp, which rounds activations too, was not run"
        in (tmp_path / "run" / "model-gguf-f16" / "README.md").read_text()
    )
    assert built["measured"] == []


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize(
    "verb", [("quantize", "--activations", "static"), ("prune", "--method", "wanda", "--pattern", "2:4")]
)
def test_what_was_made_without_training_leads_to_its_data(verb, given, run, built, tmp_path, capsys):
    folder, data = run(), tmp_path / "data.yaml"
    words = ("--texts", "8", *(("--data", str(data)) if given else ()))
    config = tmp_path / "run" / "config.yaml"
    if given:
        config.rename(data)
    assert main([verb[0], str(folder), "--out", str(tmp_path / "a" / "small"), *verb[1:], *words]) == 0
    # Of its data too: what was made of what was made.
    assert main(["quantize", str(tmp_path / "a" / "small"), "--out", str(tmp_path / "again")]) == (
        verb[0] == "quantize"  # which is rounded already
    )
    for made in (tmp_path / "a" / "small", tmp_path / "again")[: 1 + (verb[0] == "prune")]:
        assert str(tmp_path) not in json.loads((made / "lit_compress.json").read_text())["data_file"]
        capsys.readouterr()
        assert main(["export", str(made), "--format", "onnx"]) == 0
        assert f"on {TEXTS} real texts (validation" in capsys.readouterr().out
    (data if given else config).unlink()
    assert main(["export", str(tmp_path / "a" / "small"), "--format", "onnx"]) == 0
    assert "not compared on real texts: no data known; name them with --data" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("format", "option", "value"),
    [
        ("gguf", "--least-same", "0.9"),
        ("tensorrt", "--least-same", "0.9"),
        ("tensorrt", "--data", "some.yaml"),
        ("tensorrt", "--split", "test"),
    ],
)
def test_refuses_options_that_do_nothing(stock, built, capsys, format, option, value):
    pytest.importorskip({"gguf": "gguf", "tensorrt": "onnx"}[format])
    assert main(["export", str(stock), "--format", format, option, value]) == 1
    assert f"Expected no {option} for {format}-f" in capsys.readouterr().err
    assert built["samples"] == []


def test_a_format_that_nothing_here_runs_does_without_the_data_of_the_run(run, built, tmp_path, capsys):
    pytest.importorskip("onnx")
    folder = run()
    (tmp_path / "dev.csv").unlink()
    assert main(["export", str(folder), "--format", "tensorrt"]) == 0
    assert "nothing here runs tensorrt-fp16" in capsys.readouterr().out
    settings = json.loads((tmp_path / "run" / "model-tensorrt-fp16" / "export.json").read_text())
    assert list(settings["parity"]) == ["random_tokens"]
