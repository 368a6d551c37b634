"""Figures of a plan, against curves whose inverse is known."""

import math

import pytest

from lit_compress.compress.planning import LOW_RANKS, MARGIN, RANKS, Storage, Words, figures_for, in_storage
from lit_compress.compress.probe import Probe, Probes
from lit_compress.compress.wish import Wish

WORDS = Words(count=10_000, hidden=320)
TABLE, WEIGHTS = 10_000 * 324, 8_000_000


def probes(gain=5.0, power=0.8, runtime="onnx-int8", sizes=(1, 2, 4, 8)):
    """Return probes of a runtime that is ``gain`` times faster, whose speed-up is a power of that of the structure."""
    return [
        Probe(size, runtime, gain * size**power, 0.0, 0.0, TABLE + WEIGHTS // size, WEIGHTS // size, 6)
        for size in sizes
    ]


def found(*curves):
    return Probes(10.0, [one for curve in curves for one in curve], {})


def test_the_structure_is_pruned_as_far_as_the_speed_asks():
    figures = figures_for(Wish(0.9, speedup=10.0), found(probes()), WORDS, beside=0)
    exact = (10.0 * MARGIN / 5.0) ** (1 / 0.8)
    assert exact <= figures.structural <= exact * 1.021
    assert figures.speedup == pytest.approx(5.0 * figures.structural**0.8, rel=1e-6)
    assert figures.storage == Storage()


def test_the_cut_is_what_the_runtime_itself_has_to_gain():
    figures = figures_for(Wish(0.9, speedup=10.0), found(probes()), WORDS, beside=0)
    assert figures.cut == pytest.approx(figures.structural**0.8, rel=1e-6)
    assert figures_for(Wish(0.9, speedup=4.0), found(probes()), WORDS, beside=0).cut == 1.0


def test_what_storage_costs_is_pruned_for():
    figures = figures_for(Wish(0.9, speedup=10.0), found(probes()), WORDS, beside=0)
    # The original takes 1, the whole model 1/5, and 0.04 more as it is stored; 1 / (10 MARGIN) is left for all of it.
    right = (1 / 5 + 0.04) * 10 * MARGIN
    stored = in_storage(figures, asked=10.0, whole=5.0, stored=1 / 0.24)
    assert stored.cut == pytest.approx(right, rel=1e-6) and stored.cut > figures.cut * 1.15
    assert stored.speedup == pytest.approx(10 * MARGIN, rel=1e-6)
    assert in_storage(figures, 10.0, 5.0, 5.5).cut == pytest.approx(
        10 * MARGIN / 5, rel=0.02
    )  # it costs nothing


def test_a_cut_for_a_size_stays_that_of_the_structure():
    figures = figures_for(Wish(0.9, size_mb=3.0), found(probes()), WORDS, beside=0)
    stored = in_storage(figures, asked=1.0, whole=5.0, stored=1 / 0.24)
    whole, small = 1 / 5, 1 / figures.speedup
    assert stored.cut == pytest.approx((whole + 0.04) / (small + 0.04), rel=1e-6)


def test_storage_alone_may_call_for_pruning():
    figures = figures_for(Wish(0.9, speedup=4.5), found(probes()), WORDS, beside=0)
    assert figures.cut == 1.0
    assert in_storage(figures, 4.5, 5.0, 1 / 0.24).cut == pytest.approx(0.24 * 4.5 * MARGIN, rel=1e-6)
    assert in_storage(figures, 4.5, 5.0, 4.95).cut == 1.0


def test_milliseconds_are_a_speed_up_over_the_original():
    by_time = figures_for(Wish(0.9, latency_ms=1.0), found(probes()), WORDS, beside=0)
    assert by_time == figures_for(Wish(0.9, speedup=10.0), found(probes()), WORDS, beside=0)


def test_a_runtime_that_is_fast_enough_alone_prunes_nothing():
    figures = figures_for(Wish(0.9, speedup=4.0), found(probes()), WORDS, beside=0)
    assert (figures.structural, figures.storage) == (1.0, Storage())


def test_the_runtime_that_needs_least_pruning_wins():
    slow, fast = probes(gain=4.0), probes(gain=6.0, runtime="openvino-int8")
    assert figures_for(Wish(0.9, speedup=12.0), found(slow, fast), WORDS, 0).runtime == "openvino-int8"


def test_a_size_takes_the_most_bits_that_fit_before_more_is_pruned():
    beside = 500_000
    sizes = {
        Storage(8, 8): WEIGHTS + 10_000 * 324,
        Storage(8, 4): WEIGHTS + 10_000 * (160 + 20),
        Storage(4, 4): WEIGHTS / 2 + 10_000 * (160 + 20),
        Storage(4, 4, 192): WEIGHTS / 2 + 10_000 * (96 + 12) + 320 * (96 + 4),
    }
    for storage, size in sizes.items():
        figures = figures_for(Wish(0.9, size_mb=(size + beside + 1) / 1e6), found(probes()), WORDS, beside)
        assert (figures.structural, figures.bytes) == (1.0, int(size) + beside)
        # Rank 256 is a little smaller than the whole table, and larger than 192.
        assert figures.storage in (storage, Storage(4, 4, 256))


def test_a_size_prunes_blocks_before_it_takes_small_factors():
    figures = figures_for(Wish(0.9, size_mb=3.0), found(probes()), WORDS, beside=0)
    assert figures.structural > 1.5
    assert figures.storage.rank in RANKS
    assert figures.bytes <= 3_000_000
    larger = figures_for(Wish(0.9, size_mb=3.5), found(probes()), WORDS, 0)
    assert larger.structural < figures.structural


def test_small_factors_are_for_what_is_out_of_reach_otherwise():
    smallest = WEIGHTS / 8 / 2 + WORDS.bytes(Storage(4, 4, RANKS[-1]))
    figures = figures_for(Wish(0.9, size_mb=0.99 * smallest / 1e6), found(probes()), WORDS, beside=0)
    assert figures.storage.rank in LOW_RANKS


def test_bytes_of_factors_are_those_of_numbers_and_scales():
    # A float32 scale per word, or a float16 one per 32 numbers; of the map behind a factor one per output.
    assert Words(100, 64).bytes(Storage()) == 100 * 64 + 100 * 4
    assert Words(100, 64).bytes(Storage(8, 4)) == 100 * 32 + 200 * 2
    assert Words(100, 64).bytes(Storage(4, 4, 32)) == (100 * 16 + 100 * 2) + (64 * 16 + 64 * 4)


def test_a_width_that_groups_do_not_divide_keeps_scales_per_word():
    storages = Words(100, 60).storages(RANKS)
    assert {one.word_bits for one in storages} == {8}


def test_refuses_what_is_out_of_reach_and_says_what_can_be_reached():
    with pytest.raises(
        ValueError, match=r"100× the original; without any head or neuron in 6 blocks .* 26\.4× as fast"
    ) as error:
        figures_for(Wish(0.9, speedup=100.0, size_mb=0.5), found(probes()), WORDS, beside=0)
    smallest = WEIGHTS / 8 / 2 + WORDS.bytes(Storage(4, 4, 32))
    assert f"{smallest / 1e6:.3g} MB" in str(error.value)
    assert math.isclose(probes()[-1].speedup, 5 * 8**0.8)
