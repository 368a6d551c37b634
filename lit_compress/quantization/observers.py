"""Which range of values a quantizer covers: observers of activations.

Each looks at one batch of values after another and then gives the range. All of them know one range for the whole
tensor, which is what integer runtimes take for activations that are quantized beforehand. Where several processes train
together, each sees its part of a batch, and all of them find the range of the whole batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.distributed as distributed
from torch import Tensor, nn

from lit_compress.processes import train_together
from lit_compress.quantization.grid import Grid, dequantize, grid_of, quantize
from lit_compress.quantization.scheme import Scheme

_BINS = 2048
# Shares of the range of the histogram that are tried as cut.
_CUTS = 100


def extremes(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least and the largest value, of all processes that train together.

    Where one of the values is infinite or no number there is no range, infinity to minus infinity: a step that
    overflows in half precision is skipped, and must not be remembered.
    """
    low, high = torch.aminmax(values.detach())
    ends = torch.stack((-low, high))
    ends = torch.where(ends.isfinite().all(), ends, -torch.inf)
    if train_together():
        distributed.all_reduce(ends, distributed.ReduceOp.MAX)
    return -ends[0], ends[1]


class Observer(nn.Module, ABC):
    """Looks at values and gives the range that a quantizer has to cover.

    Its state is in buffers, so that a fit that is resumed goes on with it.
    """

    low: Tensor
    high: Tensor
    #: How many batches were left out for values that are infinite or no numbers.
    skipped: Tensor

    def __init__(self) -> None:
        super().__init__()
        # Nothing was seen: the range is empty.
        self.register_buffer("low", torch.tensor(float("inf")))
        self.register_buffer("high", torch.tensor(float("-inf")))
        self.register_buffer("skipped", torch.tensor(0), persistent=False)

    @abstractmethod
    def observe(self, values: Tensor) -> None:
        """Take values of any shape into account."""

    def _extremes(self, values: Tensor) -> tuple[Tensor, Tensor]:
        low, high = extremes(values)
        self.skipped += low > high
        return low, high

    def range(self, scheme: Scheme) -> tuple[Tensor, Tensor]:
        """Return the least and the largest value to cover, as scalars.

        Args:
            scheme: Integers that will cover it.
        """
        return self.low, self.high

    @property
    def has_seen(self) -> bool:
        """Whether there is a range."""
        return bool(self.low <= self.high)


class MinMax(Observer):
    """The least and the largest value of all."""

    @torch.no_grad()
    def observe(self, values: Tensor) -> None:
        """See :meth:`Observer.observe`."""
        low, high = self._extremes(values)
        self.low.copy_(torch.minimum(self.low, low))
        self.high.copy_(torch.maximum(self.high, high))


class MovingAverage(Observer):
    """Averages of the least and of the largest value of every batch, in which old batches fade.

    Args:
        momentum: Weight of the newest batch, above 0, at most 1.

    Raises:
        ValueError: The momentum is out of range.
    """

    def __init__(self, momentum: float = 0.01) -> None:
        super().__init__()
        if not 0.0 < momentum <= 1.0:
            raise ValueError(
                f"Expected momentum above 0 and at most 1 (weight of a batch) but got {momentum}."
            )
        self.momentum = momentum

    @torch.no_grad()
    def observe(self, values: Tensor) -> None:
        """See :meth:`Observer.observe`."""
        for seen, now in zip((self.low, self.high), self._extremes(values), strict=True):
            now = now.to(seen.dtype)
            # No branch: it would wait for the device in every step.
            average = torch.where(seen.isinf(), now, seen + self.momentum * (now - seen))
            seen.copy_(torch.where(now.isinf(), seen, average))


class _Histogram(Observer):
    """Counts values between the least and the largest; the bins grow wider when values lie outside."""

    counts: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(_BINS, dtype=torch.float64))

    @torch.no_grad()
    def observe(self, values: Tensor) -> None:
        """See :meth:`Observer.observe`."""
        flat = values.detach().reshape(-1).float()
        low, high = self._extremes(flat)
        low, high = torch.minimum(self.low, low), torch.maximum(self.high, high)
        if not bool(low <= high):  # nothing finite was seen yet, by any process
            return
        if self.has_seen and (low < self.low or high > self.high):
            self.counts.copy_(self._counted(self._centres(), self.counts, low, high))
        self.low.copy_(low)
        self.high.copy_(high)
        counts = self._counted(flat, None, low, high)
        counts *= flat.isfinite().all()
        if train_together():
            distributed.all_reduce(counts)
        self.counts += counts

    def _counted(self, values: Tensor, weights: Tensor | None, low: Tensor, high: Tensor) -> Tensor:
        width = (high - low).clamp(min=1e-30)
        place = ((values - low) / width * _BINS).long().clamp_(0, _BINS - 1)
        ones = torch.ones_like(place, dtype=torch.float64) if weights is None else weights
        return torch.zeros_like(self.counts).index_add_(0, place, ones)

    def _centres(self) -> Tensor:
        """Return the values ``(bins,)`` that stand for the bins."""
        step = (self.high - self.low) / _BINS
        return self.low + step * (torch.arange(_BINS, device=self.low.device) + 0.5)


class Percentile(_Histogram):
    """The range that holds a share of the values; the same share is cut off at both ends.

    Args:
        share: Percent of the values inside of the range, above 50, at most 100.

    Raises:
        ValueError: The share is out of range.
    """

    def __init__(self, share: float = 99.99) -> None:
        super().__init__()
        if not 50.0 < share <= 100.0:
            raise ValueError(f"Expected a share above 50 and at most 100 (percent) but got {share}.")
        self.share = share

    def range(self, scheme: Scheme) -> tuple[Tensor, Tensor]:
        """See :meth:`Observer.range`."""
        below = self.counts.cumsum(0) / self.counts.sum()
        cut = (1 - self.share / 100) / 2
        step = (self.high - self.low) / _BINS
        # The edge of the bin in which the share is reached.
        first = (below > cut).int().argmax()
        last = (below >= 1 - cut - 1e-12).int().argmax()
        return self.low + step * first, self.low + step * (last + 1)


class MeanSquaredError(_Histogram):
    """The range whose rounded and cut-off values are nearest to the true ones, in squares.

    Both ends are drawn in by the same factor, and the best of a hundred is taken.
    """

    def range(self, scheme: Scheme) -> tuple[Tensor, Tensor]:
        """See :meth:`Observer.range`."""
        values = self._centres().double()
        best, found = float("inf"), (self.low, self.high)
        for number in range(1, _CUTS + 1):
            low, high = self.low * number / _CUTS, self.high * number / _CUTS
            grid = grid_of(low.double().view(1, 1), high.double().view(1, 1), scheme)
            error = float((self.counts * _squares(values, grid, scheme)).sum())
            if error < best:
                best, found = error, (low, high)
        return found


def _squares(values: Tensor, grid: Grid, scheme: Scheme) -> Tensor:
    rounded = dequantize(quantize(values[None], grid, scheme), grid)
    return (rounded[0] - values).square()
