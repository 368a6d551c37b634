"""``lit-compress benchmark``: measure model folders beside a baseline, session by session."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from lit_compress.benchmark.candidates import Models, find_models
from lit_compress.benchmark.environment import describe_environment, gpu_name
from lit_compress.benchmark.measure import measure, prepared_ahead
from lit_compress.benchmark.plan import is_measured, sessions_of
from lit_compress.benchmark.protocol import BASELINE_RUNTIME, Candidate, Protocol
from lit_compress.benchmark.results import add_quality_ratios, append_rows, read_results, to_row
from lit_compress.benchmark.runtimes import runtime
from lit_compress.report.command import print_groups
from lit_compress.report.groups import group_rows


def benchmark_folders(
    folders: Sequence[str],
    against: str | None = None,
    runtimes: Sequence[str] = (BASELINE_RUNTIME,),
    data: str | None = None,
    split: str = "validation",
    threads: Sequence[int] = (1,),
    out: str | None = None,
    **settings: Any,
) -> None:
    """Measure model folders in runtimes, beside a baseline, and print the table.

    Rows are appended after every session. What ``out`` already holds, measured alike, is not measured again:
    an interrupted benchmark goes on where it was.

    Args:
        folders: Model folders, hub names or ``package:NAME``.
        against: The same for the baseline, usually the teacher.
        runtimes: Runtimes to measure every model in, the baseline's model too; the baseline itself is always
            measured in eager float32.
        data: YAML file with a ``data`` section; the ``config.yaml`` of the folders' runs where ``None``.
        split: Split whose text lengths are used and on which quality is evaluated.
        threads: CPU thread counts; each gets sessions of its own.
        out: Results file to append the rows to; only printed where ``None``.
        **settings: Further settings of the :class:`~lit_compress.benchmark.protocol.Protocol`.

    Raises:
        ValueError: A folder, the data, a runtime or the results file cannot be used.
        ImportError: A runtime's library is missing.
        SystemExit: Interrupted; what was finished is in ``out``.
    """
    for name in runtimes:
        runtime(name).check()
    earlier = read_results(out) if out is not None and Path(out).is_file() else []
    rows: list[dict[str, Any]] = []
    try:
        # Reading the data and preparing models take seconds each.
        with prepared_ahead(_eager(folders, against, runtimes)):
            models = find_models(folders, against, runtimes, data, split)
        described = models.texts.describe() if models.texts else None
        protocol = Protocol(models.lengths, data=described, **settings)
        plan = _plan(models, [replace(protocol, threads=count) for count in threads], earlier)
        for session in _measured(plan, models):
            if out is not None:
                append_rows(out, session)
            rows += session
    except KeyboardInterrupt:
        kept = (
            f"{len(rows)} rows are in {out}; the same command goes on from there"
            if out
            else "nothing is kept"
        )
        print(f"lit-compress benchmark: interrupted; {kept}.")
        raise SystemExit(130) from None
    print_groups(group_rows([*_relevant(earlier, models), *rows]))


def _eager(folders: Sequence[str], against: str | None, runtimes: Sequence[str]) -> list[str]:
    """Return the models that are measured in eager float32."""
    return [
        *(folders if BASELINE_RUNTIME in runtimes else ()),
        *([against] if against is not None else ()),
    ]


def _plan(
    models: Models, protocols: Sequence[Protocol], earlier: Sequence[dict[str, Any]]
) -> list[tuple[Protocol, list[Candidate]]]:
    """Return the sessions that are still to be measured."""
    environment = {**describe_environment(), "gpu": gpu_name()}
    judged = models.texts is not None
    plan: list[tuple[Protocol, list[Candidate]]] = []
    for protocol in protocols:
        pending = [
            candidate
            for candidate in models.candidates
            if not is_measured(candidate, earlier, protocol, environment, judged)
        ]
        plan += [(protocol, session) for session in sessions_of(pending)]
    return plan


def _measured(
    plan: Sequence[tuple[Protocol, list[Candidate]]], models: Models
) -> Iterator[list[dict[str, Any]]]:
    """Measure session after session and yield the rows of each."""
    with _progress(len(plan)) as tell:
        for number, (protocol, candidates) in enumerate(plan):
            names = ", ".join(candidate.label for candidate in candidates)

            def part(text: str, done: float, number: int = number, names: str = names) -> None:
                tell(f"{names}: {text}", number + done)

            found = measure(candidates, models.baseline, protocol, models.texts, part)
            rows = []
            for measurement in found:
                origin = models.origins[measurement.candidate.name]
                rows.append(to_row(measurement, origin.run, origin.recipe, origin.seed))
            add_quality_ratios(rows)
            yield rows


@contextmanager
def _progress(sessions: int) -> Iterator[Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("starting", total=max(sessions, 1))
        yield lambda text, done: bar.update(task, description=text, completed=done)


def _relevant(earlier: Sequence[dict[str, Any]], models: Models) -> list[dict[str, Any]]:
    """Return those earlier rows that belong to the models of this command."""
    return [row for row in earlier if row["model"] in models.origins]
