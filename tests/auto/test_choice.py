"""The choice among measured routes, against choices made by hand."""

import itertools

import pytest

from lit_compress.auto.choice import choose
from lit_compress.auto.goal import Goal, Shortfall
from lit_compress.auto.trial import Trial
from lit_compress.benchmark.protocol import Candidate


def trial(name, quality, ms, low=None, high=None, size=10, memory=100.0):
    """A measured route; the interval of its ratio to an original of 10 ms, exact where it is not given."""
    low, high = low or ms, high or ms
    row = {
        "is_baseline": name == "torch-fp32",
        "bytes": size * 1_000_000,
        "cpu": {
            "latency_ms": {"p50": ms, "p50_spread": [low, high]},
            "throughput": {"8": {"texts_per_second": 8000 / ms, "spread": [8000 / high, 8000 / low]}},
            "rss_mb": memory,
        },
        "ratio": {
            "cpu_latency": {"median": ms / 10, "low": low / 10, "high": high / 10},
            "cpu_throughput_8": {"median": 10 / ms, "low": 10 / high, "high": 10 / low},
        },
    }
    found = Trial(Candidate("model", "folder", runtime=name), {}, bytes=size * 1_000_000, row=row)
    found.quality = {"metric": "accuracy", "value": quality}
    return found


ORIGINAL = trial("torch-fp32", 0.90, 10.0, size=40)


def chosen(*trials, **goal):
    """Choose; the order of the routes must not matter."""
    goal = Goal(**{"quality": 0.9, **goal})
    choices = [choose(list(order), ORIGINAL, goal) for order in itertools.permutations((ORIGINAL, *trials))]
    assert len({choice.trial and choice.trial.name for choice in choices}) == 1
    return choices[0]


@pytest.mark.parametrize("batch", [1, 8])
def test_intervals_that_overlap_leave_it_to_the_quality_then_to_the_size(batch):
    fast = trial("onnx-int8", 0.88, 4.9, 4.6, 5.2)
    better = trial("onnx-fp32", 0.90, 5.2, 5.0, 5.4, size=38)
    slower = trial("torch-bf16", 0.92, 6.0, 5.7, 6.3, size=40)
    choice = chosen(fast, better, slower, batch=batch)
    assert choice.trial is better
    assert "No better or worse in latency but for noise: onnx-int8; so quality decided." in choice.reason
    smaller = trial("openvino-int8", 0.90, 5.15, 5.0, 5.3, size=9)
    assert "so quality decided" in (choice := chosen(fast, better, smaller, batch=batch)).reason
    assert choice.trial is smaller
    assert "so the smaller file decided" in chosen(better, smaller, batch=batch).reason


def test_memory_within_two_per_cent_is_equal_and_size_is_exact():
    lean, better = trial("onnx-int8", 0.88, 5, memory=50.0), trial("onnx-fp32", 0.90, 5, memory=50.9)
    assert chosen(lean, better, minimise="memory").trial is better
    heavy = trial("onnx-fp32", 0.90, 5, memory=51.1)
    assert chosen(lean, heavy, minimise="memory").trial is lean
    assert chosen(trial("onnx-int8", 0.88, 9, size=37), better, minimise="size").trial is better


def test_milliseconds_count_where_a_ratio_is_missing():
    fast, slow = trial("onnx-int8", 0.88, 4.9), trial("onnx-fp32", 0.90, 5.5)
    fast.row["ratio"] = {}
    assert chosen(fast, slow).trial is fast
    fast.row["cpu"]["latency_ms"]["p50_spread"] = [4.0, 5.6]
    assert chosen(fast, slow).trial is slow


def test_a_limit_within_the_noise_is_told():
    choice = chosen(trial("onnx-int8", 0.9, 5.0, 4.5, 5.5), max_latency_ms=5.2)
    assert "between 4.5 and 5.5 ms, so it may exceed --max-latency-ms 5.2 at times." in choice.reason
    calm = chosen(trial("onnx-int8", 0.9, 5.0, 4.9, 5.1), max_latency_ms=5.2)
    assert "may exceed" not in calm.reason


def test_what_lacks_something_or_failed_is_not_chosen():
    low, dead = trial("onnx-int8", 0.5, 1.0), trial("onnx-fp32", 0.9, 2.0)
    low.shortfalls = [Shortfall("keeps too little", 0.3)]
    dead.failure = ("crashed", "it died")
    choice = chosen(low, dead)
    assert choice.trial is ORIGINAL and "Nothing beats the original" in choice.reason


def test_equal_in_everything_the_original_stays():
    twin = trial("torch-bf16", 0.90, 9.9, 9.5, 10.3, size=40)
    assert choose([ORIGINAL, twin], ORIGINAL, Goal(0.9)).trial is ORIGINAL


def test_where_all_have_crashed_nothing_is_nearest():
    dead = trial("torch-fp32", 0.9, 2.0)
    dead.failure = ("crashed", "it died")
    choice = choose([dead], dead, Goal(0.9))
    assert choice.trial is None
    assert choice.reason.endswith("and none could be judged and measured to the end.")
