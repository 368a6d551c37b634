"""The map of kept heads in W&B, read back from an offline run."""

import json
import subprocess
import sys

import pytest
import wandb
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from lit_compress.dashboard import pictures
from lit_compress.dashboard.pictures import KEY, kept_table, log_maps

KEPT = {"heads": [[1, 0], [0, 0]], "neurons": [[3, 8], [0, 8]]}


@pytest.fixture
def logger(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    yield WandbLogger(save_dir=tmp_path, project="test", offline=True)
    wandb.finish()


def history(tmp_path):
    wandb.finish()
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(folder)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    records = [json.loads(line) for line in lines.splitlines()]
    return folder, [json.dumps(record) for record in records if KEY in json.dumps(record)]


def test_the_picture_is_in_the_offline_run(logger, tmp_path):
    log_maps([CSVLogger(tmp_path), logger], "cut", KEPT, 7)
    folder, found = history(tmp_path)
    assert any("image-file" in record for record in found)
    (file,) = (folder / "files" / "media" / "images").rglob("*.png")
    assert file.read_bytes().startswith(b"\x89PNG")
    assert any("cut: 1 of 4 heads and 3 of 16 neurons kept" in record.encode().decode() for record in found)


def test_without_matplotlib_there_is_a_table(logger, tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "find_spec", lambda name: None)
    log_maps([logger], "cut", KEPT, 7)
    folder, found = history(tmp_path)
    assert any("table-file" in record for record in found)
    (file,) = (folder / "files" / "media" / "table").rglob("*.table.json")
    table = json.loads(file.read_text())
    assert table["data"] == [[1, 1, 2, 3, 8], [2, 0, 2, 0, 8]]


def test_nothing_is_logged_of_a_model_that_was_not_cut(logger, tmp_path):
    log_maps([logger], "plain", {}, 7)
    assert logger._experiment is None


def test_table_by_hand():
    columns, lines = kept_table({"heads": [[1, 1, 0]]})
    assert columns[0] == "layer" and lines == [[1, 2, 3, 0, 0]]
