"""The report over many runs: the page, the table in the terminal, Markdown and CSV, and the plots."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console

from lit_compress.benchmark.results import FILE_NAME, read_results
from lit_compress.report.curves import read_curves
from lit_compress.report.groups import Group, Row, group_rows
from lit_compress.report.map_plots import draw_maps
from lit_compress.report.page import page
from lit_compress.report.plots import draw_plots, require_matplotlib
from lit_compress.report.seeds import add_setting
from lit_compress.report.table import comma_separated, markdown, print_group


def report(
    paths: Iterable[str | Path], out: str | Path | None = None, console: Console | None = None
) -> list[Path]:
    """Print the results of runs as a table and write them as a page and as files.

    Args:
        paths: Run folders, folders above them, or results files; every ``results.jsonl`` below is read, and
            the training curves of every run.
        out: Folder for ``index.html``, ``table.md``, ``table.csv`` and the plots; only printed where ``None``.
        console: Where to print; the terminal where ``None``.

    Returns:
        The files that were written.

    Raises:
        ValueError: No results were found, or a results file is damaged.
        ImportError: Matplotlib, which the plots need, is not installed.
    """
    if out is not None:
        require_matplotlib()
    paths = list(paths)
    groups = group_rows(distinct_names(collect(paths)))
    print_groups(groups, console)
    if out is None:
        return []
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "index.html": page(groups, read_curves(paths)),
        "table.md": markdown(groups),
        "table.csv": comma_separated(groups),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    (console or Console()).print(f"{folder / 'index.html'} shows this, with plots", soft_wrap=True)
    return [*(folder / name for name in texts), *draw_plots(groups, folder), *draw_maps(groups, folder)]


def collect(paths: Iterable[str | Path]) -> list[Row]:
    """Return the rows of all results files at or below some paths.

    Args:
        paths: Run folders, folders above them, or results files.

    Returns:
        The rows; a file that is reached by two paths is read once.

    Raises:
        ValueError: A path is missing or holds no results.
    """
    files: dict[Path, None] = {}
    for path in map(Path, paths):
        found = [path] if path.is_file() else sorted(path.rglob(FILE_NAME))
        if not found:
            raise ValueError(
                f"Expected {FILE_NAME} in or below {path} but there is none; name the folder of a run that "
                "ended with its benchmark (benchmark.at_end: true), or run lit-compress benchmark with --out."
            )
        files.update(dict.fromkeys(file.resolve() for file in found))
    rows = []
    for file in files:
        for row in read_results(file):
            add_setting(row, file)
            rows.append({**row, "run": _as_seen_from_here(row["run"])})
    return rows


def _as_seen_from_here(run: str) -> str:
    """Return one spelling of a run's folder, so that rows of the same run are known as such."""
    relative = os.path.relpath(run)
    return run if relative.startswith(os.pardir) else relative


def distinct_names(rows: list[Row]) -> list[Row]:
    """Put the parent folder of the run before model names that several runs share."""
    runs: dict[str, set[str]] = {}
    for row in rows:
        if row["role"] != "teacher":
            runs.setdefault(row["model"], set()).add(row["run"])
    return [
        {**row, "model": f"{Path(row['run']).parent.name}/{row['model']}"}
        if row["role"] != "teacher" and len(runs[row["model"]]) > 1
        else row
        for row in rows
    ]


def print_groups(groups: list[Group], console: Console | None = None) -> None:
    """Print one table per group."""
    console = console or Console()
    for group in groups:
        print_group(group, console)
    if len(groups) > 1:
        console.print(
            f"{len(groups)} tables, because their rows come from different machines, libraries, protocols or "
            "data: do not compare figures across tables."
        )
