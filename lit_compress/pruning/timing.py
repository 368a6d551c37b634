"""Timing forward passes in turns."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

# Rounds that count: no more than this many, and no further one begins when the seconds are spent.
_ROUNDS, _LEAST_ROUNDS, _SECONDS = 30, 5, 40.0
# A short pass is run a few times in a row and only the later ones count: as in use, its weights are in the cache then.
_SHORT_PASS, _PASSES = 0.05, 3


def time_in_turns(
    calls: Mapping[Any, Callable[[], None]],
    clock: Callable[[Callable[[], None]], float],
    title: str,
    seconds: float = _SECONDS,
) -> dict[Any, list[float]]:
    """Time some calls round by round, each round in another random order, so that drift hits all alike.

    Args:
        calls: What to time.
        clock: Returns the seconds of a call.
        title: What the progress bar says.
        seconds: No further round is begun when they are spent.

    Returns:
        The seconds of each call, one per round; two rounds to warm up do not count.
    """
    times: dict[Any, list[float]] = {key: [] for key in calls}
    passes: dict[Any, int] = {}
    turns, begun = random.Random(0), time.monotonic()
    columns = (TextColumn(title), BarColumn(), TimeElapsedColumn())
    # Without a thread of its own, which would take processor time from the figures.
    with Progress(*columns, transient=True, auto_refresh=False) as bar:
        task = bar.add_task("", total=1.0)
        for number in range(-2, _ROUNDS):
            spent = time.monotonic() - begun
            if number >= _LEAST_ROUNDS and spent > seconds:
                break
            bar.update(task, completed=max((number + 2) / (_ROUNDS + 2), min(0.99, spent / seconds)))
            bar.refresh()
            for key in turns.sample(list(calls), len(calls)):
                took = [clock(calls[key]) for _ in range(passes.get(key, 1))]
                passes[key] = 1 + _PASSES if took[-1] < _SHORT_PASS else 1
                if number >= 0:
                    times[key].append(sum(took[-_PASSES:]) / len(took[-_PASSES:]))
    return times


@contextmanager
def quiet(threads: int) -> Iterator[None]:
    """Compute with some threads, and without a collection of garbage in the middle of a figure."""
    before, collecting = torch.get_num_threads(), gc.isenabled()
    torch.set_num_threads(threads)
    gc.disable()
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if collecting:
            gc.enable()
