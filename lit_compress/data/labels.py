"""Turn a label column into class ids or regression targets."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_INTEGER = re.compile(r"[-+]?\d+")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


@dataclass(frozen=True)
class Column:
    """Raw values of one label column with the words that error messages need.

    Args:
        values: One value per row: bool, int, float, str or None.
        rows: Row number of each value in its source.
        where: File or hub name.
        name: Column name.
    """

    values: Sequence[Any]
    rows: npt.NDArray[np.int64]
    where: str
    name: str

    def __str__(self) -> str:
        return f"column {self.name!r} of {self.where}"

    def at(self, index: int) -> str:
        """Name one cell."""
        return f"row {self.rows[index]}, {self}"


@dataclass(frozen=True)
class LabelSet:
    """The classes of a task, or the fact that it is a regression.

    Args:
        names: Class names in id order; None for regression.
        ids: Id of each class as it is written in the data; empty for regression.
    """

    names: list[str] | None
    ids: dict[str, int]

    @property
    def num_labels(self) -> int:
        """Number of outputs of the model: the classes, or 1 for regression."""
        return 1 if self.names is None else len(self.names)

    def encode(self, column: Column) -> npt.NDArray[Any]:
        """Return int64 class ids or float32 targets.

        Raises:
            ValueError: A label is missing, unknown or out of range; the message names file, row and column.
        """
        _check_filled(column)
        if self.names is None:
            return _targets(column)
        ids = [self.ids.get(_written(value), -1) for value in column.values]
        if -1 in ids:
            _raise_unknown(column, ids.index(-1), self.names)
        return np.array(ids, dtype=np.int64)


def infer_labels(column: Column, explicit: Sequence[str | int] | None, stored: list[str] | None) -> LabelSet:
    """Find the label set of a task from its training labels.

    Integers are ids 0 … n-1; strings are sorted; floats mean regression.

    Args:
        column: Labels of the training split.
        explicit: Class names given by the user, in id order; they win.
        stored: Class names that the data set carries for integer labels.

    Returns:
        The label set.

    Raises:
        ValueError: The labels fit no task: one class, gaps, a text column, or names that do not cover them.
    """
    _check_filled(column)
    if explicit is None and _are_targets(column.values):
        targets = _targets(column)
        if len(targets) > 1 and (targets == targets[0]).all():
            raise ValueError(
                f"Expected different targets in {column} but all {len(targets):,} rows hold {targets[0]}; "
                "nothing can be learned from them: choose another label column."
            )
        return LabelSet(None, {})
    written = [_written(value) for value in column.values]
    if explicit is not None:
        found = _from_names(written, [str(name) for name in explicit])
    elif all(_INTEGER.fullmatch(value) for value in written):
        found = _from_integers(column, sorted({int(value) for value in written}), stored)
    else:
        found = _from_strings(column, written)
    found.encode(column)
    if len(set(written)) == 1:
        raise ValueError(
            f"Expected at least two classes in {column} but all {len(written):,} rows are {written[0]!r}; "
            "shuffle the rows before you split them, or choose another label column."
        )
    return found


def _written(value: bool | int | float | str) -> str:
    """Return a label as labels are compared: 1, 1.0, "1" and "01" are the same class."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value)
    return str(int(text)) if _INTEGER.fullmatch(text) else text


def _are_targets(values: Sequence[Any]) -> bool:
    if all(isinstance(value, str) for value in values):
        numbers = all(_NUMBER.fullmatch(value) for value in values)
        return numbers and not all(_INTEGER.fullmatch(value) for value in values)
    return any(isinstance(value, float) for value in values)


def _check_filled(column: Column) -> None:
    for index, value in enumerate(column.values):
        if value is None or value != value or (isinstance(value, str) and not value.strip()):
            raise ValueError(
                f"Expected a label in {column.at(index)} but it is empty; fill it in or remove the row."
            )
        if not isinstance(value, (bool, int, float, str)):
            raise ValueError(
                f"Expected one integer, string or float label in {column.at(index)} but got "
                f"{type(value).__name__} {str(value)[:60]}; set 'label' to another column."
            )


def _targets(column: Column) -> npt.NDArray[np.float32]:
    for index, value in enumerate(column.values):
        number = isinstance(value, (int, float)) or _NUMBER.fullmatch(value)
        if not number or not math.isfinite(float(value)):
            raise ValueError(
                f"Expected a finite number in {column.at(index)}, because the labels make this a regression, "
                f"but got {value!r}; repair the row, or give 'labels' for a classification."
            )
    return np.array([float(value) for value in column.values], dtype=np.float32)


def _from_names(written: list[str], names: list[str]) -> LabelSet:
    ids = {_written(name): index for index, name in enumerate(names)}
    if len(names) < 2 or len(ids) != len(names):
        raise ValueError(f"Expected at least two different class names in 'labels' but got {names}.")
    # Ids 0 … n-1 that are no names: the names only describe them.
    positions = {str(index): index for index in range(len(names))}
    if not set(written) <= set(ids) and set(written) <= set(positions):
        return LabelSet(names, positions)
    return LabelSet(names, ids)


def _from_integers(column: Column, present: list[int], stored: list[str] | None) -> LabelSet:
    names = stored or [str(value) for value in range(max(0, present[-1]) + 1)]
    missing = sorted(set(range(len(names))) - set(present))
    # -1 has a message of its own.
    if not stored and missing and len(present) > 1 and -1 not in present:
        raise ValueError(
            f"Expected integer labels 0 … n-1 without gaps in {column} but got {_few(present)} "
            f"({missing[0]} never occurs); give 'labels' with all class values in order, for example "
            f"labels: {_few(present)}, or write floats for a regression."
        )
    return LabelSet(names, {str(index): index for index in range(len(names))})


def _from_strings(column: Column, written: list[str]) -> LabelSet:
    names = sorted(set(written))
    if len(names) > 20 and len(names) > len(written) / 2:
        raise ValueError(
            f"Expected classes in {column} but got {len(names):,} different values in {len(written):,} rows, "
            f"for example {written[0][:40]!r}; it looks like text: set 'label' to the label column."
        )
    stripped: dict[str, str] = {}
    for name in names:
        other = stripped.setdefault(name.strip(), name)
        if other != name:
            raise ValueError(
                f"Expected labels without surrounding blanks in {column} but got both {other!r} and "
                f"{name!r}; strip them."
            )
    return LabelSet(names, {name: index for index, name in enumerate(names)})


def _raise_unknown(column: Column, index: int, names: list[str]) -> None:
    known = f"one of the {len(names)} classes {_few(names)}"
    if _written(column.values[index]) == "-1":
        raise ValueError(
            f"Expected {known} in {column.at(index)} but got -1, which marks a hidden label (the test files "
            "of GLUE); evaluate on the validation split, and use the test split with predict only."
        )
    raise ValueError(
        f"Expected {known} in {column.at(index)} but got {column.values[index]!r}; repair the row, or give "
        "all classes in 'labels' (without it they are found in the training split)."
    )


def _few(names: Sequence[Any]) -> str:
    shown = ", ".join(str(name) for name in names[:8])
    return f"[{shown}, …]" if len(names) > 8 else f"[{shown}]"
