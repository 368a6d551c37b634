"""From probes to figures of a plan: how much faster the structure has to be, and in how few bits it is stored."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from lit_compress.compress.probe import Probe, Probes
from lit_compress.compress.wish import Wish
from lit_compress.quantization.scheme import Scheme

#: Ranks that word embeddings may be factorised to before blocks are pruned further than their time asks for.
RANKS = (256, 192, 128)
#: Ranks for what is out of reach otherwise.
LOW_RANKS = (96, 64, 48, 32)
#: Numbers of a word that share a scale at 4 bits.
GROUP = 32
# What is planned for beyond the wish: what fits found was 1 to 7 % slower than the shape of the same cost that was
# tried (SST-2, cuts of 2 to 6 times with 2, 3 and 6 blocks).
MARGIN = 1.08
# A structure this much faster is not worth a stage.
_NOTHING = 1.02
# Bytes of a scale in the file of a runtime: of a row, and of a group.
_SCALE, _GROUP_SCALE = 4, 2


class OutOfReachError(ValueError):
    """Nothing that was measured fulfils the wish."""


@dataclass(frozen=True)
class Storage:
    """In how many bits a model is stored.

    Args:
        weight_bits: Bits of the projections' weights, one scale per output.
        word_bits: Bits of the word embeddings: 8 with a scale per word, 4 with one per :data:`GROUP` numbers.
        rank: Rank of the word embeddings; ``None`` leaves them whole.
    """

    weight_bits: int = 8
    word_bits: int = 8
    rank: int | None = None

    @property
    def weights(self) -> Scheme:
        """How projections are rounded."""
        return Scheme(self.weight_bits, True, "channel")

    @property
    def words(self) -> Scheme:
        """How word embeddings are rounded."""
        if self.word_bits == 8:
            return Scheme(8, True, "channel")
        return Scheme(self.word_bits, True, "group", GROUP)


@dataclass(frozen=True)
class Words:
    """The table of word embeddings.

    Args:
        count: Words.
        hidden: Numbers per word.
    """

    count: int
    hidden: int

    def bytes(self, storage: Storage) -> float:
        """Return the bytes of the table, or of its factors; the map behind a factor is a projection."""
        width = storage.rank or self.hidden
        scales = _SCALE if storage.word_bits == 8 else width / GROUP * _GROUP_SCALE
        table = self.count * (width * storage.word_bits / 8 + scales)
        if storage.rank is None:
            return table
        return table + self.hidden * (width * storage.weight_bits / 8 + _SCALE)

    def storages(self, ranks: Sequence[int]) -> list[Storage]:
        """Return the ways to store a model, from the largest, which changes least, to the smallest.

        Args:
            ranks: Ranks to try, decreasing.
        """
        bits = 4 if self.hidden % GROUP == 0 else 8
        ladder = [Storage(), *([Storage(8, 4), Storage(4, 4)] if bits == 4 else [Storage(4, 8)])]
        lower = [Storage(4, bits, rank) for rank in ranks if bits == 8 or rank % GROUP == 0]
        return [*ladder, *(one for one in lower if self.bytes(one) < self.bytes(ladder[-1]))]


@dataclass(frozen=True)
class Figures:
    """What the plan aims at.

    Args:
        structural: How many times faster the structure has to be in eager float32; 1 prunes nothing.
        storage: In how many bits it is stored.
        runtime: The runtime in which the wish is expected to be met.
        speedup: The speed-up over the original in eager float32 that is expected there.
        bytes: The bytes that are expected to be shipped.
        cut: How many times faster the model has to be in ``runtime`` than with its whole structure there; 1 prunes
            nothing.
    """

    structural: float
    storage: Storage
    runtime: str
    speedup: float
    bytes: int
    cut: float


def figures_for(wish: Wish, probes: Probes, words: Words, beside: int) -> Figures:
    """Return the gentlest figures that are expected to fulfil a wish.

    Blocks are pruned as far as the time asks for; a size is reached by fewer bits, then by factors of the word
    embeddings, then by more pruning, then by smaller factors.

    Args:
        wish: What is wanted.
        probes: What was measured.
        words: The table of word embeddings that the probes had.
        beside: Bytes that are shipped beside the model, such as those of the tokenizer.

    Returns:
        The figures in the runtime that needs the least pruning.

    Raises:
        OutOfReachError: Not even the smallest model that was tried is fast or small enough; the message says what
            can be reached.
    """
    asked = wish.speedup_for(probes.original_ms)
    target = asked * MARGIN if asked > 1 else 1.0
    limit = (math.inf if wish.size_mb is None else wish.size_mb * 1e6) - beside
    options = []
    for route in dict.fromkeys(one.runtime for one in probes.found):
        curve = sorted((one for one in probes.found if one.runtime == route), key=lambda one: one.structural)
        found = _gentlest(curve, target, limit, words)
        if found is not None:
            options.append(replace(found, bytes=found.bytes + beside))
    if not options:
        raise OutOfReachError(_out_of_reach(wish, asked, probes, words, beside))
    return min(options, key=lambda one: (one.structural, -words.bytes(one.storage), -one.speedup))


def in_storage(figures: Figures, asked: float, whole: float, stored: float) -> Figures:
    """Return figures whose cut makes up for the time that few bits and factors take, whatever is pruned.

    Args:
        figures: What is aimed at, from models with 8 bits everywhere.
        asked: The speed-up over the original that was asked for; 1 where time does not matter.
        whole: Speed-up with the whole structure at 8 bits.
        stored: The same, as the figures store it.
    """
    beside = max(0.0, 1 / stored - 1 / whole)
    time = 1 / figures.speedup + beside
    if asked > 1:
        time = min(time, 1 / (asked * MARGIN))
    cut = (1 / whole + beside) / time
    return replace(figures, speedup=1 / time, cut=cut if cut >= _NOTHING else 1.0)


def _gentlest(curve: Sequence[Probe], target: float, limit: float, words: Words) -> Figures | None:
    """Return the figures for one runtime; ``None`` where it cannot do it."""
    fast = _first(curve, lambda size: _between(curve, size, "speedup") >= target)
    if fast is None:
        return None
    for ranks in (RANKS, (*RANKS, *LOW_RANKS)):
        found = _smallest_change(curve, fast, limit, words, ranks)
        if found is not None:
            structural, storage = found
            size = int(_bytes(curve, structural, words, storage))
            speed = _between(curve, structural, "speedup")
            prunes = structural >= _NOTHING
            return Figures(
                structural if prunes else 1.0,
                storage,
                curve[0].runtime,
                speed,
                size,
                max(_NOTHING, speed / curve[0].speedup) if prunes else 1.0,
            )
    return None


def _smallest_change(
    curve: Sequence[Probe], fast: float, limit: float, words: Words, ranks: Sequence[int]
) -> tuple[float, Storage] | None:
    """Return the least pruning with which a model is small enough, and the largest storage with which it is."""
    storages = words.storages(ranks)
    structural = _first(
        curve,
        lambda size: size >= fast and any(_bytes(curve, size, words, one) <= limit for one in storages),
    )
    if structural is None:
        return None
    return structural, next(one for one in storages if _bytes(curve, structural, words, one) <= limit)


def _first(curve: Sequence[Probe], fits: Callable[[float], bool]) -> float | None:
    """Return the least speed-up of the structure that is good enough, among some that are 2 % apart."""
    low, high = curve[0].structural, curve[-1].structural
    count = max(1, math.ceil(math.log(high / low) / math.log(1.02)))
    steps = [*(low * (high / low) ** (step / count) for step in range(count)), high]
    return next((size for size in steps if fits(size)), None)


def _bytes(curve: Sequence[Probe], structural: float, words: Words, storage: Storage) -> float:
    """Return the bytes of a file, from those of the probes, which had 8 bits everywhere."""
    blocks = _between(curve, structural, "weights") * (1 - storage.weight_bits / 8)
    whole = _between(curve, structural, "bytes")
    return whole - blocks - words.bytes(Storage()) + words.bytes(storage)


def _between(curve: Sequence[Probe], structural: float, figure: str) -> float:
    """Return a figure at a speed-up of the structure, on the straight line between probes in logarithms."""
    for left, right in pairwise(curve):
        if left.structural <= structural <= right.structural:
            share = math.log(structural / left.structural) / math.log(right.structural / left.structural)
            return getattr(left, figure) ** (1 - share) * getattr(right, figure) ** share
    return getattr(curve[0] if structural < curve[0].structural else curve[-1], figure)


def _out_of_reach(wish: Wish, asked: float, probes: Probes, words: Words, beside: int) -> str:
    fastest = max(probes.found, key=lambda one: one.speedup)
    last = words.storages((*RANKS, *LOW_RANKS))[-1]
    smallest = min(_bytes([one], one.structural, words, last) + beside for one in probes.found)
    said = [f"Expected a wish that can be reached but got {wish}"]
    if asked > 1:
        said.append(
            f"that is {asked:.3g}× the original; without any head or neuron in {_blocks(fastest)} the model is "
            f"{fastest.speedup:.3g}× as fast ({fastest.low:.3g}–{fastest.high:.3g}, {fastest.runtime})"
        )
    if wish.size_mb is not None:
        said.append(f"the smallest one is {smallest / 1e6:.3g} MB")
    return f"{'; '.join(said)}. Ask for less."


def _blocks(probe: Probe) -> str:
    return "a single block" if probe.blocks == 1 else f"{probe.blocks} blocks"
