"""``lit-compress auto``: every way of running a model tried, the best one under the user's wishes kept."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lit_compress.auto.choice import choose
from lit_compress.auto.goal import Goal
from lit_compress.auto.keep import keep
from lit_compress.auto.progress import progress
from lit_compress.auto.routes import find_routes
from lit_compress.auto.search import Found, Search
from lit_compress.auto.table import print_table
from lit_compress.auto.trial import PARITY
from lit_compress.benchmark.candidates import Models, find_models
from lit_compress.benchmark.environment import usable_cores
from lit_compress.benchmark.folders import beside, local_folder
from lit_compress.benchmark.protocol import BASELINE_RUNTIME, Protocol
from lit_compress.benchmark.quality import Texts
from lit_compress.benchmark.run_config import data_file
from lit_compress.benchmark.runtimes import runtime

TASKS = ("text-classification", "text-regression")


def auto_command(
    folder: str,
    quality: float,
    task: str | None = None,
    data: str | None = None,
    minimise: str = "latency",
    max_size_mb: float | None = None,
    max_latency_ms: float | None = None,
    max_memory_mb: float | None = None,
    batch: int = 1,
    threads: int = 1,
    split: str = "validation",
    runtimes: Sequence[str] | None = None,
    out: str | None = None,
    **settings: Any,
) -> None:
    """Try every route of a model on the CPU, print the table over them and keep the best one.

    Judgements and rows are written down as they come; what ``out`` holds already, found under the same conditions,
    is not done again.

    Args:
        folder: Model folder, hub name or ``package:NAME``.
        quality: Share of the original's own quality to keep.
        task: What the model does, one of :data:`TASKS`; as the labels of the data say where ``None``.
        data: YAML file with a ``data`` section; the ``config.yaml`` of the folder's run where ``None``.
        minimise: ``"latency"``, ``"size"`` or ``"memory"``.
        max_size_mb: Most megabytes of the files that are loaded.
        max_latency_ms: Most milliseconds of the median text, or of a batch.
        max_memory_mb: Most megabytes of memory.
        batch: Texts at once.
        threads: CPU threads.
        split: Split to judge on; never the test split.
        runtimes: Routes to try; all where ``None``.
        out: Folder for judgements, rows and the export; ``<folder>-auto`` where ``None``.
        **settings: Further settings of the :class:`~lit_compress.benchmark.protocol.Protocol`.

    Raises:
        ValueError: Something that was given cannot be used, or no route qualifies.
        SystemExit: Interrupted; what was finished is in ``out``.
    """
    goal = Goal(quality, minimise, max_size_mb, max_latency_ms, max_memory_mb, batch)
    _check(split, threads)
    if task is not None:
        _check_known(task)
    place = local_folder(folder)
    # The original's own import of a model refuses what is no text classifier.
    runtime(BASELINE_RUNTIME).imports(place)
    routes, missing = find_routes(runtimes)
    models, texts = _find(folder, place, routes, data, split)
    if task is not None:
        _check_labels(task, texts)
    protocol = _protocol(models, texts, batch, threads, settings)
    target = Path(out) if out is not None else beside(folder, "-auto")
    search = Search(models, texts, goal, protocol, target)
    for reason, names in missing.items():
        print(f"Not tried: {', '.join(names)}. {reason}")
    try:
        with progress() as show:
            search.judge(show)
            search.measure(show)
    except KeyboardInterrupt:
        print(f"lit-compress auto: interrupted; {_so_far(search.found, target)}.")
        raise SystemExit(130) from None
    found = search.found
    origin = models.origins[found.original.candidate.name]
    print_table(found.trials, found.original, protocol, origin.run)
    _keep_the_best(found, goal, lambda route: keep(str(place), route, target, data, split))


def _keep_the_best(found: Found, goal: Goal, export: Callable[[str], None]) -> None:
    """Choose, and export; where the export is refused after all, the next best one."""
    while True:
        choice = choose(found.trials, found.original, goal)
        if choice.trial is None:
            raise ValueError(f"{choice.reason} Nothing was exported.")
        print(choice.reason)
        if choice.trial is found.original:
            return
        try:
            export(choice.trial.name)
            return
        except ValueError as error:
            print(f"{choice.trial.name} could not be exported: {error}")
            choice.trial.failure = PARITY, str(error)


def _check_known(task: str) -> None:
    if task not in TASKS:
        near = difflib.get_close_matches(task, TASKS, n=1)
        meant = f"; did you mean {near[0]}?" if near else "; models of other tasks cannot be measured yet."
        raise ValueError(f"Expected --task to be one of {', '.join(TASKS)} but got {task!r}{meant}")


def _check_labels(task: str, texts: Texts) -> None:
    found = TASKS[int(texts.task.is_regression)]
    if task != found:
        kind = "scores" if texts.task.is_regression else "classes"
        raise ValueError(
            f"Expected --task {found}, because the labels of the data are {kind}, but got --task {task}; correct it, "
            "or leave it out."
        )


def _check(split: str, threads: int) -> None:
    if split == "test":
        raise ValueError(
            "Expected a split that may be chosen by but got --split test; a choice made on the test rows would make "
            "their score too good: judge on validation, and test the winner afterwards."
        )
    if threads > usable_cores():
        raise ValueError(
            f"Expected at most {usable_cores()} threads, the cores this process may use, but got --threads "
            f"{threads}; more only fight for the cores."
        )


def _find(
    folder: str, place: Path, routes: Sequence[str], data: str | None, split: str
) -> tuple[Models, Texts]:
    models = find_models([folder], None, routes, str(data_file(place, data, "judge quality on")), split)
    assert models.texts is not None
    return models, models.texts


def _protocol(models: Models, texts: Texts, batch: int, threads: int, settings: dict[str, Any]) -> Protocol:
    """Return a protocol of what decides: single texts, and batches where the user has them."""
    return Protocol(
        models.lengths,
        batches=(batch,) if batch > 1 else (),
        fixed_lengths=(),
        threads=threads,
        devices=("cpu",),
        data=texts.describe(),
        **settings,
    )


def _so_far(found: Found, out: Path) -> str:
    if not found.judgements and not found.rows:
        return "nothing was finished yet"
    return f"{found.judgements} judgements and {found.rows} rows are in {out}; the same command goes on from there"
