"""How far figures of single rounds can be trusted: spreads, and ratios with an interval and a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

#: Two processes of the same model differ for good by a per cent or two, since their memory is laid out
#: differently. No number of rounds shows that, so every interval is widened by it on both sides.
PROCESS_NOISE = 0.03
_RESAMPLES = 2000

FASTER, SLOWER, NO_DIFFERENCE = "faster", "slower", "no difference"


@dataclass(frozen=True)
class Spread:
    """Median of the rounds and the range that holds the middle 80 % of them.

    Args:
        median: Median.
        p10: 10th percentile.
        p90: 90th percentile.
    """

    median: float
    p10: float
    p90: float

    @classmethod
    def of(cls, rounds: Sequence[float] | npt.NDArray[np.float64]) -> Spread:
        """Return the spread of one figure per round."""
        p10, median, p90 = np.percentile(np.asarray(rounds, dtype=float), [10, 50, 90])
        return cls(float(median), float(p10), float(p90))


@dataclass(frozen=True)
class Ratio:
    """One model over another, with its 95 % interval.

    Args:
        median: Median of the rounds' ratios.
        low: Lower end of the interval.
        high: Upper end of the interval.
        verdict: ``"faster"`` or ``"slower"`` where the interval lies on one side of 1, else
            ``"no difference"``.
    """

    median: float
    low: float
    high: float
    verdict: str

    @classmethod
    def of(cls, rounds: Sequence[float] | npt.NDArray[np.float64], less_is_faster: bool, seed: int) -> Ratio:
        """Return the ratio that one ratio per round amounts to.

        The interval is the bootstrap's: the median of rounds drawn with replacement, its 2.5th and 97.5th
        percentile over the draws. It is then widened by :data:`PROCESS_NOISE`.

        Args:
            rounds: One ratio per round.
            less_is_faster: Whether a ratio below 1 means faster, as of times, or slower, as of throughputs.
            seed: Seed of the draws.
        """
        logs = np.log(np.asarray(rounds, dtype=float))
        draws = np.random.default_rng(seed).integers(0, len(logs), (_RESAMPLES, len(logs)))
        low, high = np.percentile(np.median(logs[draws], axis=1), [2.5, 97.5])
        low, high = math.exp(low) / (1 + PROCESS_NOISE), math.exp(high) * (1 + PROCESS_NOISE)
        verdict = NO_DIFFERENCE
        if high < 1:
            verdict = FASTER if less_is_faster else SLOWER
        elif low > 1:
            verdict = SLOWER if less_is_faster else FASTER
        return cls(math.exp(float(np.median(logs))), low, high, verdict)
