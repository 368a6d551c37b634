"""What the tables of the experiments share: figures of a finished run, and how figures are written."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

Ratio = dict[str, Any]
#: Lines of a table above its rows: names of the columns, and their alignment.
HEAD = 2


def times_faster(latency: Ratio) -> str:
    """Write a ratio of latencies, the smaller the better, as a speed-up."""
    return f"{1 / latency['median']:.2f}× ({1 / latency['high']:.2f}–{1 / latency['low']:.2f})"


def times(throughput: Ratio) -> str:
    """Write a ratio of throughputs, the larger the better."""
    return f"{throughput['median']:.2f}× ({throughput['low']:.2f}–{throughput['high']:.2f})"


def spread(values: list[float]) -> str:
    """Mean and standard deviation in percent; one value stands alone."""
    mean = f"{100 * statistics.fmean(values):.1f}"
    return f"{mean} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else mean


def quality_of(run: Path) -> dict[str, Any]:
    """Return accuracy on ``dev`` and ``test``, and the model folder, of a finished run."""
    model, untrained = run / "model", run / "val_metrics.json"
    facts = json.loads((untrained if untrained.is_file() else model / "lit_compress.json").read_text())
    return {
        "dev": facts.get("metrics", facts)["val/accuracy"],
        "test": json.loads((run / "test_metrics.json").read_text())["test/accuracy"],
        "folder": model,
    }


def cells(line: str) -> list[str]:
    """Split one line of a Markdown table."""
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def table_lines(page: str) -> list[str]:
    """Return the lines of a page that are of its table: it has one."""
    return [line for line in page.splitlines() if line.startswith("|")]


def with_earlier_rows(table: str, earlier: str, key: int) -> str:
    """Add the rows of an earlier page whose runs are not at hand any more, each at its place.

    Args:
        table: The table of the runs that are at hand.
        earlier: A page with a table of the same columns, or without any.
        key: How many of the first columns name a row.

    Returns:
        Every row of both, in the order of the earlier one where it has them; a row of both is the one of ``table``
        unless that one says less: it is of fewer seeds, or has more cells without a figure.

    Raises:
        SystemExit: The columns differ.
    """
    new, old = table_lines(table), table_lines(earlier)
    if old and cells(new[0]) != cells(old[0]):
        raise SystemExit(f"Expected the columns {new[0]} in the page but found {old[0]}; give another --out.")
    rows = {tuple(cells(line)[:key]): line for line in old[HEAD:]}
    order = list(rows)
    before: tuple[str, ...] | None = None
    for line in new[HEAD:]:
        name = tuple(cells(line)[:key])
        if name not in rows:
            order.insert(0 if before is None else order.index(before) + 1, name)
        if name not in rows or not _says_less(line, rows[name], cells(new[0])):
            rows[name] = line
        before = name
    return "\n".join([*new[:HEAD], *(rows[name] for name in order)])


def _says_less(line: str, earlier: str, columns: list[str]) -> bool:
    row, old = cells(line), cells(earlier)
    fewer = "seeds" in columns and int(row[columns.index("seeds")]) < int(old[columns.index("seeds")])
    return fewer or row.count("–") > old.count("–")
