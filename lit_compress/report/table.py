"""The results table for the terminal, Markdown and CSV."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lit_compress.report.columns import FIXED, Column, all_columns, columns_of
from lit_compress.report.groups import Group, Row

EXPLANATION = (
    "CPU ms is the median text at batch 1; ratios are to the teacher, measured in turns with it, "
    "with the range of the middle 80 % of the rounds; RAM is the process's peak above what its imports take."
)
# Widths in the terminal: headings fold, numbers never do, names fold last of all.
_HEADING_WIDTH = 5
_TEXT_WIDTH = 12
# What a CSV file has besides the columns of the table.
_FACTS = ("params", "role", "recipe", "run", "seed", "checkpoint")


def failures(rows: Sequence[Row]) -> list[str]:
    """Return one line for each model that could not be measured."""
    return [f"{row['model']} failed: {row['error']}" for row in rows if row.get("error")]


def print_group(group: Group, console: Console) -> None:
    """Print the table of a group, as two tables one below the other where the terminal is narrow."""
    columns = columns_of(group.rows)
    parts = [columns]
    unlimited = console.options.update(width=10_000)
    if console.measure(_rich_table(group, columns), options=unlimited).minimum > console.width:
        parts = [columns[:FIXED], [columns[0], *columns[FIXED:]]]
    for part in parts:
        console.print(_rich_table(group, part))
    for note in failures(group.rows):
        console.print(note, style="red", markup=False)
    console.print(group.title, style="dim", markup=False)


def _rich_table(group: Group, columns: Sequence[Column]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    cells = [[_narrow(column.cell(row)) for column in columns] for row in group.rows]
    for index, column in enumerate(columns):
        text = column.key in ("model", "method")
        heading = textwrap.fill(column.title, _HEADING_WIDTH, break_long_words=False)
        lines = [line for cell in [heading, *(row[index] for row in cells)] for line in cell.splitlines()]
        width = _TEXT_WIDTH if text else max(map(len, lines))
        table.add_column(heading, justify="left" if text else "right", overflow="fold", min_width=width)
    for row, texts in zip(group.rows, cells, strict=True):
        table.add_row(*map(Text, texts), style="bold" if row["role"] == "teacher" else None)
    return table


def _narrow(cell: str) -> str:
    """Put what stands in brackets below the figure, which keeps the table narrow."""
    return cell.replace(" (", "\n").removesuffix(")")


def markdown(groups: Sequence[Group]) -> str:
    """Return the tables as Markdown, each followed by what its rows have in common."""
    parts = []
    for group in groups:
        columns = columns_of(group.rows)
        lines = [[column.title for column in columns]]
        lines.append(["---" if column.key in ("model", "method") else "---:" for column in columns])
        lines += [[column.cell(row).replace("|", "\\|") for column in columns] for row in group.rows]
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        notes = "\n".join(f"- {note}" for note in failures(group.rows))
        parts.append("\n\n".join(filter(None, [table, notes, f"{group.title}. {EXPLANATION}"])))
    return "\n\n".join(parts) + "\n"


def comma_separated(groups: Sequence[Group]) -> str:
    """Return all rows as CSV with raw numbers; rows may be compared where their ``group`` is the same."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    columns = all_columns([])
    header = [column.key for column in columns]
    writer.writerow([*header, *_FACTS, "metric", "split", "error", "group"])
    for group in groups:
        for row in group.rows:
            quality = row.get("quality") or {}
            cells = [column.value(row) for column in columns] + [row.get(name) for name in _FACTS]
            writer.writerow(
                [*cells, quality.get("metric"), quality.get("split"), row.get("error"), group.title]
            )
    return stream.getvalue()
