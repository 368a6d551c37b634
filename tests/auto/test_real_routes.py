"""One real search: real builds, real workers, a real export."""

import json

import datasets
import pytest

from lit_compress.auto.command import auto_command
from lit_compress.benchmark.results import read_results
from lit_compress.models.checkpoint import save_folder
from lit_compress.models.loading import quiet
from tests.auto.conftest import ROUTES, write_data
from tests.tiny import tiny_bert, tiny_tokenizer

pytestmark = pytest.mark.slow


def test_a_tiny_model_on_four_routes(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "datasets"))
    folder = tmp_path / "run" / "model"
    with quiet():
        save_folder(folder, tiny_bert(layers=4, hidden=64, labels=2), None, {"method": "soft targets"})
    tiny_tokenizer(folder)
    write_data(tmp_path, tmp_path / "run" / "config.yaml")
    options = {"runtimes": list(ROUTES), "rounds": 3, "min_rounds": 3, "minimise": "size"}
    auto_command(str(folder), 0.8, **options)
    out = tmp_path / "run" / "model-auto"
    rows = read_results(out / "results.jsonl")
    assert [row["runtime"] for row in rows] == list(ROUTES)
    assert not any(row.get("error") for row in rows)
    sizes = {row["runtime"]: row["bytes"] for row in rows}
    assert sizes["onnx-int8"] < 0.7 * sizes["torch-fp32"]
    # The same network in every route: eager and ONNX in float32 agree on every text.
    quality = {row["runtime"]: row["quality"]["value"] for row in rows}
    assert quality["onnx-fp32"] == quality["torch-fp32"]
    assert "onnx-int8 is the smallest" in capsys.readouterr().out
    settings = json.loads((out / "onnx-int8" / "export.json").read_text())
    assert (settings["format"], settings["precision"]) == ("onnx", "int8")
    assert (out / "onnx-int8" / "infer.py").is_file()
    # Asked again, everything is known but the export, which comes from the cache.
    auto_command(str(folder), 0.8, **options)
    assert read_results(out / "results.jsonl") == rows
    assert len((out / "quality.jsonl").read_text().splitlines()) == 4
