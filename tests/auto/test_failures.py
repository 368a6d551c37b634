"""Failures of real builds: the clean process tells which kind they are, or how it ended does."""

import json
import os
import signal
import sys
import textwrap
from types import SimpleNamespace

import datasets
import numpy as np
import pytest

from lit_compress.auto import judge
from lit_compress.auto.trial import CRASHED, PARITY, REFUSED, Trial
from lit_compress.benchmark import artefacts
from lit_compress.benchmark.artefacts import Failure
from lit_compress.benchmark.protocol import Candidate
from tests.tiny import tiny_bert

TEXTS = SimpleNamespace(samples=lambda side: [])


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Return a function that lets a script be the clean process, and returns the failure of the route."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    tiny_bert(layers=1).save_pretrained(tmp_path / "model")

    def run(script):
        head = f"import os, sys, time\nfrom pathlib import Path\ntarget = Path(sys.argv[1])\n{textwrap.dedent(script)}"
        command = [sys.executable, "-S", "-c", head]
        monkeypatch.setattr(artefacts, "_command", lambda name, folder, target: [*command, str(target)])
        trial = Trial(Candidate("model", str(tmp_path / "model"), runtime="onnx-fp32"), {})
        assert judge._build(trial, TEXTS) is None
        return trial.failure

    return run


@pytest.mark.parametrize(
    ("left", "kind"), [(Failure.PARITY, PARITY), (Failure.REFUSED, REFUSED), (Failure.CRASHED, CRASHED)]
)
def test_kind_that_the_clean_process_leaves(left, kind, build):
    text = json.dumps({"kind": left, "text": "Expected a file."})
    assert build(f"(target / 'error.json').write_text({text!r}); sys.exit(1)") == (kind, "Expected a file.")


def test_death(build):
    kind, text = build(f"os.kill(os.getpid(), {int(signal.SIGKILL)})")
    assert kind == CRASHED and "status -9" in text


def test_hang(build, monkeypatch):
    monkeypatch.setattr(judge, "_BUILD_SECONDS", 0.5)
    kind, text = build("time.sleep(60)")
    assert kind == CRASHED and "more than 0.5 s" in text


def test_full_disk(build, monkeypatch):
    def full(*_, **__):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(artefacts.tempfile, "mkdtemp", full)
    kind, text = build("")
    assert kind == CRASHED and "No space left" in text


def test_no_training_texts_to_calibrate_with(monkeypatch, build, tmp_path):
    def none(side):
        raise ValueError("Expected a train split to calibrate a runtime with but the data has none.")

    monkeypatch.setattr(judge, "runtime", lambda name: SimpleNamespace(calibrated=True))
    trial = Trial(Candidate("model", str(tmp_path / "model"), runtime="onnx-fp32"), {})
    assert judge._build(trial, SimpleNamespace(samples=none)) is None
    assert trial.failure is not None and trial.failure[0] == REFUSED


@pytest.mark.parametrize("most", [8, 9, None])
def test_texts_that_are_too_long_for_a_file_are_refused_not_a_crash(most, monkeypatch):
    artefact = SimpleNamespace(facts={"max_positions": most})
    monkeypatch.setattr(judge, "prepare", lambda *_, **__: artefact)
    data = SimpleNamespace(
        rows=lambda split: SimpleNamespace(column_names=["input_ids"]), lengths=lambda split: np.array([9, 3])
    )
    trial = Trial(Candidate("model", "model", runtime="onnx-fp32"), {})
    texts = SimpleNamespace(datamodule=data, split="validation")
    if most == 8:
        assert judge._build(trial, texts) is None
        kind, text = trial.failure
        assert kind == REFUSED and "at most 8 tokens" in text and "one of 9" in text
    else:
        assert judge._build(trial, texts) is artefact and trial.failure is None
