"""The choice among the routes that fulfil every wish, with the noise of the measurement in mind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lit_compress.auto.goal import Goal
from lit_compress.auto.trial import Trial
from lit_compress.benchmark.selection import lowest_but_for_noise

# Two qualities of the same number of correct rows are equal.
_DIGITS = 6
_LOWEST = {"latency": "the fastest", "size": "the smallest", "memory": "the one that takes least memory"}


@dataclass(frozen=True)
class Choice:
    """The outcome.

    Args:
        trial: The chosen route, ``None`` where none qualifies.
        reason: Which one and why, or what the nearest one lacks, in one paragraph.
    """

    trial: Trial | None
    reason: str


def choose(trials: Sequence[Trial], original: Trial, goal: Goal) -> Choice:
    """Choose the route with the lowest cost among those that lack nothing.

    Costs that do not differ by more than their noise count as equal; among equals the better quality wins, then the
    smaller file.

    Args:
        trials: All routes, measured as far as they came.
        original: Eager float32, one of them.
        goal: What is wanted.

    Returns:
        The choice.
    """
    good = [
        trial for trial in trials if trial.is_alive and trial.row is not None and trial.quality is not None
    ]
    if not good:
        return Choice(None, _nearest(trials, goal))
    rows = [trial.row for trial in good if trial.row is not None]
    equal = [good[number] for number in lowest_but_for_noise(goal.ranges(rows))]
    best = max(equal, key=lambda trial: (round(trial.kept(original), _DIGITS), -(trial.bytes or 0)))
    words = [
        f"{_name(best, original)} is {_LOWEST[goal.minimise]} of {len(good)} of {len(trials)} routes that fulfil "
        f"{goal}: {_figures(best, original, goal)}."
    ]
    if len(equal) > 1:
        others = ", ".join(trial.name for trial in equal if trial is not best)
        words.append(
            f"No better or worse in {goal.minimise} but for noise: {others}; so {_decided(equal, original)}."
        )
    if best is original and len(trials) > 1:
        words.append("Nothing beats the original; there is nothing to export.")
    return Choice(best, " ".join([*words, *_doubt(best, goal)]))


def _decided(equal: Sequence[Trial], original: Trial) -> str:
    if len({round(trial.kept(original), _DIGITS) for trial in equal}) > 1:
        return "quality decided"
    return (
        "the smaller file decided" if len({trial.bytes for trial in equal}) > 1 else "the first one is taken"
    )


def _name(trial: Trial, original: Trial) -> str:
    return f"The original, {trial.name}," if trial is original else trial.name


def _figures(trial: Trial, original: Trial, goal: Goal) -> str:
    assert trial.row is not None and trial.quality is not None and trial.bytes is not None
    texts = "the median text" if goal.batch == 1 else f"{goal.batch} texts at once"
    words = [f"{goal.latency_ms(trial.row):.3g} ms for {texts}"]
    ratio = goal.latency_ratio(trial.row)
    if ratio is not None and trial is not original:
        middle, low, high = ratio
        words[0] += f" ({1 / middle:.2f} times as fast as the original, {1 / high:.2f}–{1 / low:.2f})"
    words.append(f"{trial.bytes / 1e6:.1f} MB")
    words.append(f"{trial.row['cpu']['rss_mb']:.0f} MB of memory")
    kept = "" if trial is original else f", {trial.kept(original):.4f} of the original's"
    words.append(f"{trial.quality['metric']} {trial.quality['value']:.4f}{kept}")
    return ", ".join(words)


def _doubt(trial: Trial, goal: Goal) -> list[str]:
    """Say where the noise reaches over a limit that the figure itself stays within."""
    assert trial.row is not None
    low, high = goal.latency_spread(trial.row)
    if goal.max_latency_ms is None or high <= goal.max_latency_ms:
        return []
    return [
        f"Over the rounds its latency was between {low:.3g} and {high:.3g} ms, so it may exceed --max-latency-ms "
        f"{goal.max_latency_ms:g} at times."
    ]


def _nearest(trials: Sequence[Trial], goal: Goal) -> str:
    """Name the route whose worst lack is the smallest, and everything that it lacks."""
    lacking = [trial for trial in trials if trial.failure is None and trial.shortfalls]
    told = f"none of {len(trials)} routes fulfils {goal}"
    if not lacking:
        return f"{told}, and none could be judged and measured to the end."
    nearest = min(lacking, key=lambda trial: max(shortfall.share for shortfall in trial.shortfalls))
    lacks = " and ".join(shortfall.text for shortfall in nearest.shortfalls)
    return f"{told}. The nearest is {nearest.name}: it {lacks}{_unknown(nearest, goal)}."


def _unknown(trial: Trial, goal: Goal) -> str:
    """Say what nobody looked at any more when a route was dropped."""
    if trial.quality is None:
        return "; its quality was not judged"
    limited = goal.max_latency_ms is not None or goal.max_memory_mb is not None
    return "; its time and memory were not measured" if limited and trial.row is None else ""
