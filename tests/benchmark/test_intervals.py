import math

import numpy as np
import pytest

from lit_compress.benchmark.intervals import PROCESS_NOISE, Ratio, Spread


def test_spread_by_hand():
    assert Spread.of([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]) == Spread(6, 2, 10)


def test_rounds_that_agree_leave_only_the_noise_between_processes():
    ratio = Ratio.of([0.8] * 5, less_is_faster=True, seed=0)
    assert ratio.median == pytest.approx(0.8)
    assert ratio.low == pytest.approx(0.8 / (1 + PROCESS_NOISE))
    assert ratio.high == pytest.approx(0.8 * (1 + PROCESS_NOISE))


@pytest.mark.parametrize(
    ("value", "less_is_faster", "verdict"),
    [
        (0.5, True, "faster"),
        (2.0, True, "slower"),
        (2.0, False, "faster"),
        (0.5, False, "slower"),
        (1 + 0.9 * PROCESS_NOISE, True, "no difference"),
        (1 - 0.9 * PROCESS_NOISE, True, "no difference"),
    ],
)
def test_verdict_is_what_the_interval_says(value, less_is_faster, verdict):
    assert Ratio.of([value] * 6, less_is_faster, seed=0).verdict == verdict


def test_interval_does_not_say_more_than_the_rounds():
    # The middle is well below 1, but rounds on both sides of it make that worth nothing.
    ratio = Ratio.of([0.7, 0.75, 0.8, 1.3, 1.4], True, seed=0)
    assert ratio.low < 0.8 < 1.3 < ratio.high
    assert ratio.verdict == "no difference"


def test_interval_of_an_inverted_ratio_is_the_inverted_interval():
    rounds = np.array([0.5, 0.6, 0.55, 0.52, 0.58])
    times, speeds = Ratio.of(rounds, True, seed=3), Ratio.of(1 / rounds, False, seed=3)
    assert speeds.median == pytest.approx(1 / times.median)
    assert (speeds.low, speeds.high) == pytest.approx((1 / times.high, 1 / times.low))
    assert times.verdict == speeds.verdict == "faster"


def test_interval_holds_the_truth_as_often_as_it_says():
    # Rounds of a known ratio with a noise far above the one between processes.
    rng, truth, inside = np.random.default_rng(0), 0.7, 0
    for seed in range(200):
        ratio = Ratio.of(truth * np.exp(rng.normal(0, 0.3, 10)), True, seed)
        inside += ratio.low <= truth <= ratio.high
    # 95 % of 200 is 190; a binomial is hardly ever more than 4 standard deviations, 12, below it.
    assert inside >= 178


def test_equal_models_are_hardly_ever_told_apart():
    rng = np.random.default_rng(1)
    verdicts = [Ratio.of(np.exp(rng.normal(0, 0.05, 6)), True, seed).verdict for seed in range(100)]
    assert verdicts.count("no difference") >= 95


def test_same_rounds_and_seed_give_the_same_interval():
    rounds = np.exp(np.random.default_rng(2).normal(0, 0.1, 7))
    assert Ratio.of(rounds, True, 5) == Ratio.of(rounds, True, 5)
    assert math.isfinite(Ratio.of([0.9], True, 5).high)
