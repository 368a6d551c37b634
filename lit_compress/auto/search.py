"""The search: judge every route, drop those that cannot win, measure the rest side by side with the original."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_compress.auto.goal import Goal
from lit_compress.auto.judge import judge, judge_original
from lit_compress.auto.progress import Progress
from lit_compress.auto.routes import depends_on
from lit_compress.auto.trial import CRASHED, FILE_NAME, Trial, read_records
from lit_compress.benchmark import results
from lit_compress.benchmark.candidates import Models
from lit_compress.benchmark.environment import describe_environment, same_environment
from lit_compress.benchmark.measure import measure
from lit_compress.benchmark.plan import sessions_of
from lit_compress.benchmark.protocol import BASELINE_RUNTIME, Protocol
from lit_compress.benchmark.quality import Texts
from lit_compress.benchmark.results import add_quality_ratios, append_rows, read_results, to_row
from lit_compress.benchmark.selection import Row
from lit_compress.report.scale import put_on_one_scale


@dataclass
class Found:
    """What a search has come to, also while it is going on.

    Args:
        original: Eager float32.
        trials: All routes, the original first.
        judgements: How many were added to the file of judgements.
        rows: How many were added to the results.
    """

    original: Trial
    trials: list[Trial]
    judgements: int = 0
    rows: int = 0


class Search:
    """One search. What it finds is written down at once; what the folder holds already is not done again.

    Args:
        models: One model in every route.
        texts: What quality is judged on.
        goal: What is wanted.
        protocol: How to measure.
        out: Folder of the judgements and the results.

    Raises:
        ValueError: The results file of the folder is damaged.
    """

    def __init__(self, models: Models, texts: Texts, goal: Goal, protocol: Protocol, out: Path) -> None:
        self._models, self._texts, self._goal, self._protocol = models, texts, goal, protocol
        self._judgements, self._results = out / FILE_NAME, out / results.FILE_NAME
        self._earlier = read_results(self._results, allow_cut=True) if self._results.is_file() else []
        self._rows: list[Row] = []
        known = depends_on(models.candidates, texts, protocol.threads)
        trials = [Trial(candidate, known[candidate.runtime]) for candidate in models.candidates]
        original = next(trial for trial in trials if trial.name == BASELINE_RUNTIME)
        self.found = Found(original, [original, *(trial for trial in trials if trial is not original)])

    def judge(self, show: Progress) -> None:
        """Build and evaluate every route, and drop those that are too large or not good enough.

        Args:
            show: Told what is done.

        Raises:
            ValueError: The original cannot be judged.
        """
        records = read_records(self._judgements)
        show.expect(len(self.found.trials))
        for number, trial in enumerate(self.found.trials):
            trial.recall(records)
            known = trial.is_judged

            def tell(what: str, number: int = number, trial: Trial = trial) -> None:
                show.tell(f"{number + 1} of {len(self.found.trials)}, {trial.name}: {what}", number)

            if trial is self.found.original:
                judge_original(trial, self._protocol, self._texts, tell)
            elif not known:
                judge(trial, self._goal, self._protocol, self._texts, tell)
            if trial.is_judged and not known:
                append_rows(self._judgements, [trial.to_record()])
                self.found.judgements += 1
            self._drop(trial)
            show.say(f"{trial.name}: {self._outcome(trial)}{', judged before' if known else ''}")

    def measure(self, show: Progress) -> None:
        """Measure the routes that are left beside the original, session by session.

        Args:
            show: Told what is done.
        """
        environment = describe_environment()
        for trial in self.found.trials:
            mine = [row for row in self._earlier if self._is_current(row, trial, environment)]
            self._rows += mine
            trial.row = mine[-1] if mine else None
            if trial.quality is not None:
                # The engine does not evaluate what is known.
                key = (trial.candidate.folder, trial.name, "cpu", self._protocol.threads)
                self._texts.known[key] = trial.quality
        original, *others = self.found.trials
        pending = [trial for trial in others if trial.is_alive and trial.row is None]
        sessions = sessions_of([trial.candidate for trial in pending])
        if not sessions and original.is_alive and original.row is None:
            sessions = [[]]
        show.expect(len(sessions))
        for number, session in enumerate(sessions):
            names = ", ".join(candidate.runtime for candidate in session)
            show.say(f"measuring {names or 'nothing'} beside {original.name} …")

            def tell(text: str, done: float, number: int = number, names: str = names) -> None:
                show.tell(f"{names or original.name}: {text}", number + done)

            measured = measure(session, original.candidate, self._protocol, self._texts, tell)
            self._write_down([to_row(one, *self._origin()) for one in measured])
        self._put_together()

    def _drop(self, trial: Trial) -> None:
        """Write down what a route lacks before it is measured."""
        if trial.bytes is not None and (large := self._goal.size_shortfall(trial.bytes)):
            trial.shortfalls.append(large)
        if trial.quality is not None:
            low = self._goal.quality_shortfall(trial.kept(self.found.original), trial.quality["metric"])
            trial.shortfalls += [low] if low else []

    def _outcome(self, trial: Trial) -> str:
        if trial.failure is not None:
            return ": ".join(trial.failure)
        words = [f"{(trial.bytes or 0) / 1e6:.1f} MB"]
        if trial.quality is not None:
            kept = trial.kept(self.found.original)
            metric, value = trial.quality["metric"], trial.quality["value"]
            words.append(f"{metric} {value:.4f}, {kept:.4f} of the original's")
        if trial.shortfalls:
            words.append(f"dropped: it {' and '.join(s.text for s in trial.shortfalls)}")
        return ", ".join(words)

    def _is_current(self, row: Row, trial: Trial, environment: dict[str, Any]) -> bool:
        """Whether a row of an earlier search is what measuring would come to now."""
        return (
            row.get("depends_on") == trial.depends_on
            and not row.get("error")
            and row["quality"] is not None
            and row["protocol"] == self._protocol.to_dict()
            and same_environment(row["environment"], environment)
        )

    def _origin(self) -> tuple[str, str | None, int | None]:
        origin = self._models.origins[self.found.original.candidate.name]
        return origin.run, origin.recipe, origin.seed

    def _write_down(self, rows: list[Row]) -> None:
        by_name = {trial.name: trial for trial in self.found.trials}
        for row in rows:
            row["depends_on"] = by_name[row["runtime"]].depends_on
        add_quality_ratios(rows)
        append_rows(self._results, rows)
        self.found.rows += len(rows)
        self._rows += rows

    def _put_together(self) -> None:
        """Give every route its row, times of several sessions on one scale, and write down what it lacks."""
        good = [row for row in self._rows if not row.get("error")]
        done = {row["runtime"] for row in good}
        failed = [row for row in self._rows if row["runtime"] not in done]
        rows = {row["runtime"]: row for row in put_on_one_scale(_by_time([*good, *failed]))}
        for trial in self.found.trials:
            trial.row = rows.get(trial.name)
            if trial.row is None:
                continue
            if trial.row.get("error") or trial.row["cpu"] is None:
                trial.failure = CRASHED, str(trial.row.get("error"))
            else:
                trial.shortfalls += self._goal.measured_shortfalls(trial.row)


def _by_time(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: row["time"])
