"""What is asked for, and by how much it is missed."""

import pytest

from lit_compress.compress.wish import Wish


def row(latency=1.0, ratio=0.1, kept=0.98):
    ratios = {"cpu_latency": {"median": ratio, "low": ratio, "high": ratio}}
    return {"cpu": {"latency_ms": {"p50": latency}}, "ratio": {**ratios, "quality": kept}}


def test_every_figure_is_held_against_its_own():
    wish = Wish(0.99, speedup=12.5, latency_ms=0.8, size_mb=2.0)
    shares = {one.what: one.share for one in wish.against(row(), 2_500_000)}
    expected = {"quality": 1 - 0.98 / 0.99, "speed-up": 1 - 10 / 12.5, "latency": 0.25, "size": 0.25}
    assert shares == pytest.approx(expected)


def test_what_is_met_is_missed_by_nothing():
    wish = Wish(0.98, speedup=10.0, latency_ms=1.0, size_mb=2.5)
    assert all(one.is_met and one.share == 0 for one in wish.against(row(), 2_500_000))


def test_a_quality_nobody_judged_is_not_kept():
    assert not Wish(0.5, speedup=2).against(row(kept=None), 1)[0].is_met


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"speedup": 4}, 4),
        ({"latency_ms": 2.0}, 5),
        ({"speedup": 4, "latency_ms": 2}, 5),
        ({"size_mb": 3}, 1),
    ],
)
def test_the_stricter_of_two_times_counts(given, expected):
    assert Wish(0.9, **given).speedup_for(original_ms=10.0) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"quality": 98, "speedup": 2}, "percentages are written as fractions"),
        ({"quality": 0.9, "speedup": 1.0}, "Expected --speedup above 1 but got 1"),
        ({"quality": 0.9, "size_mb": 0.0}, "Expected --size-mb above 0 but got 0"),
        ({"quality": 0.9, "latency_ms": float("nan")}, "Expected --latency-ms above 0 but got nan"),
        ({"quality": 0.9}, "give --speedup, --latency-ms or --size-mb"),
    ],
)
def test_refuses_what_nothing_can_fulfil(given, message):
    with pytest.raises(ValueError, match=message):
        Wish(**given)
