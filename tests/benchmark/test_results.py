import json

import pytest

from lit_compress.benchmark.measure import measure
from lit_compress.benchmark.protocol import Candidate, Protocol
from lit_compress.benchmark.results import add_quality_ratios, append_rows, read_results, to_row
from tests.export.single_texts import full_disk
from tests.report.rows import make_row, make_teacher

KEYS = {
    *("schema", "time", "run", "recipe", "model", "method", "seed", "role", "is_baseline", "checkpoint"),
    *(
        "weights",
        "runtime",
        "libraries",
        "shape",
        "params",
        "nonzero_params",
        "macs",
        "bytes",
        "cpu",
        "gpu",
        "quality",
    ),
    *("ratio", "warnings", "seconds", "session", "environment", "protocol"),
}
CPU_KEYS = {
    *("latency_ms", "throughput", "fixed", "rss_mb", "rss_growth_mb"),
    *("energy_j_per_text", "rounds", "warmup_rounds"),
}


@pytest.fixture
def measured(fake_workers, fake_folder):
    teacher = Candidate("teacher", fake_folder("teacher", seconds=2e-3), "fine-tuning")
    student = Candidate("student", fake_folder("student", seconds=1e-3, joules=0.5), "soft targets")
    protocol = Protocol((3, 5), rounds=4, min_rounds=1, fixed_lengths=(32, 384), fixed_batches=(2,), data="d")
    return measure([student], teacher, protocol)


def test_measured_rows_survive_the_file(measured, tmp_path):
    rows = [to_row(m, run="runs/x", recipe="distil/x", seed=3) for m in measured]
    path = tmp_path / "deep" / "results.jsonl"
    append_rows(path, rows)
    first, second = read_results(path)
    assert (first["role"], first["is_baseline"]) == ("teacher", True)
    assert (second["role"], second["is_baseline"], second["runtime"]) == ("student", False, "torch-fp32")
    assert second["cpu"]["rounds"] == 4 and second["cpu"]["energy_j_per_text"] == 0.5
    assert second["cpu"]["latency_ms"]["wall_p50"] == pytest.approx(2 * second["cpu"]["latency_ms"]["p50"])
    assert second["gpu"] is None and second["quality"] is None and second["checkpoint"] is None
    assert (second["params"], second["nonzero_params"]) == (10, 9)
    assert second["macs"] == {"length": 128, "count": 1000}
    assert second["protocol"]["lengths"] == [3, 5] and second["protocol"]["clock"] == "cpu time"
    assert second["session"] == first["session"] and "error" not in second


def test_row_has_every_key_of_its_schema(measured):
    row = to_row(measured[1], run="runs/x")
    assert row.keys() == KEYS and row["schema"] == 2
    assert row["cpu"].keys() == CPU_KEYS
    assert row["cpu"]["latency_ms"].keys() == {"p50", "p90", "p99", "p50_spread", "p90_spread", "wall_p50"}
    assert row["cpu"]["throughput"].keys() == {"8", "32"}
    # The model reads 130 tokens at most.
    assert row["cpu"]["fixed"].keys() == {"32"}
    assert row["cpu"]["fixed"]["32"].keys() == {"latency_ms", "throughput"}
    assert row["cpu"]["fixed"]["32"]["throughput"].keys() == {"2"}
    ratios = {"cpu_latency", "cpu_throughput_8", "cpu_throughput_32", "cpu_latency_32"}
    assert row["ratio"].keys() == ratios | {"cpu_memory", "size", "params"}
    ratio = row["ratio"]["cpu_latency"]
    assert ratio["verdict"] == "faster" and ratio["low"] < ratio["median"] < ratio["high"] < 1
    assert {"cpu_flags", "governor", "onnxruntime", "load_before", "load_after"} <= row["environment"].keys()
    assert {"batches", "fixed_batches", "data", "threads", "warmup"} <= row["protocol"].keys()


