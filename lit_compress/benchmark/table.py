"""The results table for the terminal, Markdown and CSV."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Sequence

from rich import box
from rich.table import Table

from lit_compress.benchmark.columns import all_columns, columns_of
from lit_compress.benchmark.groups import Group, Row

EXPLANATION = (
    "CPU ms is the median text at batch 1; ratios are to the teacher, measured in turns with it, "
    "with the range of the middle 80 % of the rounds; RAM is the process's peak above what its imports take."
)
# Widths in the terminal: headings fold, numbers never do, names fold last of all.
_HEADING_WIDTH = 10
_TEXT_WIDTH = 12
# What a CSV file has besides the columns of the table.
_FACTS = ("params", "role", "recipe", "run", "seed", "checkpoint")


def failures(rows: Sequence[Row]) -> list[str]:
    """Return one line for each model that could not be measured."""
    return [f"{row['model']} failed: {row['error']}" for row in rows if row.get("error")]


def rich_table(group: Group) -> Table:
    """Return the table for the terminal."""
    table = Table(
        caption="\n".join([group.title, *failures(group.rows)]), box=box.SIMPLE, caption_justify="left"
    )
    columns = columns_of(group.rows)
    for column in columns:
        text = column.key in ("model", "method")
        table.add_column(
            textwrap.fill(column.title, _HEADING_WIDTH),
            justify="left" if text else "right",
            overflow="fold",
            no_wrap=not text,
            min_width=_TEXT_WIDTH if text else None,
        )
    for row in group.rows:
        cells = [_narrow(column.cell(row)) for column in columns]
        table.add_row(*cells, style="bold" if row["role"] == "teacher" else None)
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
