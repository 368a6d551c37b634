"""Numbers that move while a model trains: weights, temperatures, sparsities."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Where the fit stands when a step begins.

    Args:
        step: Optimizer steps done.
        total_steps: Optimizer steps the whole fit will take.
        epoch: Epochs done, with fraction.
    """

    step: int
    total_steps: int
    epoch: float

    @property
    def fraction(self) -> float:
        """Share of the fit that is done, in ``[0, 1]``."""
        return min(1.0, self.step / max(1, self.total_steps))


class Schedule(ABC):
    """A number as a function of training progress."""

    @abstractmethod
    def value(self, progress: Progress) -> float:
        """Return the number for this moment."""


class _Ramp(Schedule):
    """Move from ``start`` to ``end`` between two fractions of the fit."""

    def __init__(self, start: float, end: float, begin: float = 0.0, finish: float = 1.0) -> None:
        if not 0.0 <= begin < finish <= 1.0:
            raise ValueError(
                f"Expected 0 <= begin < finish <= 1 (fractions of the fit) but got begin={begin}, "
                f"finish={finish}."
            )
        self.start, self.end, self.begin, self.finish = start, end, begin, finish

    def _position(self, progress: Progress) -> float:
        return min(1.0, max(0.0, (progress.fraction - self.begin) / (self.finish - self.begin)))


class Linear(_Ramp):
    """Straight line from ``start`` to ``end``.

    Args:
        start: Value up to ``begin``.
        end: Value from ``finish`` on.
        begin: Fraction of the fit at which the change starts.
        finish: Fraction of the fit at which ``end`` is reached.
    """

    def value(self, progress: Progress) -> float:
        """Return the number for this moment."""
        return self.start + (self.end - self.start) * self._position(progress)


class Cosine(_Ramp):
    """Half a cosine wave from ``start`` to ``end``.

    Args:
        start: Value up to ``begin``.
        end: Value from ``finish`` on.
        begin: Fraction of the fit at which the change starts.
        finish: Fraction of the fit at which ``end`` is reached.
    """

    def value(self, progress: Progress) -> float:
        """Return the number for this moment."""
        return self.end + (self.start - self.end) * 0.5 * (1 + math.cos(math.pi * self._position(progress)))


class Cubic(_Ramp):
    """Fast at first, then ever slower: the schedule of gradual pruning (Zhu and Gupta, arXiv:1710.01878, equation 1).

    Early, when much is redundant, much is removed; late there is time to recover.

    Args:
        start: Value up to ``begin``.
        end: Value from ``finish`` on.
        begin: Fraction of the fit at which the change starts.
        finish: Fraction of the fit at which ``end`` is reached.
    """

    def __init__(self, start: float = 0.0, end: float = 1.0, begin: float = 0.0, finish: float = 1.0) -> None:
        super().__init__(start, end, begin, finish)

    def value(self, progress: Progress) -> float:
        """Return the number for this moment."""
        return self.end + (self.start - self.end) * (1.0 - self._position(progress)) ** 3


class Staircase(_Ramp):
    """Equal steps up from ``start`` to ``end``, the first one at ``begin``; one step is a single jump.

    Args:
        steps: Number of steps.
        start: Value up to ``begin``.
        end: Value from ``finish`` on.
        begin: Fraction of the fit at which the first step is taken.
        finish: Fraction of the fit at which the last step is taken.
    """

    def __init__(
        self, steps: int = 1, start: float = 0.0, end: float = 1.0, begin: float = 0.0, finish: float = 1.0
    ) -> None:
        super().__init__(start, end, begin, finish)
        if steps < 1:
            raise ValueError(f"Expected steps >= 1 but got {steps}.")
        self.steps = steps

    def value(self, progress: Progress) -> float:
        """Return the number for this moment."""
        if progress.fraction < self.begin:
            return self.start
        # The first step is taken at begin, the last one at finish: steps - 1 intervals between them.
        taken = 1 + math.floor(self._position(progress) * (self.steps - 1) + 1e-9)
        return self.start + (self.end - self.start) * min(taken, self.steps) / self.steps


class Switch(Schedule):
    """Jump from one value to another at the start of an epoch.

    TinyBERT's intermediate and prediction stages are two objectives with opposite switches.

    Args:
        epoch: First epoch (0-based) that uses ``after``.
        before: Value in the epochs before.
        after: Value from ``epoch`` on.
    """

    def __init__(self, epoch: int, before: float, after: float) -> None:
        if epoch < 1:
            raise ValueError(f"Expected epoch >= 1 but got {epoch}; a switch at epoch 0 never uses 'before'.")
        self.epoch, self.before, self.after = epoch, before, after

    def value(self, progress: Progress) -> float:
        """Return the number for this moment."""
        return self.after if progress.epoch >= self.epoch else self.before


def resolve(number: float | Schedule, progress: Progress | None) -> float:
    """Return a constant as it is and a schedule at this moment (at its start where there is none)."""
    if isinstance(number, Schedule):
        return number.value(progress or Progress(step=0, total_steps=1, epoch=0.0))
    return float(number)
