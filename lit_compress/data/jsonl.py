"""Read files with one JSON object per line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Dataset


def read_jsonl(path: Path) -> Dataset:
    """Read a JSON-lines file; a key that a line lacks is null there.

    Args:
        path: File in UTF-8, one object per line; blank lines are allowed.

    Returns:
        One column per key.

    Raises:
        ValueError: A line is no JSON object, or a column mixes types; the message names line and column.
    """
    rows = [_row(path, number, line) for number, line in _lines(path)]
    if not rows:
        raise ValueError(f"Expected rows in {path} but the file is empty; fill it in, or name another file.")
    names = list(dict.fromkeys(name for row in rows for name in row))
    return Dataset.from_dict({name: _column(path, name, [row.get(name) for row in rows]) for name in names})


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"Expected UTF-8 text in {path} but got the byte {error.object[error.start]:#04x} in line "
            f"{line}; convert the file, for example with iconv -f latin1 -t utf-8."
        ) from error
    # Not splitlines(): it also splits at characters that JSON allows inside strings.
    return [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def _row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"Expected one JSON object per line in {path} but line {number} is not JSON ({error}): "
            f"{line[:80]}; repair the line, or write the list as one object per line."
        ) from error
    if not isinstance(row, dict):
        raise ValueError(
            f"Expected a JSON object with column names in line {number} of {path} but got {line[:80]}; "
            'write {"text": …, "label": …}.'
        )
    return row


def _column(path: Path, name: str, values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError) as error:
        raise ValueError(
            f"Expected values of one type in column {name!r} of {path} but got "
            f"{_first_odd(values)} ({error}); write the column in one type."
        ) from error


def _first_odd(values: list[Any]) -> str:
    present = [(row, value) for row, value in enumerate(values) if value is not None]
    for row, value in present:
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                return f"half a character (a lone surrogate) in row {row}"
        if type(value) is not type(present[0][1]):
            first = type(present[0][1]).__name__
            return f"{type(value).__name__} {str(value)[:40]!r} in row {row} after {first}"
    return "values that Arrow cannot store"
