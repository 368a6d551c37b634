"""A model whose routes are scripted: how large, how good, how fast, and what goes wrong."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from lit_compress.auto import judge, keep, search
from lit_compress.auto.command import auto_command
from lit_compress.benchmark import measure, process
from lit_compress.benchmark.artefacts import Artefact, Failure, PrepareError
from lit_compress.models.checkpoint import save_folder
from tests.tiny import tiny_bert, tiny_tokenizer

ROUTES = ("torch-fp32", "torch-bf16", "onnx-fp32", "onnx-int8")
MEGABYTE = 1_000_000
#: Eager float32 is right about 36 of 40 texts, in 40 MB and 100 MB of memory.
BEHAVIOUR = {
    "torch-fp32": {"seconds": 4e-3, "bytes": 40 * MEGABYTE, "wrong": 4},
    "torch-bf16": {"seconds": 2e-3, "bytes": 40 * MEGABYTE, "wrong": 4, "peak": 80 * MEGABYTE},
    "onnx-fp32": {"seconds": 3e-3, "bytes": 38 * MEGABYTE, "wrong": 4, "peak": 60 * MEGABYTE},
    "onnx-int8": {"seconds": 1e-3, "bytes": 10 * MEGABYTE, "wrong": 5, "peak": 90 * MEGABYTE},
}


@dataclass
class Scripted:
    """A run whose model has scripted routes.

    Args:
        run: The run folder.
        exports: Calls of the export.
        unexportable: Routes that the export refuses.
    """

    run: Path
    exports: list = field(default_factory=list)
    unexportable: tuple = ()

    @property
    def folder(self):
        return self.run / "model"

    @property
    def out(self):
        return self.run / "model-auto"

    @property
    def log(self):
        path = self.run / "log"
        return path.read_text().splitlines() if path.is_file() else []

    def behave(self, **changes):
        """Change the behaviour of routes; underscores stand for hyphens."""
        routes = {name: dict(own) for name, own in BEHAVIOUR.items()}
        for name, own in changes.items():
            routes[name.replace("_", "-")] |= own
        text = json.dumps({"routes": routes, "log": str(self.run / "log")})
        (self.folder / "behaviour.json").write_text(text)

    def auto(self, quality=0.98, **options):
        options = {"runtimes": list(ROUTES), "rounds": 2, "min_rounds": 2, **options}
        auto_command(str(self.folder), quality, **options)

    def records(self, name):
        path = self.out / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def scripted_prepare(source, name, timeout, **samples):
    folder = Path(source)
    behaviour = json.loads((folder / "behaviour.json").read_text())
    with Path(behaviour["log"]).open("a") as stream:
        stream.write(f"{name} build\n")
    own = behaviour["routes"][name]
    if "build" in own:
        raise PrepareError(own["build"], Failure(own["kind"]))
    facts = {
        **{"params": 10, "nonzero_params": 10, "macs": {"length": 128, "count": 1000}},
        **{"shape": {"family": "bert", "layers": 2, "hidden": 32, "vocab": 100}},
        **{"vocab_size": 100, "pad_token_id": 0, "max_positions": 130, "num_labels": 2},
    }
    return Artefact(folder, folder, own["bytes"], facts)


@pytest.fixture
def scripted(tmp_path, monkeypatch):
    run = tmp_path / "run"
    save_folder(run / "model", tiny_bert(layers=2, labels=2), None, {"method": "soft targets"})
    write_data(tmp_path, run / "config.yaml")
    found = Scripted(run)
    script_routes(found, monkeypatch)
    found.behave()
    return found


def script_routes(found, patch):
    """Let routes be as ``behaviour.json`` says in this process."""
    script = str(Path(__file__).with_name("route_worker.py"))
    patch.setattr(process, "worker_command", lambda: [sys.executable, "-S", script])
    patch.setattr(measure, "prepare", scripted_prepare)
    patch.setattr(judge, "prepare", scripted_prepare)

    def export(folder, format, precision, out, data, split):
        found.exports.append((format, precision, out))
        if f"{format}-{precision}" in found.unexportable:
            raise ValueError("it computes something else on real texts")

    patch.setattr(keep, "_export", export)


def measure_one_by_one(patch):
    """Let every route have a session of its own beside the original."""
    patch.setattr(search, "sessions_of", lambda candidates: [[candidate] for candidate in candidates])


def write_data(folder, config, rows=40, label="label"):
    """Write texts of two classes, told apart by the word good, and the configuration that reads them."""
    tiny_tokenizer(folder / "tokenizer")
    lines = "\n".join(f"{'good' if n % 2 else 'bad'} {'film ' * (1 + n % 5)},{n % 2}" for n in range(rows))
    (folder / "rows.csv").write_text(f"text,{label}\n{lines}\n")
    files = {"folder": str(folder), "train": "rows.csv", "validation": "rows.csv", "test": "rows.csv"}
    init = {
        "source": {"class_path": "Files", "init_args": files},
        "tokenizer": str(folder / "tokenizer"),
        "cache_dir": str(folder / "cache"),
    }
    data = {"class_path": "TextClassificationDataModule", "init_args": init}
    config.write_text(yaml.safe_dump({"data": data, "seed_everything": 3}))
    return config
