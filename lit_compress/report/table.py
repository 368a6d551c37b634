"""The results table for the terminal, Markdown and CSV."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lit_compress.report.columns import FIGURES, Column, all_columns, columns_of, look_up, name_of
from lit_compress.report.groups import Group, Row

EXPLANATION = (
    "CPU ms is the median text at batch 1; ratios are to the baseline, measured in turns with it, with the "
    "95 % interval; faster and slower are said only where the interval says so; RAM is the process's peak "
    "above what its imports take."
)
NO_DIFFERENCE = "no difference"
# Widths in the terminal: headings fold, numbers never do, names fold last of all.
_HEADING_WIDTH = 5
_TEXT_WIDTH = 12
_RUNTIME_WIDTH = 7
# What a CSV file has besides the columns of the table: heading → path in the row.
_FACTS = {
    **{name: name for name in ("params", "nonzero_params", "role", "is_baseline", "recipe", "run", "seed")},
    "checkpoint": "checkpoint",
    "macs": "macs.count",
    "macs_length": "macs.length",
    "cpu_p90_ms": "cpu.latency_ms.p90",
    "cpu_p99_ms": "cpu.latency_ms.p99",
    "gpu_p90_ms": "gpu.latency_ms.p90",
    "gpu_p99_ms": "gpu.latency_ms.p99",
    "energy_j_per_text": "cpu.energy_j_per_text",
    "metric": "quality.metric",
    "split": "quality.split",
    "error": "error",
}


def notes(rows: Sequence[Row]) -> list[str]:
    """Return one line for each model that could not be measured, and for each warning."""
    failed = [f"{name_of(row)} failed: {row['error']}" for row in rows if row.get("error")]
    return failed + [f"{name_of(row)}: {text}" for row in rows for text in row.get("warnings") or []]


def print_group(group: Group, console: Console) -> None:
    """Print the table of a group, as several tables one below the other where the terminal is narrow.

    Columns without any figure are left out, and what measuring cost is said below.
    """
    shown = [
        column
        for column in columns_of(group.rows)
        if column.key != "seconds" and any(column.value(row) is not None for row in group.rows)
    ]
    for part in _parts(group, shown, console):
        console.print(_rich_table(group, part))
    if any(NO_DIFFERENCE in column.parts(row) for column in shown for row in group.rows):
        console.print("≈ no difference: the 95 % interval holds 1.", style="dim")
    for note in notes(group.rows):
        console.print(note, style="red", markup=False)
    cost = [row["seconds"] for row in group.rows if row.get("seconds") is not None]
    spent = f". Measuring took {sum(cost):.0f} s." if cost else ""
    console.print(group.title + spent, style="dim", markup=False)


def _parts(group: Group, columns: list[Column], console: Console) -> list[list[Column]]:
    """Split columns so that each part fits, best between figures and ratios; names lead every part."""
    names = [column for column in columns if column.key in ("model", "runtime", "threads")]
    figures = [column for column in columns if column.key in FIGURES]
    ratios = [column for column in columns if column not in (*names, *figures)]
    if _fits(group, columns, console):
        return [columns]
    parts = []
    for rest in (figures, ratios):
        part = list(names)
        for column in rest:
            if not _fits(group, [*part, column], console) and part != names:
                parts.append(part)
                part = list(names)
            part.append(column)
        parts += [part] if part != names else []
    return [sorted(part, key=columns.index) for part in parts]


def _fits(group: Group, columns: list[Column], console: Console) -> bool:
    unlimited = console.options.update(width=10_000)
    return console.measure(_rich_table(group, columns), options=unlimited).minimum <= console.width


def _rich_table(group: Group, columns: Sequence[Column]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    cells = [[_narrow(column, row) for column in columns] for row in group.rows]
    for index, column in enumerate(columns):
        heading = textwrap.fill(column.title, _HEADING_WIDTH, break_long_words=False)
        lines = [line for cell in [heading, *(row[index] for row in cells)] for line in cell.splitlines()]
        width = max(map(len, lines))
        if column.is_text:
            width = min(width, _RUNTIME_WIDTH if column.key == "runtime" else _TEXT_WIDTH)
        justify: Any = "left" if column.is_text else "right"
        table.add_column(heading, justify=justify, overflow="fold", min_width=width)
    for row, texts in zip(group.rows, cells, strict=True):
        table.add_row(*map(Text, texts), style="bold" if row["is_baseline"] else None)
    return table


def _narrow(column: Column, row: Row) -> str:
    """Put what is said about a figure below it, and the verdict into a sign, which keeps the table narrow."""
    figure, *rest = column.parts(row)
    if column.key == "runtime":
        return figure.replace("-", "\n", 1)
    same = "≈ " if NO_DIFFERENCE in rest else ""
    return "\n".join([same + figure, *(rest[:1])])


def markdown(groups: Sequence[Group]) -> str:
    """Return the tables as Markdown, each followed by what its rows have in common."""
    parts = []
    for group in groups:
        columns = columns_of(group.rows)
        lines = [[column.title for column in columns]]
        lines.append(["---" if column.is_text else "---:" for column in columns])
        lines += [[_escaped(column.cell(row)) for column in columns] for row in group.rows]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        remarks = "\n".join(f"- {note}" for note in notes(group.rows))
        parts.append("\n\n".join(filter(None, [table, remarks, f"{group.title}. {EXPLANATION}"])))
    return "\n\n".join(parts) + "\n"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def comma_separated(groups: Sequence[Group]) -> str:
    """Return all rows as CSV with raw numbers; rows may be compared where their ``group`` is the same."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    columns = all_columns([row for group in groups for row in group.rows])
    intervals = [column for column in columns if column.key.endswith("speedup")]
    header = [column.key for column in columns]
    ends = [f"{column.key}_{end}" for column in intervals for end in ("low", "high", "verdict")]
    writer.writerow([*header, *ends, *_FACTS, "group"])
    for group in groups:
        for row in group.rows:
            cells = [column.value(row) for column in columns]
            for column in intervals:
                found = column.interval(row) if column.interval else None
                cells += found or (None, None, None)
            cells += [look_up(row, path) for path in _FACTS.values()]
            writer.writerow([*cells, group.title])
    return stream.getvalue()
