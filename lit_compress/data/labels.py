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
        values: One value per row.
        rows: Row number of each value in its source.
        where: File or hub name.
        name: Column name.
    """

    values: Sequence[Any]
    rows: npt.NDArray[np.int64]
    where: str
    name: str

    def at(self, index: int) -> str:
        """Name one cell."""
        return f"row {self.rows[index]}, column {self.name!r} of {self.where}"


@dataclass(frozen=True)
class LabelSet:
    """The classes of a task, or the fact that it is a regression.

    Args:
        names: Class names in id order; None for regression.
        ids: Id of each raw value; empty for regression.
    """

    names: list[str] | None
    ids: dict[int | str, int]

    @property
    def num_labels(self) -> int:
        """Number of outputs of the model: the classes, or 1 for regression."""
        return 1 if self.names is None else len(self.names)

    def encode(self, column: Column) -> npt.NDArray[Any]:
        """Return int64 class ids or float32 targets.

        Raises:
            ValueError: A label is missing, unknown or out of range; the message names file, row and column.
        """
        values = parse_values(column)
        if self.names is None:
            return _targets(column, values)
        if values and isinstance(values[0], float):
            values = _whole(column, values)
        unknown = next((index for index, value in enumerate(values) if value not in self.ids), None)
        if unknown is not None:
            raise ValueError(_unknown_label(column, unknown, values[unknown], self.names))
        return np.array([self.ids[value] for value in values], dtype=np.int64)


def infer_labels(column: Column, explicit: Sequence[str] | None, stored: list[str] | None) -> LabelSet:
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
    values = parse_values(column)
    if explicit is not None:
        if values and isinstance(values[0], float):
            values = _whole(column, values)
        found = _named(column, values, [str(name) for name in explicit])
    elif values and isinstance(values[0], float):
        targets = _targets(column, values)
        if len(targets) > 1 and (targets == targets[0]).all():
            raise ValueError(
                f"Expected different targets in column {column.name!r} of {column.where} but all rows hold "
                f"{targets[0]}; nothing can be learned from them: choose another label column."
            )
        return LabelSet(None, {})
    elif isinstance(values[0], int):
        found = _from_integers(column, values, stored)
    else:
        found = _from_strings(column, values)
    _check_two_classes(column, values)
    return found


def parse_values(column: Column) -> list[Any]:
    """Return the labels as all int, all float or all str; text that holds numbers becomes numbers."""
    values = list(column.values)
    for index, value in enumerate(values):
        if value is None or (isinstance(value, str) and not value.strip()):
            raise ValueError(
                f"Expected a label in {column.at(index)} but it is empty; fill it in or remove the row."
            )
        if not isinstance(value, (bool, int, float, str)):
            raise ValueError(
                f"Expected one integer, string or float label in {column.at(index)} but got "
                f"{type(value).__name__} {str(value)[:60]}; choose another label column."
            )
    if any(isinstance(value, bool) for value in values):
        values = [str(value) for value in values]
    if all(isinstance(value, str) for value in values):
        if all(_INTEGER.fullmatch(value) for value in values):
            return [int(value) for value in values]
        return [float(v) for v in values] if all(_NUMBER.fullmatch(v) for v in values) else values
    if any(isinstance(value, float) for value in values):
        return [float(value) for value in values]
    return values


def _targets(column: Column, values: list[Any]) -> npt.NDArray[np.float32]:
    for index, value in enumerate(values):
        if isinstance(value, str) or not math.isfinite(value):
            raise ValueError(
                f"Expected a finite number in {column.at(index)} (the task is a regression) but got {value!r}; "
                "repair the row, or give 'labels' for a classification."
            )
    return np.array(values, dtype=np.float32)


def _whole(column: Column, values: list[float]) -> list[int]:
    for index, value in enumerate(values):
        if not value.is_integer():
            raise ValueError(
                f"Expected a class in {column.at(index)} but got {value}; the task is a classification. "
                "Leave 'labels' out for a regression, or give every split labels of one kind."
            )
    return [int(value) for value in values]


def _named(column: Column, values: list[Any], names: list[str]) -> LabelSet:
    if len(names) < 2 or len(set(names)) != len(names):
        raise ValueError(f"Expected at least two different names in 'labels' but got {names}.")
    by_name = {name: index for index, name in enumerate(names)}
    if all(str(value) in by_name for value in values):
        ids: dict[int | str, int] = dict(by_name)
        return LabelSet(
            names, ids | {int(name): i for name, i in by_name.items() if _INTEGER.fullmatch(name)}
        )
    # Integers that are no names are ids, and the names only describe them.
    if all(isinstance(value, int) and 0 <= value < len(names) for value in values):
        return LabelSet(names, {index: index for index in range(len(names))})
    is_id = isinstance(values[0], int) and not any(str(value) in by_name for value in values)
    unknown = next(
        index
        for index, value in enumerate(values)
        if (not 0 <= value < len(names) if is_id else str(value) not in by_name)
    )
    raise ValueError(_unknown_label(column, unknown, values[unknown], names))


def _from_integers(column: Column, values: list[int], stored: list[str] | None) -> LabelSet:
    highest = len(stored) - 1 if stored else max(values)
    present = set(values)
    wrong = next((index for index, value in enumerate(values) if not 0 <= value <= highest), None)
    if wrong is not None:
        names = stored or [str(value) for value in range(highest + 1)]
        raise ValueError(_unknown_label(column, wrong, values[wrong], names))
    missing = [] if stored else [value for value in range(highest + 1) if value not in present]
    if missing and len(present) > 1:
        raise ValueError(
            f"Expected integer labels 0 … n-1 without gaps in column {column.name!r} of {column.where} but got "
            f"{_few(sorted(present))} ({missing[0]} never occurs); give 'labels' with all class values in order, "
            f"for example labels: {_few([str(value) for value in sorted(present)])}, or write floats for a regression."
        )
    names = stored or [str(value) for value in range(highest + 1)]
    return LabelSet(names, {index: index for index in range(len(names))})


def _from_strings(column: Column, values: list[str]) -> LabelSet:
    names = sorted(set(values))
    if len(names) > 20 and len(names) > len(values) / 2:
        raise ValueError(
            f"Expected classes in column {column.name!r} of {column.where} but got {len(names):,} different "
            f"values in {len(values):,} rows, for example {values[0][:40]!r}; it looks like text: set 'label' "
            "to the label column."
        )
    stripped: dict[str, str] = {}
    for name in names:
        other = stripped.setdefault(name.strip(), name)
        if other != name:
            raise ValueError(
                f"Expected labels without surrounding blanks in column {column.name!r} of {column.where} but got "
                f"both {other!r} and {name!r}; strip them."
            )
    return LabelSet(names, {name: index for index, name in enumerate(names)})


def _check_two_classes(column: Column, values: list[Any]) -> None:
    if len(set(values)) == 1:
        raise ValueError(
            f"Expected at least two classes in column {column.name!r} of {column.where} but all {len(values):,} "
            f"rows are {values[0]!r}; shuffle the rows before splitting them, or choose another label column."
        )


def _unknown_label(column: Column, index: int, value: Any, names: list[str]) -> str:
    known = f"one of the {len(names)} classes of the training split ({_few(names)})"
    if value == -1:
        return (
            f"Expected {known} in {column.at(index)} but got -1, which marks a hidden label (the test files of "
            "GLUE); evaluate on the validation split, and use the test split with predict only."
        )
    return (
        f"Expected {known} in {column.at(index)} but got {value!r}; repair the row, or give all classes "
        "in 'labels'."
    )


def _few(names: Sequence[Any]) -> str:
    shown = ", ".join(str(name) for name in names[:8])
    return f"[{shown}, …]" if len(names) > 8 else f"[{shown}]"
