"""The export verb: one real export in clean processes, and everything that must leave nothing behind."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from lit_compress.__main__ import main
from lit_compress.benchmark.artefacts import Artefact, PrepareError
from lit_compress.benchmark.results import read_results
from lit_compress.export import command
from lit_compress.export.check import Agreement, agreement
from lit_compress.export.command import export_folder
from lit_compress.export.parity import ParityError
from lit_compress.models.checkpoint import load, save_folder
from tests.export.test_ragged import ragged
from tests.tiny import tiny_bert, tiny_tokenizer

FACTS = {"method": "soft targets", "input_lengths": [5, 9, 12], "label_names": ["bad", "good"]}


@pytest.fixture
def run(tmp_path):
    """Return a function that makes a run: a model folder with its tokenizer, and config.yaml with data."""
    rows = "\n".join(f"{'good film ' * (1 + n % 9)},{'ab'[n % 4 == 0]}" for n in range(60))
    (tmp_path / "dev.csv").write_text(f"text,label\n{rows}\n")

    def make(model=None):
        folder = save_folder(tmp_path / "run" / "model", model or tiny_bert(layers=2, labels=2), None, FACTS)
        tiny_tokenizer(folder)
        source = {"class_path": "Files", "init_args": {"folder": str(tmp_path), "train": "dev.csv"}}
        source["init_args"]["validation"] = "dev.csv"
        init = {"source": source, "tokenizer": str(folder), "cache_dir": str(tmp_path / "cache")}
        data = {"class_path": "TextClassificationDataModule", "init_args": init}
        (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump({"data": data}))
        return folder

    return make


@pytest.fixture
def built(tmp_path, monkeypatch):
    """Let a file stand for what a clean process builds; return the calls."""
    calls = []

    def prepare(folder, name, timeout, samples=()):
        calls.append((name, len(samples)))
        (tmp_path / "built").mkdir(exist_ok=True)
        (tmp_path / "built" / "model.onnx").write_bytes(b"graph")
        facts = {"max_positions": 130, "vocab_size": 100, "pad_token_id": 0, "parity_error": 1e-6}
        return Artefact(command.local_folder(folder), tmp_path / "built", 5, facts)

    monkeypatch.setattr(command, "prepare", prepare)
    monkeypatch.setattr(command, "agreement", lambda *arguments: Agreement(60, 1e-4, 1.0, 0.9, 0.9))
    return calls


@pytest.mark.slow
def test_an_export_is_checked_measured_and_runs_without_this_library(run, tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    folder = run()
    words = ["export", str(folder), "--format", "onnx", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "same label for 100.0 %, quality 0." in told and "on 60 real texts" in told
    settings = json.loads((tmp_path / "out" / "export.json").read_text())
    assert settings["parity"]["texts"]["texts"] == 60 and settings["parity"]["texts"]["error"] < 1e-3
    rows = {row["runtime"]: row for row in read_results(tmp_path / "out" / "results.jsonl")}
    assert rows["onnx-fp32"]["ratio"]["quality"] == 1 and rows["torch-fp32"]["is_baseline"]
    # A finder that refuses them shows what the script imports.
    guard = (
        "import sys; [sys.modules.__setitem__(n, None) for n in ('torch', 'transformers', 'lit_compress')]\n"
    )
    script = guard + (tmp_path / "out" / "infer.py").read_text()
    (tmp_path / "out" / "guarded.py").write_text(script.replace("from __future__ import annotations", ""))
    words = [sys.executable, str(tmp_path / "out" / "guarded.py"), "good film", "the plot was awful"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    model = load(folder)
    for line, text in zip(done.stdout.splitlines(), ("good film", "the plot was awful"), strict=True):
        label, share, same = line.split("\t")
        assert same == text
        from tokenizers import Tokenizer

        ids = torch.tensor([Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids])
        with torch.no_grad():
            odds = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.softmax(-1)[0]
        assert label == FACTS["label_names"][int(odds.argmax())]
        assert float(share) == pytest.approx(float(odds.max()), abs=2e-4)


@pytest.mark.slow
def test_agreement_of_a_ragged_model_with_itself_is_whole_and_of_another_is_not(tmp_path):
    folder = save_folder(tmp_path / "ragged", ragged(), None, {})
    facts = {"vocab_size": 100, "pad_token_id": 0}
    generator = np.random.default_rng(0)
    rows = [{"input_ids": generator.integers(1, 100, 3 + n % 17).tolist()} for n in range(50)]

    def score(logits):
        return float(logits[:, 0].sum())

    same = agreement(Artefact(folder, folder, 0, facts), "torch-fp32", rows, score, 0, 1)
    assert same == Agreement(50, 0.0, 1.0, same.wanted, same.wanted) and same.wanted
    coarse = agreement(Artefact(folder, folder, 0, facts), "torch-bf16", rows, score, 0, 1)
    assert 1e-4 < coarse.error < 0.1 and coarse.wanted == same.wanted != coarse.quality


def test_a_calibrated_format_gets_typical_training_texts(run, built, monkeypatch):
    way = SimpleNamespace(
        name="onnx-int8",
        calibrated=True,
        rounded=True,
        pairs=True,
        tolerance=1.0,
        libraries=(),
        bound_to=(),
        check=lambda: None,
    )
    way.note = lambda artefact: None
    monkeypatch.setattr(command, "builder", lambda name: way)
    export_folder(str(run()), "onnx", "int8", benchmark=False)
    # The task has fewer texts for training than the 128 that calibration takes.
    assert built == [("onnx-int8", 60)]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (
            Agreement(60, 0.2, 1.0, 0.9, 0.9),
            r"within 0.001 of their size on 60 real texts but got a difference of 0.2",
        ),
        (Agreement(60, 1e-4, 0.9, 0.9, 0.9), r"at least 95 % of 60 real texts the label .* but got 90.0 %"),
    ],
)
def test_an_export_that_computes_something_else_is_not_kept(
    run, built, monkeypatch, tmp_path, found, message
):
    monkeypatch.setattr(command, "agreement", lambda *arguments: found)
    with pytest.raises(ParityError, match=message):
        export_folder(str(run()), "onnx", out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    if found.same_label == 0.9:
        export_folder(
            str(tmp_path / "run/model"), "onnx", out=str(tmp_path / "out"), least_same=0.9, benchmark=False
        )
        assert (tmp_path / "out" / "export.json").is_file()


@pytest.mark.parametrize(
    ("quality", "passes"), [(0.9 - 2 / 60, True), (0.9 - 3 / 60, False), (float("nan"), False)]
)
def test_the_file_of_a_rounded_model_keeps_its_quality(run, built, monkeypatch, tmp_path, quality, passes):
    monkeypatch.setattr(command, "agreement", lambda *arguments: Agreement(60, 1e-4, 1.0, quality, 0.9))
    monkeypatch.setattr(command, "is_rounded", lambda folder: True)
    if passes:
        out = export_folder(str(run()), "onnx", "int8", benchmark=False)
        kept = json.loads((out / "export.json").read_text())["parity"]["texts"]
        assert kept["quality"] == pytest.approx(quality, abs=1e-4) and kept["quality_of_original"] == 0.9
        return
    with pytest.raises(
        ParityError, match=r"the accuracy of .* within 0.0333 on 60 real texts, 0.9000, but got"
    ):
        export_folder(str(run()), "onnx", "int8", out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_what_stops_the_build_is_told_in_one_paragraph(run, monkeypatch, tmp_path, capsys):
    def broken(*arguments):
        raise PrepareError("Expected an operator that ONNX has but got aten::odd.")

    monkeypatch.setattr(command, "prepare", broken)
    assert main(["export", str(run()), "--format", "onnx", "--out", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.strip().endswith("aten::odd.")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "onxx"], "Expected a format among onnx"),
        (["--format", "onnx", "--precision", "int3"], "Expected a precision of onnx among"),
        (["--format", "onnx", "--least-same", "2"], "between 0 and 1 but got 2.0"),
        (["--format", "onnx", "--data", "missing.yaml"], "missing.yaml"),
        (["--format", "onnx", "--split", "test"], "test"),
    ],
)
def test_bad_options_are_refused_before_anything_is_built(run, built, capsys, options, message):
    assert main(["export", str(run()), *options]) == 1
    assert message in capsys.readouterr().err
    assert built == []


def test_a_folder_that_holds_no_model_is_refused(tmp_path, capsys):
    (tmp_path / "thesis").mkdir()
    assert main(["export", str(tmp_path / "thesis"), "--format", "onnx"]) == 1
    assert "Expected config.json in the model folder" in capsys.readouterr().err


def test_a_missing_library_is_named_with_its_line(run, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["export", str(run()), "--format", "onnx"]) == 1
    assert 'pip install "lit-compress[onnx]"' in capsys.readouterr().err
