"""The training benchmark explains itself and computes its tables right."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_training.py"


@pytest.fixture(scope="module")
def bench():
    import bench_training

    return bench_training


def series(bench, seconds, examples, peak=0):
    result = bench.Series()
    for value in seconds:
        result.add({"seconds": value, "steps": 10, "examples": examples, "peak_bytes": peak})
    return result


def group(bench, figure, target):
    variants = (bench.Variant("base", {}), bench.Variant("mine", {}, target))
    return bench.Group("title", figure, "about", variants)


def test_help_names_the_groups_and_the_defaults():
    run = subprocess.run(
        [sys.executable, SCRIPT, "--help"], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    for word in ("overhead", "objectives", "memory", "docs/bench_training.md", "random head"):
        assert word in run.stdout


def test_time_is_compared_round_by_round(bench):
    # The machine is three times slower in the second round; the ratios 1.02, 1.04, 1.06 do not see it.
    base, mine = series(bench, [1.0, 3.0, 1.0], 320), series(bench, [1.02, 3.12, 1.06], 320)
    last = bench.table(group(bench, "time", 1.05), [base, mine]).splitlines()[-1]
    assert last == "| mine | 106 | 302 | 1.04× (1.02–1.06) | ≤ 1.05× met |"
    assert "**missed**" in bench.table(group(bench, "time", 1.03), [base, mine])


def test_rates_count_examples_not_steps(bench):
    base, mine = series(bench, [2.0, 2.0], 320), series(bench, [1.0, 1.0], 288)
    last = bench.table(group(bench, "rate", 1.8), [base, mine]).splitlines()[-1]
    assert last == "| mine | 100 | 288 | 1.80× (1.80–1.80) | ≥ 1.80× met |"
    assert "**missed**" in bench.table(group(bench, "rate", 1.81), [base, mine])


def test_memory_is_a_difference(bench):
    base, mine = series(bench, [1.0], 96, 100 * 2**20), series(bench, [1.0], 96, 150 * 2**20)
    lines = bench.table(group(bench, "memory", None), [base, mine]).splitlines()
    assert lines[2:] == ["| base | 100 | baseline |", "| mine | 150 | +50 |"]


def test_refuses_a_group_that_does_not_exist(bench, capsys):
    with pytest.raises(SystemExit):
        bench.arguments(["--groups", "overhead,speed"])
    assert (
        "Expected groups among overhead, cache, defaults, objectives, memory but got speed"
        in capsys.readouterr().err
    )
