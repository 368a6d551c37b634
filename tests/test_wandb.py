"""What a run leaves in Weights & Biases, read back from the offline files with wandb's own tool."""

import json
import subprocess
import sys

import pytest
import wandb

from lit_compress import cli
from tests.runs import RECIPES, arguments


def run(task, folder, *more):
    overlay = f"--config={RECIPES / 'overlays' / 'wandb.yaml'}"
    words = arguments("distil/pkd_skip", task, folder, *more)
    status = cli.run(["fit", words[0], overlay, *words[1:]])
    wandb.finish()
    return status


def inspect(folder, *options):
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
    assert {key for key in summary["summary"] if key.startswith("train/")} == {
        "train/hard",
        "train/soft",
        "train/pkd",
        "train/loss",
    }
    weights = summary["config"]["objectives"]
    total = sum(
        weights[name]["init_args"]["weight"] * summary["summary"][f"train/{name}"]
        for name in ("hard", "soft", "pkd")
    )
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
