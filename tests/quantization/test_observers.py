"""Ranges of observers, against what they are by definition."""

import pytest
import torch

from lit_compress.quantization import Scheme
from lit_compress.quantization.grid import dequantize, grid_of, quantize
from lit_compress.quantization.observers import MeanSquaredError, MinMax, MovingAverage, Percentile

UINT8 = Scheme(8, False, "tensor")


def batches(count=5, size=4000, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(4, size // 4, generator=draw) * (1 + number) for number in range(count)]


def seen(observer, values):
    assert not observer.has_seen
    for batch in values:
        observer.observe(batch)
    assert observer.has_seen
    return tuple(float(end) for end in observer.range(UINT8))


def test_min_max():
    values = batches()
    everything = torch.cat([batch.flatten() for batch in values])
    assert seen(MinMax(), values) == (float(everything.min()), float(everything.max()))


def test_moving_average():
    values = batches()
    low, high = float(values[0].min()), float(values[0].max())
    for batch in values[1:]:
        low += 0.2 * (float(batch.min()) - low)
        high += 0.2 * (float(batch.max()) - high)
    assert seen(MovingAverage(0.2), values) == pytest.approx((low, high), rel=1e-5)


@pytest.mark.parametrize("share", [90.0, 99.0, 100.0])
def test_percentile(share):
    values = batches()
    everything = torch.cat([batch.flatten() for batch in values]).double()
    low, high = seen(Percentile(share), values)
    step = float(everything.max() - everything.min()) / 2048
    cut = (1 - share / 100) / 2
    # A bin wide on each side, and one more for values that were counted in wider bins than these.
    assert low == pytest.approx(float(everything.quantile(cut)), abs=6 * step)
    assert high == pytest.approx(float(everything.quantile(1 - cut)), abs=6 * step)
    inside = float(((everything >= low) & (everything <= high)).double().mean())
    assert inside == pytest.approx(share / 100, abs=0.002)


def test_the_squared_error_is_the_least_of_all_cuts():
    scheme = Scheme(4, False, "tensor")
    observer = MeanSquaredError()
    values = torch.randn(20000, generator=torch.Generator().manual_seed(0)) ** 3  # heavy tails
    observer.observe(values)

    def error(low, high):
        grid = grid_of(low.view(1, 1), high.view(1, 1), scheme)
        return float((dequantize(quantize(values[None], grid, scheme), grid)[0] - values).square().mean())

    low, high = observer.range(scheme)
    best = min(error(observer.low * cut / 100, observer.high * cut / 100) for cut in range(1, 101))
    assert error(low, high) == pytest.approx(best, rel=0.02)
    assert error(low, high) < 0.7 * error(observer.low, observer.high)


@pytest.mark.parametrize("kind", [MinMax, MovingAverage, Percentile, MeanSquaredError])
def test_state_goes_on_where_it_was(kind):
    values = batches()
    whole = kind()
    for batch in values:
        whole.observe(batch)
    first, second = kind(), kind()
    for batch in values[:3]:
        first.observe(batch)
    second.load_state_dict(first.state_dict())
    for batch in values[3:]:
        second.observe(batch)
    assert second.range(UINT8) == whole.range(UINT8)


def test_refuses_shares_and_momenta_out_of_range():
    with pytest.raises(ValueError, match="Expected a share above 50 and at most 100"):
        Percentile(101)
    with pytest.raises(ValueError, match="Expected momentum above 0 and at most 1"):
        MovingAverage(0.0)


@pytest.mark.parametrize("observer", [MinMax, MovingAverage, Percentile, MeanSquaredError])
@pytest.mark.parametrize("bad", [float("inf"), float("-inf"), float("nan")])
def test_a_batch_that_overflows_is_not_remembered(observer, bad):
    poisoned, clean = observer(), observer()
    values = batches(3)
    overflowed = values[0].clone()
    overflowed[0, 0] = bad
    poisoned.observe(overflowed)
    assert not poisoned.has_seen
    for batch in values:
        poisoned.observe(batch)
        poisoned.observe(overflowed * 7)
        clean.observe(batch)
    assert int(poisoned.skipped) == 4 and not int(clean.skipped)
    assert poisoned.range(UINT8) == clean.range(UINT8)
