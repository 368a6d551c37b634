"""A short search over the few settings of a fit that matter; Optuna suggests, this file remembers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lit_compress.benchmark.results import append_rows
from lit_compress.files import read_json_lines

FILE_NAME = "trials.jsonl"
# Trials at random before the others are suggested by what was found.
_RANDOM = 3


@dataclass(frozen=True)
class Knobs:
    """Settings of one trial.

    Args:
        lr: Learning rate.
        temperature: Of the soft targets.
        freeze_at: Fraction of the fit at which the structure is decided.
    """

    lr: float
    temperature: float
    freeze_at: float

    def words(self, is_regression: bool, prunes: bool) -> list[str]:
        """Return the words for a fit.

        Args:
            is_regression: Whether there are no soft targets.
            prunes: Whether the fit prunes.
        """
        words = [f"--model.optimizer.lr={self.lr:.6g}"]
        if not is_regression:
            words.append(f"--model.objectives.soft.temperature={self.temperature:.4g}")
        if prunes:
            words.append(f"--trainer.callbacks.freeze_at={self.freeze_at:.4g}")
        return words


@dataclass(frozen=True)
class Trial:
    """A finished trial.

    Args:
        number: Its number; 0 is the recipe as it is.
        knobs: Its settings; ``None`` for those of the recipe.
        value: What is maximised; ``None`` where the fit failed or kept no quality that could be told.
        outcome: What came of it, ready for JSON; what went wrong as its ``error``.
    """

    number: int
    knobs: Knobs | None
    value: float | None
    outcome: dict[str, Any]


def value_of(outcome: dict[str, Any]) -> float | None:
    """Return what is maximised: the quality kept, less what the other wishes are missed by.

    Args:
        outcome: As :meth:`~lit_compress.compress.outcome.Outcome.to_dict` returns it.

    Returns:
        ``None`` where no quality could be told.
    """
    if outcome.get("quality_kept") is None:
        return None
    missed = [one["share"] for one in outcome["achieved"] if one["what"] != "quality"]
    return float(outcome["quality_kept"]) - max([0.0, *missed])


def search(
    out: Path, count: int, seed: int, run: Callable[[int, Knobs | None], dict[str, Any]]
) -> list[Trial]:
    """Run trials until there are so many; finished ones are not run again, and what fails is one of them.

    The settings of a trial depend on its number, the seed and the trials before it alone, so that a search that was
    stopped goes on as if it had not been.

    Args:
        out: Folder that remembers the trials.
        count: Trials in all.
        seed: Of the suggestions.
        run: Runs the fits of a trial and returns its outcome.

    Returns:
        The trials, the best one first.

    Raises:
        ValueError: No trial has a value; the first one, the recipe as it is, failed.
    """
    found = _finished(out)
    for number in range(len(found), count):
        knobs = _suggest(found, number, seed) if number else None
        told = "the settings of the recipe" if knobs is None else str(knobs)
        print(f"Trial {number + 1} of {count}: {told}", flush=True)
        outcome = run(number, None) if knobs is None else _tried(run, number, knobs)
        trial = Trial(number, knobs, value_of(outcome), outcome)
        append_rows(out / FILE_NAME, [asdict(trial)])
        found.append(trial)
    good = [(trial.value, trial) for trial in found[:count] if trial.value is not None]
    if not good:
        raise ValueError(
            f"Expected a trial that keeps a share of the original's quality but {out / FILE_NAME} has none; see what "
            "its outcomes tell, and give a model and data on which the original's quality is above zero."
        )
    return [trial for _, trial in sorted(good, key=lambda pair: -pair[0])]


def _tried(run: Callable[[int, Knobs | None], dict[str, Any]], number: int, knobs: Knobs) -> dict[str, Any]:
    """Run a trial; settings with which a fit fails are worse than all others, and no reason to stop."""
    try:
        return run(number, knobs)
    except ValueError as error:
        print(f"The trial failed and counts as one: {error}", flush=True)
        return {"error": str(error)}


def _finished(out: Path) -> list[Trial]:
    rows = read_json_lines(out / FILE_NAME)
    return [
        Trial(
            row["number"],
            None if row["knobs"] is None else Knobs(**row["knobs"]),
            row["value"],
            row["outcome"],
        )
        for row in rows
    ]


def _suggest(found: list[Trial], number: int, seed: int) -> Knobs:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    ranges: dict[str, Any] = {
        "lr": optuna.distributions.FloatDistribution(3e-5, 5e-4, log=True),
        "temperature": optuna.distributions.FloatDistribution(1.0, 8.0, log=True),
        "freeze_at": optuna.distributions.FloatDistribution(0.25, 0.5),
    }
    sampler = optuna.samplers.TPESampler(seed=seed + number, n_startup_trials=_RANDOM, multivariate=True)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for trial in found:
        # The recipe's own settings are no point of these ranges.
        if trial.knobs is not None:
            state = optuna.trial.TrialState.FAIL if trial.value is None else optuna.trial.TrialState.COMPLETE
            done = optuna.trial.create_trial(
                params=asdict(trial.knobs), distributions=ranges, value=trial.value, state=state
            )
            study.add_trial(done)
    return Knobs(**study.ask(ranges).params)
