"""The dashboard as built and as it would be sent, without a key or the network."""

import json
import sys

import pytest
import wandb

from lit_compress.__main__ import main
from lit_compress.dashboard import publish as publishing
from lit_compress.dashboard.publish import SPEC, dashboard, publish, specification
from lit_compress.dashboard.workspace import build_workspace, figure_keys, objective_names
from tests.report.rows import make_row


def row(**changes):
    """A row whose only figures are those that the tests name."""
    facts = {"bytes": 1_000_000, "cpu__throughput": {}, "cpu__fixed": {}, "ratio": {}}
    facts |= {"quality__metric": "f1", "quality__value": 0.9}
    return make_row(**{"model": "a", "run": "runs/a", **facts, **changes})


TEACHER = row(model="teacher", role="teacher", is_baseline=True, checkpoint=None)
GPU = {"latency_ms": {"p50": 1.0}, "vram_mb": 50.0}
ROWS = [TEACHER, row(), row(runtime="onnx-int8", bytes=300_000)]


def built(rows=ROWS, objectives=("hard", "pkd")):
    return build_workspace("me/mine", rows, objectives)


def panels(workspace, section):
    (found,) = [
        each
        for each in specification(workspace)["spec"]["section"]["panelBankConfig"]["sections"]
        if each["name"] == section
    ]
    return [panel["config"] for panel in found["panels"]]


def test_the_sections_in_their_order():
    workspace = built()
    assert (workspace.entity, workspace.project) == ("me", "mine")
    assert [(section.name, section.is_open) for section in workspace.sections] == [
        ("Which one to ship", True),
        ("Quality against cost", True),
        ("All figures at once", True),
        ("Training curves", True),
    ]


def test_the_table_is_the_one_that_runs_log():
    (config,) = panels(built(), "Which one to ship")
    assert '"val": "benchmark/table"' in json.dumps(config)


def test_scatters_of_each_runtime_and_of_nothing_else():
    found = [(p["chartTitle"], p["xAxis"], p["yAxis"]) for p in panels(built(), "Quality against cost")]
    prefix = "summary:benchmark/"
    assert found == [
        ("f1 by size, MB", f"{prefix}size_mb", f"{prefix}quality"),
        ("f1 by CPU latency, ms", f"{prefix}cpu/latency_ms", f"{prefix}quality"),
        ("f1 by RAM, MB", f"{prefix}cpu/peak_mb", f"{prefix}quality"),
        ("f1 by size, MB (onnx-int8)", f"{prefix}onnx-int8/size_mb", f"{prefix}onnx-int8/quality"),
        (
            "f1 by CPU latency, ms (onnx-int8)",
            f"{prefix}onnx-int8/cpu/latency_ms",
            f"{prefix}onnx-int8/quality",
        ),
        ("f1 by RAM, MB (onnx-int8)", f"{prefix}onnx-int8/cpu/peak_mb", f"{prefix}onnx-int8/quality"),
    ]


def test_vram_has_its_plot_where_it_was_measured():
    titles = [p["chartTitle"] for p in panels(built([TEACHER, row(gpu=GPU)]), "Quality against cost")]
    assert "f1 by VRAM, MB" in titles and "f1 by GPU latency, ms" in titles


def test_parallel_coordinates_from_method_to_quality():
    (config,) = panels(built([TEACHER, row(gpu=GPU)]), "All figures at once")
    columns = [(c["displayName"], c["accessor"], c.get("inverted")) for c in config["columns"]]
    assert columns[0] == ("method", "config:method.value", None)
    assert columns[-1] == ("f1", "summary:benchmark/quality", None)
    assert [c[0] for c in columns[1:-1]] == [
        "size, MB",
        "CPU latency, ms",
        "GPU latency, ms",
        "RAM, MB",
        "VRAM, MB",
    ]
    assert all(inverted for *_, inverted in columns[1:-1])


def test_one_training_curve_per_objective():
    found = [(p["xAxis"], p["metrics"]) for p in panels(built(), "Training curves")]
    step = "trainer/global_step"
    assert found == [(step, [key]) for key in ("val/f1", "train/loss", "train/hard", "train/pkd")]


def test_the_summary_figures_are_pinned_beside_the_runs():
    pinned = built().runset_settings.pinned_columns
    assert pinned[-1] == "summary:benchmark/quality"
    assert {"config:method", "summary:benchmark/cpu/latency_ms", "summary:benchmark/size_mb"} <= set(pinned)


def test_two_thread_counts_have_keys_of_their_own():
    rows = [row(), row(protocol={"threads": 2, "lengths": [5]})]
    assert {"benchmark/cpu/latency_ms", "benchmark/2-threads/cpu/latency_ms"} <= set(figure_keys(rows))


def write_run(folder, objectives=None):
    folder.mkdir(parents=True)
    (folder / "results.jsonl").write_text("".join(json.dumps(each) + "\n" for each in ROWS))
    if objectives is not None:
        terms = "".join(f"      {name}: {{class_path: SoftTargets}}\n" for name in objectives)
        (folder / "config.yaml").write_text(f"model:\n  init_args:\n    objectives:\n{terms}")


