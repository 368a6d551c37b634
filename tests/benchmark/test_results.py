import json

import pytest

from lit_compress.benchmark.measure import measure
from lit_compress.benchmark.metrics import log_rows, loggable
from lit_compress.benchmark.protocol import Candidate, Protocol
from lit_compress.benchmark.results import add_quality_ratios, append_rows, read_results, to_row

from .conftest import make_row, make_teacher


def test_measured_rows_survive_the_file(fake_workers, fake_folder, tmp_path):
    teacher = Candidate("teacher", fake_folder("teacher", seconds=2e-3), "fine-tuning")
    student = Candidate("student", fake_folder("student", seconds=1e-3), "soft targets")
    measured = measure([student], teacher, Protocol((3, 5), rounds=4))
    rows = [to_row(m, run="runs/x", recipe="distil/x", seed=3) for m in measured]
    path = tmp_path / "deep" / "results.jsonl"
    append_rows(path, rows)
    first, second = read_results(path)
    assert (first["role"], second["role"]) == ("teacher", "student")
    assert second["ratio"]["cpu_latency"]["median"] == pytest.approx(0.5)
    assert second["cpu"]["rounds"] == 4 and second["cpu"]["throughput"]["batch"] == 2
    assert second["cpu"]["latency_ms"]["wall_p50"] == pytest.approx(2 * second["cpu"]["latency_ms"]["p50"])
    assert second["gpu"] is None and second["quality"] is None
    assert second["protocol"]["lengths"] == [3, 5] and second["protocol"]["clock"] == "cpu time"
    assert second["session"] == first["session"]
    assert {"cpu", "cores", "torch", "transformers", "load", "load_after"} <= second["environment"].keys()
    assert "error" not in second


def test_rows_are_appended_one_per_line(tmp_path):
    path = tmp_path / "results.jsonl"
    append_rows(path, [make_row(model="a"), make_row(model="b")])
    append_rows(path, [make_row(model="c")])
    assert [json.loads(line)["model"] for line in path.read_text().splitlines()] == ["a", "b", "c"]
    assert [row["model"] for row in read_results(path)] == ["a", "b", "c"]


def test_line_cut_short_by_a_kill_does_not_swallow_the_next_one(tmp_path):
    path = tmp_path / "results.jsonl"
    append_rows(path, [make_row(model="a")])
    path.write_text(path.read_text() + '{"schema": 1, "mod')
    append_rows(path, [make_row(model="b")])
    lines = path.read_text().splitlines()
    assert len(lines) == 3 and json.loads(lines[2])["model"] == "b"


def test_refuses_a_corrupt_line_by_its_number(tmp_path):
    path = tmp_path / "results.jsonl"
    append_rows(path, [make_row()])
    path.write_text(path.read_text() + "\n" + '{"schema": 1, "mod\n')
    with pytest.raises(ValueError, match=r"in line 3 of .*results\.jsonl but got.*delete that line"):
        read_results(path)


def test_refuses_rows_of_a_newer_release(tmp_path):
    path = tmp_path / "results.jsonl"
    append_rows(path, [make_row(schema=2)])
    with pytest.raises(ValueError, match=r"Expected schema 1 in line 1 of .* but got schema 2.*upgrade"):
        read_results(path)


@pytest.mark.parametrize("line", ['{"schema": 1, "model": "a"}', "[1, 2]", "3"])
def test_refuses_lines_that_are_no_rows(tmp_path, line):
    path = tmp_path / "results.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(ValueError, match="row of benchmark results in line 1"):
        read_results(path)


def test_quality_kept_is_a_share_of_the_teachers():
    rows = [make_teacher(quality__value=0.8), make_row(quality__value=0.6, ratio={})]
    add_quality_ratios(rows)
    assert rows[1]["ratio"] == {"quality": pytest.approx(0.75)}
    assert rows[0]["ratio"] == {}


@pytest.mark.parametrize(
    "teacher", [{"quality__value": -0.1}, {"quality__higher_is_better": False}, {"quality": None}]
)
def test_no_share_of_a_quality_that_has_none(teacher):
    rows = [make_teacher(**teacher), make_row(ratio={})]
    add_quality_ratios(rows)
    assert rows[1]["ratio"] == {}


def test_metrics_of_a_row():
    metrics = loggable(make_row())
    assert metrics["benchmark/cpu/latency_ms"] == 4.0
    assert metrics["benchmark/cpu/throughput"] == 200.0
    assert metrics["benchmark/cpu/peak_mb"] == 150.0
    assert metrics["benchmark/cpu/speedup"] == 2.0
    assert metrics["benchmark/size_mb"] == pytest.approx(70.0)
    assert metrics["benchmark/params"] == 17_000_000
    assert not [name for name in metrics if "gpu" in name]


class Logger:
    def __init__(self):
        self.metrics, self.tables = {}, {}

    def log_metrics(self, metrics, step):
        self.metrics |= {name: (value, step) for name, value in metrics.items()}


class TableLogger(Logger):
    def log_table(self, key, columns, data):
        self.tables[key] = [dict(zip(columns, row, strict=True)) for row in data]


def test_every_logger_gets_figures_and_some_the_table():
    plain, rich = Logger(), TableLogger()
    log_rows([plain, rich], [make_teacher(), make_row()], step=70, seconds=12.5)
    assert plain.metrics == rich.metrics
    assert plain.metrics["benchmark/cpu/latency_ms"] == (4.0, 70)
    assert plain.metrics["benchmark/seconds"] == (12.5, 70)
    teacher, student = rich.tables["benchmark/table"]
    assert (teacher["cpu_ms"], student["cpu_ms"], student["gpu_ms"]) == (8.0, 4.0, None)
