"""Model folders that a fake worker understands, and rows of results."""

import copy
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


ROW = {
    "schema": 1,
    "time": "2026-11-20T10:00:00+00:00",
    "run": "runs/student",
    "recipe": "distil/soft_targets",
    "model": "student",
    "method": "soft targets",
    "seed": 0,
    "role": "student",
    "checkpoint": "best.ckpt",
    "weights": "aaaa",
    "shape": {"family": "bert", "layers": 3, "hidden": 384, "vocab": 30522},
    "params": 17_000_000,
    "bytes": 70_000_000,
    "cpu": {
        "latency_ms": {
            "p50": 4.0,
            "p90": 6.0,
            "p50_spread": [3.9, 4.2],
            "p90_spread": [5.8, 6.2],
            "wall_p50": 4.4,
        },
        "throughput": {"texts_per_second": 200.0, "spread": [190.0, 210.0], "batch": 32},
        "rss_mb": 150.0,
        "rounds": 10,
    },
    "gpu": None,
    "quality": {
        "metric": "accuracy",
        "split": "validation",
        "value": 0.86,
        "n": 872,
        "higher_is_better": True,
    },
    "ratio": {
        "cpu_latency": {"median": 0.5, "p10": 0.4, "p90": 0.8},
        "cpu_throughput": {"median": 2.0, "p10": 1.9, "p90": 2.1},
        "cpu_memory": 0.8,
        "size": 0.75,
        "params": 0.7,
        "quality": 0.98,
    },
    "session": "s1",
    "environment": {
        "cpu": "Fast CPU",
        "cores": 2,
        "memory_gb": 16.0,
        "gpu": None,
        "torch": "2.13.0",
        "transformers": "5.23.0",
    },
    "protocol": {
        "threads": 1,
        "clock": "cpu time",
        "runtime": "torch eager fp32",
        "lengths": [5, 9],
        "rounds": 10,
    },
}


def make_row(**changes):
    """Return a row; ``cpu__latency_ms__p50=1`` sets a nested value."""
    row = copy.deepcopy(ROW)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = row
        for parent in parents:
            place = place[parent]
        place[last] = value
    return row


def make_teacher(**changes):
    """Return the baseline's row of the same session."""
    teacher = {"model": "teacher", "role": "teacher", "method": "fine-tuning", "weights": "tttt", "ratio": {}}
    teacher |= {"bytes": 91_000_000, "cpu__latency_ms__p50": 8.0, "quality__value": 0.88}
    return make_row(**(teacher | changes))
