"""Model folders that a fake worker understands."""

import json
import sys
from pathlib import Path

import pytest

from lit_compress.benchmark import measure, process
from lit_compress.benchmark.artefacts import Artefact
from lit_compress.benchmark.folders import local_folder, weight_bytes


def fake_prepare(source, runtime, timeout):
    """Prepare a folder for the fake worker: what it behaves like is what there is to know."""
    folder = local_folder(source)
    config = json.loads((folder / "config.json").read_text())
    file = folder / "behaviour.json"
    behaviour = json.loads(file.read_text()) if file.exists() else {}
    facts = {
        "params": behaviour.get("params", 10),
        "nonzero_params": behaviour.get("params", 10) - 1,
        "macs": {"length": 128, "count": 1000},
        "shape": {"family": "bert", "layers": config.get("num_hidden_layers", 2), "hidden": 8, "vocab": 100},
        "vocab_size": 100,
        "pad_token_id": 0,
        "max_positions": behaviour.get("max_positions", 130),
        "num_labels": behaviour.get("labels", 2),
    }
    return Artefact(folder, folder, weight_bytes(folder), facts)


@pytest.fixture
def fake_workers(monkeypatch):
    """Let a script without torch play the worker: it starts at once and is exactly as fast as it is told."""
    script = str(Path(__file__).with_name("fake_worker.py"))
    monkeypatch.setattr(process, "worker_command", lambda: [sys.executable, "-S", script])
    monkeypatch.setattr(measure, "prepare", fake_prepare)


@pytest.fixture
def fake_folder(tmp_path):
    """Return a function that makes a folder ``name`` with a behaviour and weights of ``size`` bytes."""

    def make(name, size=1000, **behaviour):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(name.encode().ljust(size, b"0"))
        (folder / "behaviour.json").write_text(json.dumps({"name": name, **behaviour}))
        return str(folder)

    return make
