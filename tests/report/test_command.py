import io

import pytest
from rich.console import Console

from lit_compress.benchmark.measure import measure
from lit_compress.benchmark.protocol import Candidate, Protocol
from lit_compress.benchmark.results import append_rows, to_row
from lit_compress.report.command import collect, report
from tests.report.pages import page_data
from tests.report.rows import make_row, make_teacher


def console():
    return Console(file=io.StringIO(), width=160)


@pytest.fixture
def runs(tmp_path):
    for name in ("a", "b"):
        rows = [make_teacher(run=f"runs/{name}"), make_row(run=f"runs/{name}", model=name)]
        append_rows(tmp_path / "runs" / name / "results.jsonl", rows)
    return tmp_path / "runs"


def test_report_prints_and_writes_page_tables_and_plots(runs, tmp_path):
    screen = console()
    written = report([runs], tmp_path / "out", screen)
    plots = [f"quality_{cost}.{kind}" for cost in ("latency", "size", "memory") for kind in ("png", "svg")]
    assert [path.name for path in written] == ["index.html", "table.md", "table.csv", *plots]
    assert all(path.stat().st_size > 200 for path in written)
    text = screen.file.getvalue()
    assert "teacher" in text and "3×384" in text and "index.html shows this" in text
    assert (tmp_path / "out" / "table.md").read_text().count("| teacher ") == 1


def test_page_holds_the_curves_of_all_runs(runs, tmp_path):
    for name in ("a", "b", "unmeasured"):
        logs = runs / name / "logs" / "version_0"
        logs.mkdir(parents=True)
        (logs / "metrics.csv").write_text("step,train/loss\n1,0.5\n2,0.25\n")
    report([runs], tmp_path / "out", console())
    data = page_data((tmp_path / "out" / "index.html").read_text())
    assert data["curves"] == {
        name: {"train/loss": [[1, 0.5], [2, 0.25]]} for name in ("a", "b", "unmeasured")
    }


def test_without_a_folder_it_only_prints(runs, tmp_path):
    assert report([runs], None, console()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]


def test_one_file_reached_twice_is_read_once(runs):
    once = collect([runs])
    assert len(once) == 4
    assert collect([runs, runs / "a", runs / "a" / "results.jsonl"]) == once


def test_same_name_in_two_runs_is_told_apart(tmp_path):
    for name in ("soft", "pkd"):
        append_rows(tmp_path / name / "results.jsonl", [make_row(run=f"runs/{name}/seed0", model="seed0")])
    report([tmp_path], tmp_path / "out", console())
    text = (tmp_path / "out" / "table.md").read_text()
    assert "| soft/seed0 (3×384) |" in text and "| pkd/seed0 (3×384) |" in text


def test_a_run_named_in_two_ways_is_one_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spellings = ("runs/a", str(tmp_path / "runs" / "a"), "runs/a/")
    append_rows("runs/a/results.jsonl", [make_row(run=run) for run in spellings])
    report([tmp_path], tmp_path / "out", console())
    assert (tmp_path / "out" / "table.md").read_text().count("| student (3×384) |") == 1


def test_rows_as_they_are_measured_make_a_report(fake_workers, fake_folder, tmp_path):
    teacher = Candidate("teacher", fake_folder("teacher", seconds=2e-3), "fine-tuning")
    student = Candidate("student", fake_folder("student", seconds=1e-3), "soft targets")
    broken = Candidate("broken", fake_folder("broken", do="load", then="crash"))
    protocol = Protocol((3, 5), rounds=4, min_rounds=1, fixed_lengths=(32, 384), fixed_batches=(2,))
    measured = measure([student, broken], teacher, protocol)
    append_rows(tmp_path / "results.jsonl", [to_row(m, run=m.candidate.name) for m in measured])
    screen = console()
    report([tmp_path / "results.jsonl"], tmp_path / "out", screen)
    text = (tmp_path / "out" / "index.html").read_text()
    assert len(page_data(text)["groups"][0]["rows"]) == 3
    assert "CPU, 2 × 32 tokens" in text and "exit status 1" in text
    assert "exit status 1" in screen.file.getvalue()


def test_other_machines_get_a_table_of_their_own(runs, tmp_path):
    append_rows(runs / "c" / "results.jsonl", [make_row(model="c", environment__cpu="Slow CPU")])
    screen = console()
    report([runs], tmp_path / "out", screen)
    assert "2 tables, because their rows come from different machines" in screen.file.getvalue()
    assert (tmp_path / "out" / "table.md").read_text().count("| --- |") == 2


def test_refuses_folders_without_results(tmp_path):
    with pytest.raises(ValueError, match=r"Expected results\.jsonl in or below .* but there is none"):
        report([tmp_path])


def test_refuses_a_missing_path(tmp_path):
    with pytest.raises(ValueError, match="nowhere but there is none"):
        report([tmp_path / "nowhere"])
