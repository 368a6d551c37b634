"""The choice among rows, against choices made by hand."""

import copy
import itertools

import pytest

from lit_compress.benchmark.selection import Floor, choose

COST = "cpu/latency_ms"


def row(name, quality, latency, low=None, high=None, **more):
    """A student's row; the interval of its ratio to a baseline of 10 ms, exact where it is not given."""
    return {
        "role": "student",
        "checkpoint": name,
        "bytes": 1_000_000,
        "params": 10,
        "cpu": None if latency is None else {"latency_ms": {"p50": latency}, "rss_mb": 100.0},
        "gpu": None,
        "quality": None if quality is None else {"metric": "accuracy", "value": quality},
        "ratio": {}
        if latency is None
        else {
            "cpu_latency": {
                "median": latency / 10,
                "low": (low or latency) / 10,
                "high": (high or latency) / 10,
            }
        },
        **more,
    }


ROWS = [row("slow", 0.95, 9.0), row("good", 0.90, 5.0), row("fast", 0.80, 2.0), row("worst", 0.70, 8.0)]


@pytest.mark.parametrize(
    ("at_least", "expected"),
    [("0.99*teacher", "slow"), ("0.9*teacher", "good"), (0.9, "good"), ("0.8", "fast"), (0.0, "fast")],
)
def test_the_cheapest_that_is_good_enough(at_least, expected):
    for rows in itertools.permutations(ROWS):
        choice = choose(rows, Floor.parse(at_least), COST, teacher=0.95)
        assert (choice.row["checkpoint"], choice.qualifies) == (expected, True)


def test_the_reason_has_the_numbers():
    reason = choose(ROWS, Floor.parse("0.9*teacher"), COST, 0.95, "val/accuracy").reason
    assert reason == (
        "good is the lowest in cpu/latency_ms, 5, of the 2 of 4 checkpoints with val/accuracy of at least 0.8550 "
        "(0.9*teacher, whose is 0.9500); its val/accuracy is 0.9000."
    )


def test_where_none_qualifies_the_nearest_is_named_with_what_it_lacks():
    choice = choose(ROWS, Floor.parse("1.0*teacher"), COST, 0.96, "val/accuracy")
    assert (choice.row["checkpoint"], choice.qualifies) == ("slow", False)
    assert "none of 4 checkpoints has val/accuracy of at least 0.9600" in choice.reason
    assert "The nearest is slow with 0.9500, short of it by 0.0100." in choice.reason


def test_noise_does_not_decide_between_equally_fast_checkpoints():
    rows = [
        row("early", 0.90, 4.9, 4.7, 5.1),
        row("late", 0.93, 5.0, 4.8, 5.2),
        row("big", 0.99, 9, 8.8, 9.2),
    ]
    choice = choose(rows, Floor.parse(0.85), COST)
    assert choice.row["checkpoint"] == "late"
    assert "No lower or higher but for noise: early; so quality decided." in choice.reason
    apart = [rows[0], row("late", 0.93, 5.4, 5.2, 5.6)]
    assert choose(apart, Floor.parse(0.85), COST).row["checkpoint"] == "early"


def test_ratios_decide_and_not_milliseconds_of_sessions_on_a_slower_machine():
    rows = [row("a", 0.90, 4.0), row("b", 0.93, 5.0), row("c", 0.99, 9.0)]
    for slow in range(3):
        mixed = copy.deepcopy(rows)
        mixed[slow]["cpu"]["latency_ms"]["p50"] *= 3
        assert choose(mixed, Floor.parse(0.85), COST).row["checkpoint"] == "a"


def test_without_a_baseline_the_spread_over_rounds_is_the_noise():
    rows = [row("a", 0.90, 4.9), row("b", 0.93, 5.0)]
    for each, spread in zip(rows, ([4.8, 5.1], [4.9, 5.2]), strict=True):
        each["ratio"] = {}
        each["cpu"]["latency_ms"]["p50_spread"] = spread
    assert choose(rows, Floor.parse(0.85), COST).row["checkpoint"] == "b"
    rows[1]["cpu"]["latency_ms"]["p50_spread"] = [5.15, 5.2]
    assert choose(rows, Floor.parse(0.85), COST).row["checkpoint"] == "a"


def test_sizes_have_no_noise_and_memory_has_two_percent():
    rows = [row("a", 0.90, 5.0, bytes=999_000), row("b", 0.93, 5.0, bytes=1_000_000)]
    assert choose(rows, Floor.parse(0.85), "size_mb").row["checkpoint"] == "a"
    for memory, expected in ((101.0, "b"), (103.0, "a")):
        rows[1]["cpu"] = {"latency_ms": {"p50": 5.0}, "rss_mb": memory}
        assert choose(rows, Floor.parse(0.85), "cpu/peak_mb").row["checkpoint"] == expected


def test_float32_rounding_does_not_miss_the_floor():
    rows = [row("a", 0.8999999761581421, 5.0)]  # 18 of 20 in float32
    assert choose(rows, Floor.parse(0.9), COST).qualifies
    assert not choose([row("a", 0.8999, 5.0)], Floor.parse(0.9), COST).qualifies


def test_what_could_not_be_measured_is_left_out_and_named():
    rows = [
        *ROWS,
        row("broken", 0.99, None, error="the worker was killed"),
        row("blind", None, 1.0),
        row("part", 0.99, None),
    ]
    choice = choose(rows, Floor.parse("0.9*teacher"), COST, teacher=0.95)
    assert choice.row["checkpoint"] == "good"
    assert "broken could not be judged: the worker was killed." in choice.reason
    assert "blind could not be judged: its quality was not evaluated." in choice.reason
    assert "part could not be judged: cpu/latency_ms was not taken." in choice.reason
    nothing = choose(rows[4:], Floor.parse(0.5), COST)
    assert nothing.row is None and not nothing.qualifies


@pytest.mark.parametrize(
    ("teacher", "told"), [(None, "was not evaluated"), (-0.2, "is -0.2, of which a share")]
)
def test_a_share_of_nothing_decides_nothing(teacher, told):
    choice = choose(ROWS, Floor.parse("0.98*teacher"), COST, teacher)
    assert choice.row is None and told in choice.reason


@pytest.mark.parametrize(
    "text", ["98*teacher", "98", "0*teacher", "teacher", "0.98 of teacher", "nan", "-*teacher", ""]
)
def test_refuses_a_floor_that_is_none(text):
    with pytest.raises(ValueError, match=r"at_least to be a share .* but got .*fractions"):
        Floor.parse(text)
