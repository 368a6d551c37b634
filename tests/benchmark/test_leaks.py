import pytest

from lit_compress.benchmark.leaks import leak_warning

MB = 1_000_000


def test_steady_growth_is_a_leak():
    warning = leak_warning([100 * MB + i * 12 * MB for i in range(11)])
    assert warning == "memory grew by 120 MB over 11 rounds and was still growing: a leak"


def test_leak_is_found_among_ups_and_downs():
    noise = (0, 3, -1, 2, 0, 1, -2, 3, 0, 2)
    assert leak_warning([(100 + 8 * i + n) * MB for i, n in enumerate(noise)]) is not None


@pytest.mark.parametrize(
    "memory",
    [
        [100 * MB] * 10,
        # Buffers that are taken in the first rounds and kept.
        [100 * MB, 180 * MB, 200 * MB, 200 * MB, 201 * MB, 200 * MB, 201 * MB, 201 * MB],
        # Too little to matter.
        [100 * MB + i * MB for i in range(10)],
        # Up and down.
        [100 * MB, 150 * MB, 90 * MB, 150 * MB, 95 * MB],
        # What eager PyTorch really did.
        [
            161_800_000,
            162_100_000,
            170_900_000,
            144_600_000,
            144_600_000,
            166_500_000,
            162_100_000,
            144_600_000,
        ],
        [140 * MB, 140 * MB, 140 * MB, 163 * MB, 163 * MB],
        [],
        [100 * MB, 900 * MB],
    ],
)
def test_memory_that_settles_is_none(memory):
    assert leak_warning(memory) is None