def test_objectives_are_read_from_the_runs(tmp_path):
    write_run(tmp_path / "runs" / "a", ["hard", "soft"])
    write_run(tmp_path / "runs" / "b", ["soft", "pkd"])
    write_run(tmp_path / "runs" / "c")
    (tmp_path / "runs" / "d").mkdir()
    (tmp_path / "runs" / "d" / "config.yaml").write_text("model: {init_args: {objectives: {other: 1}}}")
    assert objective_names([tmp_path / "runs"]) == ["hard", "soft", "pkd"]
    assert objective_names([tmp_path / "runs" / "b" / "results.jsonl"]) == ["soft", "pkd"]


def test_the_specification_is_written_and_loads_again(tmp_path):
    from wandb_workspaces.workspaces import internal

    write_run(tmp_path / "run", ["hard"])
    path = dashboard([tmp_path / "run"], "me/mine", tmp_path / "out")
    assert path == str(tmp_path / "out" / SPEC)
    written = json.loads((tmp_path / "out" / SPEC).read_text())
    assert (written["entity"], written["project"], written["displayName"]) == ("me", "mine", "Compression")
    again = internal.WorkspaceViewspec.model_validate(written["spec"])
    assert [s.name for s in again.section.panel_bank_config.sections][-1] == "Training curves"


def test_with_a_key_the_workspace_is_saved(tmp_path, monkeypatch):
    from wandb_workspaces.workspaces import internal

    sent = []

    def upsert(view):
        sent.append(view)
        return {"upsertView": {"view": {"name": view.name, "id": "1"}}}

    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setattr(publishing, "has_key", lambda: True)
    monkeypatch.setattr(internal, "upsert_view2", upsert)
    monkeypatch.setattr("wandb_workspaces.workspaces.Workspace.url", "https://example.org/me/mine")
    write_run(tmp_path / "run", ["hard"])
    assert dashboard([tmp_path / "run"], "me/mine") == "https://example.org/me/mine"
    (view,) = sent
    assert (view.entity, view.project, view.display_name) == ("me", "mine", "Compression")


def test_refuses_what_the_server_refuses_in_one_paragraph(monkeypatch):
    def refuse(view):
        raise wandb.errors.CommError("project not found")

    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setattr(publishing, "has_key", lambda: True)
    monkeypatch.setattr("wandb_workspaces.workspaces.internal.upsert_view2", refuse)
    with pytest.raises(
        ValueError, match="to take the dashboard of me/mine but it said: project not found; check"
    ):
        publish(built())


@pytest.mark.parametrize("target", ["mine", "me/", "/mine", "me/mine/more", ""])
def test_refuses_a_target_that_is_no_project(target):
    with pytest.raises(ValueError, match="Expected --wandb-workspace ENTITY/PROJECT but got"):
        build_workspace(target, ROWS, [])


def test_refuses_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(ImportError, match=r'run pip install "lit-compress\[wandb-dashboard\]"'):
        built()


@pytest.mark.parametrize(("mode", "why"), [("offline", "WANDB_MODE says offline"), ("online", "none is set")])
def test_refuses_to_publish_without_a_key(monkeypatch, mode, why):
    monkeypatch.setenv("WANDB_MODE", mode)
    monkeypatch.setattr(publishing, "has_key", lambda: False)
    message = f"a W&B key to publish the dashboard of me/mine but {why}; run wandb login .* with --dry-run"
    with pytest.raises(ValueError, match=message):
        publish(built())


def test_refuses_runs_without_results(tmp_path):
    with pytest.raises(ValueError, match="Expected results.jsonl in or below"):
        dashboard([tmp_path], "me/mine", tmp_path / "out")


# -- the verb --------------------------------------------------------------------------------------


def test_report_writes_the_specification_and_says_where(tmp_path, capsys):
    write_run(tmp_path / "run", ["hard"])
    words = ["report", str(tmp_path / "run"), "--out", str(tmp_path / "out")]
    assert main([*words, "--wandb-workspace", "me/mine", "--dry-run"]) == 0
    assert capsys.readouterr().out == f"W&B dashboard: {tmp_path / 'out' / SPEC}\n"
    assert [path.name for path in (tmp_path / "out").iterdir()] == [SPEC]


def test_refuses_a_dry_run_of_nothing(tmp_path, capsys):
    assert main(["report", str(tmp_path), "--dry-run"]) == 1
    assert "Expected --wandb-workspace ENTITY/PROJECT with --dry-run" in capsys.readouterr().err


def test_report_refuses_to_publish_without_a_key(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    write_run(tmp_path / "run")
    assert main(["report", str(tmp_path / "run"), "--wandb-workspace", "me/mine"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lit-compress report: Expected a W&B key to publish the dashboard of me/mine")
