import pytest

from lit_compress.benchmark.leaks import leak_warning

MB = 1_000_000


def test_steady_growth_is_a_leak():
    warning = leak_warning([100 * MB + i * 12 * MB for i in range(11)])
    assert warning == "memory grew by 120 MB over 11 rounds and was still growing: a leak"


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
        [],
        [100 * MB, 900 * MB],
    ],
)
def test_memory_that_settles_is_none(memory):
    assert leak_warning(memory) is None
