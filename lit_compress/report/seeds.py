"""Means over runs that differ in nothing but the seed."""

from __future__ import annotations

import hashlib
import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lit_compress.report.columns import Column
from lit_compress.report.groups import Row

_SEED = re.compile(r"[-_/. ]+((seed|s)[-_. ]*\d*)?$|seed\d*$")


@dataclass(frozen=True)
class Mean:
    """Rows of runs that differ in nothing but the seed.

    Args:
        name: What their names have in common.
        rows: The rows, at least two.
    """

    name: str
    rows: list[Row]

    def value(self, column: Column) -> float | None:
        """Return the mean of a column, ``None`` where not all rows have it."""
        values = [column.value(row) for row in self.rows]
        return (
            None if any(not isinstance(value, float | int) for value in values) else statistics.fmean(values)
        )

    def spread(self, column: Column) -> float | None:
        """Return the standard deviation of a column over the seeds."""
        values = [column.value(row) for row in self.rows]
        return None if self.value(column) is None else statistics.stdev(values)


def add_setting(row: Row, file: Path) -> None:
    """Add to a row what its run was configured with, and its seed where it lacks one.

    Args:
        row: Changed in place: ``setting`` is the same text for runs that differ in nothing but seed and
            folder. Left as it is where no configuration is found.
        file: The results file that it was read from.
    """
    run = Path(row["run"])
    for folder in (file.parent, run, run.parent):
        found = setting_of(folder)
        if found is not None:
            row["setting"] = found[0]
            row["seed"] = found[1] if row.get("seed") is None else row["seed"]
            return


def setting_of(run: Path) -> tuple[str, int] | None:
    """Return what a run was configured with apart from its seed, and the seed; ``None`` without either."""
    try:
        config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return None
    seed = config.pop("seed_everything", None) if isinstance(config, dict) else None
    if not isinstance(seed, int):
        return None
    # The order of the data has a seed of its own.
    data = config.get("data")
    if isinstance(data, dict) and isinstance(data.get("init_args"), dict):
        data["init_args"].pop("seed", None)
    text = json.dumps(config, sort_keys=True, default=str)
    folder = config.get("run_dir")
    if folder:
        text = text.replace(json.dumps(str(folder))[1:-1], "RUN")
    return hashlib.sha256(text.encode()).hexdigest()[:16], seed


def means(rows: Sequence[Row]) -> list[Mean]:
    """Return the means of a group.

    Args:
        rows: Rows of one group, with what :func:`add_setting` knows about them.

    Returns:
        One mean for each setting, runtime and thread count that was run with several seeds.
    """
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row.get("setting") and not row.get("error") and row["role"] != "teacher":
            best = (row["checkpoint"] or "").startswith("best")
            key = (row["setting"], best, row["runtime"], row["protocol"]["threads"])
            found.setdefault(key, []).append(row)
    groups = [group for group in found.values() if len({row["seed"] for row in group}) == len(group) > 1]
    return [Mean(common_name([row["model"] for row in group]), group) for group in groups]


def common_name(names: Sequence[str]) -> str:
    """Return the common beginning of names, without that of a seed: ``pkd`` of ``pkd-s0`` and ``pkd-s1``."""
    same = next((i for i, letters in enumerate(zip(*names, strict=False)) if len(set(letters)) > 1), None)
    return _SEED.sub("", names[0][:same]) or names[0]