def test_gpu_row_tells_memory_allocated_and_reserved(fake_workers, fake_folder, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    (found,) = measure([Candidate("a", fake_folder("a", peak=7_000_000))], None, Protocol((3,), rounds=3))
    gpu = to_row(found, run="r")["gpu"]
    assert gpu.keys() == CPU_KEYS - {"rss_mb", "rss_growth_mb"} | {"vram_mb", "vram_reserved_mb"}
    assert (gpu["vram_mb"], gpu["vram_reserved_mb"]) == (7.0, 14.0)


def test_failed_model_has_its_error_and_no_figures(fake_workers, fake_folder):
    (found,) = measure([Candidate("a", fake_folder("a", do="load", then="crash"))], None, Protocol((3,)))
    row = to_row(found, run="r")
    assert row.keys() == KEYS | {"error"}
    assert row["cpu"] is None and row["ratio"] == {} and "exit status 1" in row["error"]


def test_rows_are_appended_one_per_line(tmp_path):
    path = tmp_path / "results.jsonl"
    append_rows(path, [make_row(model="a"), make_row(model="b")])
    append_rows(path, [make_row(model="c")])
    assert [json.loads(line)["model"] for line in path.read_text().splitlines()] == ["a", "b", "c"]
    assert [row["model"] for row in read_results(path)] == ["a", "b", "c"]


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85"])
def test_names_with_line_separators_stay_in_their_row(tmp_path, character):
    path = tmp_path / "results.jsonl"
    append_rows(path, [make_row(model=f"a{character}b"), make_row(model="c")])
    assert [row["model"] for row in read_results(path)] == [f"a{character}b", "c"]
    path.write_text(path.read_text() + "{")
    with pytest.raises(ValueError, match="in line 3 of"):
        read_results(path)


# The last one within a letter of two bytes.
@pytest.mark.parametrize("cut", [b"{", b'{"schema": 2, "mod', '{"schema": 2, "model": "é'.encode()[:-1]])
def test_line_cut_short_by_a_kill_is_left_out_and_goes_with_the_next_one(tmp_path, cut):
    path = tmp_path / "results.jsonl"
    append_rows(path, [make_row(model="a")])
    whole = path.read_bytes()
    path.write_bytes(whole + cut)
    assert [row["model"] for row in read_results(path, allow_cut=True)] == ["a"]
    with pytest.raises(ValueError, match=r"in line 2 of .*results\.jsonl .*cut short by a kill; delete"):
        read_results(path)
    append_rows(path, [make_row(model="b")])
    assert path.read_bytes().startswith(whole)
    assert [row["model"] for row in read_results(path)] == ["a", "b"]


def test_a_line_that_only_lacks_its_end_is_kept(tmp_path):
    path = tmp_path / "results.jsonl"
    append_rows(path, [make_row(model="a")])
    path.write_bytes(path.read_bytes().rstrip())
    assert [row["model"] for row in read_results(path, allow_cut=True)] == ["a"]
    append_rows(path, [make_row(model="b")])
    assert [row["model"] for row in read_results(path)] == ["a", "b"]


@pytest.mark.parametrize("before", [[], ["a"], ["a", "b"]])
def test_refuses_to_leave_half_a_line_on_a_full_disk(tmp_path, before):
    path = tmp_path / "results.jsonl"
    append_rows(path, [make_row(model=name) for name in before])
    old = path.read_bytes()
    # There is room for the first of two rows and for half of the second.
    room = len(old) + len(json.dumps(make_row(model="c"))) * 3 // 2
    with (
        full_disk(room),
        pytest.raises(OSError, match=r"Expected to write .*results\.jsonl but got: File too large; check"),
    ):
        append_rows(path, [make_row(model="c"), make_row(model="d")])
    assert path.read_bytes() == old
    append_rows(path, [make_row(model="c")])
    assert [row["model"] for row in read_results(path)] == [*before, "c"]


def test_refuses_a_corrupt_line_by_its_number(tmp_path):
    path = tmp_path / "results.jsonl"
    append_rows(path, [make_row()])
    path.write_text(path.read_text() + "\n" + '{"schema": 2, "mod\n')
    for allow_cut in (False, True):  # it is not the last one: nobody would measure it again
        with pytest.raises(ValueError, match=r"in line 3 of .*results\.jsonl but got.*delete that line"):
            read_results(path, allow_cut)


def test_refuses_rows_of_a_newer_release(tmp_path):
    path = tmp_path / "results.jsonl"
    append_rows(path, [make_row(schema=3)])
    with pytest.raises(ValueError, match=r"Expected schema 2 in line 1 of .* but got schema 3.*upgrade"):
        read_results(path)


def test_refuses_rows_of_an_older_release(tmp_path):
    path = tmp_path / "results.jsonl"
    append_rows(path, [make_row(), make_row(schema=1)])
    with pytest.raises(
        ValueError, match=r"in line 2 of .* but got schema 1, measured by an older.*run lit-com"
    ):
        read_results(path)


@pytest.mark.parametrize("line", ['{"schema": 2, "model": "a"}', "[1, 2]", "3"])
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
