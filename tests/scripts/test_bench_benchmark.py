"""The benchmark's own benchmark resumes, refuses to mix machines, and computes its page right."""

import argparse
import json
import sys

import pytest

from lit_compress.benchmark.environment import describe_environment
from lit_compress.models.checkpoint import save_folder
from tests.benchmark.conftest import fake_workers  # noqa: F401
from tests.report.rows import make_row
from tests.tiny import tiny_bert


@pytest.fixture(scope="module")
def bench():
    import bench_benchmark

    return bench_benchmark


def record(number, median, verdict="no difference", seconds=30.0, **changes):
    ratio = {"median": median, "low": median - 0.05, "high": median + 0.05, "verdict": verdict}
    row = make_row(ratio={"cpu_latency": ratio, "size": 1.0}, **changes)
    return {"number": number, "model": "m", "against": "t", "seconds": seconds, "load": 0.2, "row": row}


def test_page_says_what_is_met(bench):
    equal = [record(n, 1 + 0.001 * n) for n in range(19)] + [record(19, 1.1, "slower")]
    same = [record(n, value, "faster") for n, value in enumerate([0.50, 0.51, 0.52, 0.51, 0.50])]
    page = bench.page(
        {"budget": [record(0, 1, seconds=30), record(1, 1, seconds=44)], "aa": equal, "repeat": same}
    )
    assert "**44.0 s** at most in 2 runs" in page and "Target: at most 45 s, met" in page
    assert "| cpu_latency | 19 of 20 |" in page and "10.0% |" in page
    assert '"no difference" in at least 95%, met (95%)' in page
    # The percentiles of five sorted values: 0.50 and 0.516, around 0.51.
    assert "under 8%, met (3.1%)" in page


def test_page_says_what_is_not_met(bench):
    unequal = [record(n, 1.1, "slower") for n in range(2)] + [record(n, 1) for n in range(2, 20)]
    wide = [record(n, value) for n, value in enumerate([0.4, 0.5, 0.6])]
    page = bench.page({"budget": [record(0, 1, seconds=46)], "aa": unequal, "repeat": wide})
    assert page.count("**not met**") == 3


def options(tmp_path, **more):
    return argparse.Namespace(runs_dir=str(tmp_path / "runs"), runs=3, data=None, **more)


def test_interrupted_runs_go_on(bench, fake_workers, tmp_path, capsys):  # noqa: F811
    model = save_folder(tmp_path / "model", tiny_bert(layers=2), None, {"input_lengths": [3, 5]})
    args = options(tmp_path, model=str(model), against=None)
    args.runs = 2
    bench.aa(args)
    before = (tmp_path / "runs" / "aa.jsonl").read_text()
    args.runs = 3
    bench.aa(args)
    text = (tmp_path / "runs" / "aa.jsonl").read_text()
    assert text.startswith(before)
    records = [json.loads(line) for line in text.splitlines()]
    assert [one["number"] for one in records] == [0, 1, 2]
    assert {one["row"]["protocol"]["seed"] for one in records} == {0, 1, 2}
    assert {one["row"]["ratio"]["cpu_latency"]["verdict"] for one in records} == {"no difference"}
    assert "aa 2:" in capsys.readouterr().out


def test_refuses_to_mix_machines(bench, tmp_path):
    (tmp_path / "runs").mkdir()
    here = describe_environment()
    other = record(0, 1.0, environment={**here, "cpu": "Other CPU"})
    (tmp_path / "runs" / "repeat.jsonl").write_text(json.dumps(other) + "\n")
    with pytest.raises(SystemExit, match="Expected runs of this machine and these libraries"):
        bench.repeat(options(tmp_path, model="m", against="t"))


def test_refuses_to_mix_models(bench, tmp_path):
    (tmp_path / "runs").mkdir()
    mine = record(0, 1.0, environment=describe_environment())
    (tmp_path / "runs" / "repeat.jsonl").write_text(json.dumps(mine) + "\n")
    with pytest.raises(SystemExit, match="Expected runs of another in .* but got m"):
        bench.repeat(options(tmp_path, model="another", against="t"))


def test_refuses_a_page_without_runs(bench, tmp_path):
    with pytest.raises(SystemExit, match="there are none; measure first"):
        bench.report(argparse.Namespace(runs_dir=str(tmp_path), out=str(tmp_path / "page.md")))


def test_help_explains_the_runs(bench, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench_benchmark.py", "--help"])
    with pytest.raises(SystemExit):
        bench.main()
    text = capsys.readouterr().out
    assert all(name in text for name in ("budget", "aa", "repeat", "report", "docs/bench_benchmark.md"))
