"""What a run leaves in Weights & Biases, read back from the offline files with wandb's own tool."""

import base64
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import wandb
import yaml

from lit_compress import cli
from tests.runs import RECIPES, arguments


def run(task, folder, *more):
    overlay = f"--config={RECIPES / 'overlays' / 'wandb.yaml'}"
    words = arguments("distil/pkd_skip", task, folder, *more)
    status = cli.run(["fit", words[0], overlay, *words[1:]])
    wandb.finish()
    return status


def inspect(folder, *options):
    if wandb.__version__.startswith("0.30"):
        pytest.skip("wandb reads its own files from 0.31 on")
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", *options, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.fixture(scope="module")
def runs(cli_task, tmp_path_factory):
    """The run folder and the two W&B folders in it; the first fit has been measured."""
    folder = tmp_path_factory.mktemp("runs") / "measured"
    assert (
        run(cli_task, folder, "--benchmark.at_end=true", "--benchmark.rounds=3", "--benchmark.max_seconds=1")
        == 0
    )
    (first,) = (folder / "wandb").glob("offline-run-*")
    assert run(cli_task, folder) == 0
    (second,) = set((folder / "wandb").glob("offline-run-*")) - {first}
    return folder, first, second


@pytest.mark.slow
def test_group_is_the_recipe_and_job_type_the_method(runs):
    for path in runs[1:]:
        records = [json.loads(line) for line in inspect(path).splitlines()]
        (opened,) = [record["run"] for record in records if record["type"] == "run"][:1]
        assert opened["run_group"] == "distil/pkd_skip"
        assert opened["job_type"] == "PKD-skip"
        assert opened["project"] == "lit-compress"


def test_every_objective_and_metric_is_logged(runs):
    summary = json.loads(inspect(runs[1], "--summary"))
    assert summary["state"] == "finished"
    recipe = yaml.safe_load((RECIPES / "distil" / "pkd_skip.yaml").read_text())
    terms = recipe["model"]["init_args"]["objectives"].keys()
    logged = {key for key in summary["summary"] if key.startswith("train/")}
    assert logged == {"train/loss", *(f"train/{name}" for name in terms)}
    weights = summary["config"]["objectives"]
    total = sum(weights[name]["init_args"]["weight"] * summary["summary"][f"train/{name}"] for name in terms)
    assert summary["summary"]["train/loss"] == pytest.approx(total, rel=1e-4)
    assert {"val/accuracy", "val/f1", "val/mcc", "epoch"} <= summary["summary"].keys()


def test_the_benchmark_is_in_the_summary_and_in_a_table(runs):
    folder, first, second = runs
    summary = json.loads(inspect(first, "--summary"))["summary"]
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert [row["role"] for row in rows] == ["teacher", "student"]
    student = rows[1]
    assert summary["benchmark/params"] == student["params"]
    assert summary["benchmark/size_mb"] == pytest.approx(student["bytes"] / 1e6)
    assert summary["benchmark/cpu/latency_ms"] == pytest.approx(student["cpu"]["latency_ms"]["p50"])
    assert summary["benchmark/cpu/speedup"] == pytest.approx(1 / student["ratio"]["cpu_latency"]["median"])
    assert {"benchmark/cpu/peak_mb", "benchmark/quality"} <= summary.keys()
    table = json.loads((first / "files" / summary["benchmark/table"]["path"]).read_text())
    assert table["columns"][0] == "model"
    assert [row[0] for row in table["data"]] == ["teacher", "measured"]
    assert "benchmark/params" not in json.loads(inspect(second, "--summary"))["summary"]


def test_scatter_plots_of_the_measured_models_are_logged(runs):
    folder, first, _ = runs
    summary = json.loads(inspect(first, "--summary"))["summary"]
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    for name, cost in (("latency", rows[1]["cpu"]["latency_ms"]["p50"]), ("size", rows[1]["bytes"] / 1e6)):
        table = json.loads(
            (first / "files" / summary[f"benchmark/quality_by_{name}_table"]["path"]).read_text()
        )
        assert len(table["data"]) == len(rows)
        assert table["data"][1][2:] == [pytest.approx(cost), pytest.approx(rows[1]["quality"]["value"])]


def test_model_folder_and_results_are_artifacts(runs):
    folder, first, _ = runs
    records = [json.loads(line) for line in inspect(first).splitlines()]
    artifacts = {record["artifact"]["name"]: record["artifact"] for record in records if "artifact" in record}
    assert {name: each["type"] for name, each in artifacts.items() if each["type"] != "run_table"} == {
        "distil-pkd_skip-model": "model",
        "distil-pkd_skip-results": "results",
    }
    files = {each["path"]: each for each in artifacts["distil-pkd_skip-model"]["manifest"]["contents"]}
    assert {"model.safetensors", "config.json", "README.md", "lit_compress.json"} <= files.keys()
    for file in files.values():
        # The second fit has replaced the model folder; what W&B will send is the first fit's all the same.
        copy = Path(file["local_path"])
        assert copy.is_relative_to(folder)
        assert base64.b64encode(hashlib.md5(copy.read_bytes()).digest()).decode() == file["digest"]
    assert json.loads(Path(files["lit_compress.json"]["local_path"]).read_text())["method"] == "PKD-skip"


def test_without_a_key_a_run_is_offline_and_asks_nothing(cli_task, tmp_path):
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB", "NETRC"))}
    clean |= {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc"), "WANDB_CONFIG_DIR": str(tmp_path)}
    words = arguments("distil/finetune_baseline", cli_task, tmp_path / "run", "--model_folder.enabled=false")
    overlay = f"--config={RECIPES / 'overlays' / 'wandb.yaml'}"
    result = subprocess.run(
        [sys.executable, "-m", "lit_compress", "fit", words[0], overlay, *words[1:]],
        env=clean,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert "W&B: no key is set, so the run is logged offline" in result.stdout + result.stderr
    (path,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    assert "val/accuracy" in json.loads(inspect(path, "--summary"))["summary"]


def test_refuses_checkpoints_as_artifacts_of_an_offline_run(cli_task, tmp_path, capsys):
    options = [f"--trainer.logger.init_args.{key}=true" for key in ("offline", "log_model")]
    assert run(cli_task, tmp_path / "run", *options) == 1
    error = capsys.readouterr().err
    assert (
        "Expected log_model=false where W&B logs offline but trainer.logger.init_args.log_model is true"
        in error
    )
