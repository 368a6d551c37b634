"""Models measured side by side on one device, taking turns round by round."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import psutil

from lit_compress.benchmark.environment import usable_cores
from lit_compress.benchmark.protocol import Protocol
from lit_compress.benchmark.quality import Texts
from lit_compress.benchmark.seat import Seat
from lit_compress.benchmark.series import Series

#: Called with what is being done and which part of the session is done.
Progress = Callable[[str, float], None]

# Two warm-up rounds agree when the median text takes the same time within this share.
_STABLE = 0.05
# At least two rounds are needed to agree; the budget's larger part belongs to the rounds that count.
_LEAST_WARM_UP, _WARM_UP_SHARE = 2, 0.25
# What of the available memory the models of a session may take together.
_MEMORY_SHARE = 0.8


def run_session(
    everyone: Sequence[Series],
    protocol: Protocol,
    device: str,
    texts: Texts | None = None,
    progress: Progress | None = None,
) -> None:
    """Measure models side by side on one device.

    Args:
        everyone: The models, each with its artefact; each gets a process of its own, and its figures are
            written down here. A model that fails keeps its error; the others go on.
        protocol: How to measure.
        device: ``"cpu"`` or ``"cuda"``.
        texts: Labelled texts to evaluate the models on, each in the process in which it was timed.
        progress: Told what is being done.
    """
    tell = progress or (lambda text, done: None)
    with ExitStack() as stack:
        limit = memory_limit(protocol, len(everyone))
        seats = [Seat(series, protocol, device, stack, limit) for series in everyone]
        tell(f"{device}: loading", 0.0)
        # All models load at once; nothing is timed yet.
        for seat in seats:
            seat.begin_load()
        for seat in seats:
            seat.finish_load()
        _run_rounds(seats, protocol, device, tell)
        if texts is not None:
            tell(f"{device}: quality", 0.9)
            _judge(seats, protocol, texts)


def _run_rounds(seats: Sequence[Seat], protocol: Protocol, device: str, tell: Progress) -> None:
    started = time.monotonic()
    turns = random.Random(protocol.seed)
    tell(f"{device}: warming up", 0.1)
    _warm_up(seats, protocol, turns, started)
    slowest = 0.0
    for number in range(protocol.rounds):
        begun = time.monotonic()
        # A round that would end after the budget is not begun.
        if number >= protocol.min_rounds and begun - started + slowest > protocol.max_seconds:
            break
        tell(f"{device}: round {number + 1} of {protocol.rounds}", 0.2 + 0.7 * number / protocol.rounds)
        _run_round(seats, turns, keep=True)
        for seat in seats:
            seat.note_memory()
        slowest = max(slowest, time.monotonic() - begun)


def _warm_up(seats: Sequence[Seat], protocol: Protocol, turns: random.Random, started: float) -> None:
    """Run every workload once, then some texts again and again until every model's times are stable."""
    _run_round(seats, turns, keep=False)
    seed = turns.getrandbits(31)
    for number in range(protocol.warmup):
        spent = time.monotonic() - started
        if number >= _LEAST_WARM_UP and spent > _WARM_UP_SHARE * protocol.max_seconds:
            break
        stable = [seat.warm_up(seed, _STABLE) for seat in turns.sample(seats, len(seats))]
        if all(stable):
            break


def _run_round(seats: Sequence[Seat], turns: random.Random, keep: bool) -> None:
    seed = turns.getrandbits(31)
    for name in dict.fromkeys(name for seat in seats for name in seat.workloads):
        for seat in turns.sample(seats, len(seats)):
            seat.run(name, seed, keep)


def _judge(seats: Sequence[Seat], protocol: Protocol, texts: Texts) -> None:
    """Evaluate as many models at once as there are cores: nothing is timed any more."""
    with ThreadPoolExecutor(max(1, usable_cores() // protocol.threads)) as pool:
        list(pool.map(lambda seat: seat.judge(texts), seats))


def memory_limit(protocol: Protocol, models: int) -> float:
    """Return the resident memory in MB that each of so many models may take when they run at the same time."""
    if protocol.memory_limit_mb is not None:
        return protocol.memory_limit_mb
    return _MEMORY_SHARE * psutil.virtual_memory().available / 1e6 / models
