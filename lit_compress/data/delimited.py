"""Read csv and tsv files strictly: a line that does not fit is an error that names the line."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Value

_NAMES = {",": "comma", "\t": "tab", ";": "semicolon", "|": "vertical bar"}


def read_delimited(path: Path, delimiter: str, quotes: bool | None) -> Dataset:
    """Read a file with a header line; every cell stays a string.

    Args:
        path: File in UTF-8.
        delimiter: Character between cells.
        quotes: Whether double quotes group a cell; otherwise they are plain characters. None means yes
            between commas and no between tabs, unless the file then looks damaged.

    Returns:
        One string column per header cell.

    Raises:
        ValueError: Wrong delimiter, repeated or missing header, uneven lines, broken quoting or encoding.
    """
    guessed, quotes = quotes is None, delimiter == "," if quotes is None else quotes
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = _lines(path, csv.reader(file, **_dialect(delimiter, quotes)), quotes)
        _, header = next(lines, (0, []))
        _check_header(path, header, delimiter)
        columns: list[list[str]] = [[] for _ in header]
        for number, cells in lines:
            if len(cells) != len(header):
                raise ValueError(_uneven(path, number, cells, header, quotes))
            for column, cell in zip(columns, cells, strict=True):
                column.append(cell)
    if guessed and not quotes:
        _check_literal_quotes(path, header, columns)
    features = Features({name: Value("string") for name in header})
    return Dataset.from_dict(dict(zip(header, columns, strict=True)), features=features)


def _dialect(delimiter: str, quotes: bool) -> dict:
    quoting = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    return {"delimiter": delimiter, "quoting": quoting, "strict": True}


def _lines(path: Path, reader: Any, quotes: bool) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, cells) of the lines that are not blank."""
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except UnicodeDecodeError as error:
            raise ValueError(
                f"Expected UTF-8 text in {path} but got the byte {error.object[error.start]:#04x} near line "
                f"{reader.line_num + 1}; convert the file, for example with iconv -f latin1 -t utf-8."
            ) from error
        except csv.Error as error:
            fix = "double the quotes inside cells, or set source.quotes to false" if quotes else "repair it"
            raise ValueError(
                f"Expected well-formed cells in {path} but got '{error}' at line {reader.line_num}; {fix}."
            ) from error
        if cells:
            yield reader.line_num, cells


def _check_header(path: Path, header: list[str], delimiter: str) -> None:
    if not header:
        raise ValueError(
            f"Expected a header line and rows in {path} but the file is empty; fill it in, or name another file."
        )
    other = [mark for mark in _NAMES if mark != delimiter and mark in header[0]]
    if len(header) == 1 and other:
        fix = {",": "rename the file to .csv", "\t": "rename the file to .tsv"}
        raise ValueError(
            f"Expected {_NAMES[delimiter]}s between the columns of {path} but got the single column "
            f"{header[0]!r}, which holds {_NAMES[other[0]]}s; "
            f"{fix.get(other[0], 'save the file with commas or tabs')}."
        )
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise ValueError(
            f"Expected different column names in {path} but got {repeated[0]!r} twice; rename one."
        )


def _uneven(path: Path, number: int, cells: list[str], header: list[str], quotes: bool) -> str:
    quoting = (
        "a cell that holds the delimiter needs quotes around it"
        if quotes
        else "quotes do not protect it here; set source.quotes to true if the file was written with quotes"
    )
    return (
        f"Expected {len(header)} cells ({', '.join(header)}) in every line of {path} but got {len(cells)} "
        f"in line {number}: {str(cells)[:120]}; repair the line ({quoting})."
    )


def _check_literal_quotes(path: Path, header: list[str], columns: list[list[str]]) -> None:
    """Refuse a file from a writer that quotes: its quotes would stay in the text."""
    quoted = next((f"the header {name}" for name in header if name[:1] == name[-1:] == '"'), None)
    for name, column in zip(header, columns, strict=True):
        for row, cell in enumerate(column):
            if quoted is None and cell[:1] == cell[-1:] == '"' and '""' in cell[1:-1]:
                quoted = f"row {row}, column {name!r}: {cell[:80]}"
    if quoted is not None:
        raise ValueError(
            f"Expected quotes in {path} to be plain characters, as in other tsv files, but got csv quoting "
            f"in {quoted}; set source.quotes to true, or to false if the quotes belong to the text."
        )
