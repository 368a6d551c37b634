"""From probes to figures of a plan: how much faster the structure has to be, and how few numbers a word takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from lit_compress.compress.probe import Probe, Probes
from lit_compress.compress.wish import Wish

#: Ranks that word embeddings may be factorised to, the largest first.
RANKS = (256, 192, 128, 96, 64, 48, 32)
# What is planned for beyond the wish: another shape of the same cost is a little slower or faster.
MARGIN = 1.05
# A structure this much faster is not worth a stage.
_NOTHING = 1.02


@dataclass(frozen=True)
class Words:
    """The table of word embeddings.

    Args:
        count: Words.
        hidden: Numbers per word.
    """

    count: int
    hidden: int

    def bytes(self, rank: int | None) -> int:
        """Return the bytes of the table at 8 bits, with one scale of 4 bytes per row and per output.

        Args:
            rank: Of its two factors; ``None`` for the table itself.
        """
        if rank is None:
            return self.count * (self.hidden + 4)
        return self.count * (rank + 4) + self.hidden * (rank + 4)


@dataclass(frozen=True)
class Figures:
    """What the plan aims at.

    Args:
        structural: How many times faster the structure has to be, by the table of latencies; 1 prunes nothing.
        rank: Rank of the word embeddings; ``None`` leaves them whole.
        runtime: The runtime in which the wish is expected to be met.
        speedup: The speed-up over the original in eager float32 that is expected there.
        bytes: The bytes that are expected to be shipped.
    """

    structural: float
    rank: int | None
    runtime: str
    speedup: float
    bytes: int


def figures_for(wish: Wish, probes: Probes, words: Words, beside: int) -> Figures:
    """Return the gentlest figures that are expected to fulfil a wish: the least pruning, then the largest rank.

    Args:
        wish: What is wanted.
        probes: What was measured.
        words: The table of word embeddings that the probes had.
        beside: Bytes that are shipped beside the model, such as those of the tokenizer.

    Returns:
        The figures in the runtime that needs the least pruning.

    Raises:
        ValueError: Not even the smallest model that was tried is fast or small enough; the message says what can be
            reached.
    """
    asked = wish.speedup_for(probes.original_ms)
    target = asked * MARGIN if asked > 1 else 1.0
    limit = math.inf if wish.size_mb is None else wish.size_mb * 1e6
    options = []
    for route in dict.fromkeys(one.runtime for one in probes.found):
        curve = sorted((one for one in probes.found if one.runtime == route), key=lambda one: one.structural)
        fast = _structural_for_speed(curve, target)
        small = _structural_for_size(curve, limit - beside, words)
        if fast is not None and small is not None:
            structural = max(fast, small)
            rank = _rank(curve, structural, limit - beside, words)
            options.append(
                Figures(
                    1.0 if structural < _NOTHING else structural,
                    rank,
                    route,
                    _between(curve, structural, "speedup"),
                    int(_bytes(curve, structural, words, rank)) + beside,
                )
            )
    if not options:
        raise ValueError(_out_of_reach(wish, asked, probes, words, beside))
    return min(options, key=lambda one: (one.structural, -(one.rank or words.hidden), -one.speedup))


def _structural_for_speed(curve: Sequence[Probe], target: float) -> float | None:
    """Return the least speed-up of the structure with which a model is fast enough; ``None`` where none is."""
    return next((size for size in _steps(curve) if _between(curve, size, "speedup") >= target), None)


def _structural_for_size(curve: Sequence[Probe], limit: float, words: Words) -> float | None:
    """Return the least one with which it is small enough at some rank."""
    ranks = _ranks(words)
    return next(
        (size for size in _steps(curve) if min(_bytes(curve, size, words, rank) for rank in ranks) <= limit),
        None,
    )


def _rank(curve: Sequence[Probe], structural: float, limit: float, words: Words) -> int | None:
    return next(rank for rank in _ranks(words) if _bytes(curve, structural, words, rank) <= limit)


def _ranks(words: Words) -> list[int | None]:
    return [None, *(rank for rank in RANKS if words.bytes(rank) < words.bytes(None))]


def _bytes(curve: Sequence[Probe], structural: float, words: Words, rank: int | None) -> float:
    return _between(curve, structural, "bytes") - words.bytes(None) + words.bytes(rank)


def _steps(curve: Sequence[Probe]) -> list[float]:
    """Return speed-ups of the structure to look at, 2 % apart."""
    low, high = curve[0].structural, curve[-1].structural
    count = max(1, math.ceil(math.log(high / low) / math.log(1.02)))
    return [low * (high / low) ** (step / count) for step in range(count)] + [high]


def _between(curve: Sequence[Probe], structural: float, figure: str) -> float:
    """Return a figure at a speed-up of the structure, on the straight line between probes in logarithms."""
    for left, right in pairwise(curve):
        if left.structural <= structural <= right.structural:
            share = math.log(structural / left.structural) / math.log(right.structural / left.structural)
            return getattr(left, figure) ** (1 - share) * getattr(right, figure) ** share
    return getattr(curve[0] if structural < curve[0].structural else curve[-1], figure)


def _out_of_reach(wish: Wish, asked: float, probes: Probes, words: Words, beside: int) -> str:
    fastest = max(probes.found, key=lambda one: one.speedup)
    smallest = min(
        min(_bytes([one], one.structural, words, rank) for rank in _ranks(words)) + beside
        for one in probes.found
    )
    said = [f"Expected a wish that can be reached but got {wish}"]
    if asked > 1:
        said.append(
            f"that is {asked:.3g}× the original; without any head or neuron in the blocks the model is "
            f"{fastest.speedup:.3g}× as fast ({fastest.low:.3g}–{fastest.high:.3g}, {fastest.runtime})"
        )
    if wish.size_mb is not None:
        said.append(f"the smallest one is {smallest / 1e6:.3g} MB")
    return f"{'; '.join(said)}. Ask for less, or begin with a model of fewer blocks."
