"""Read parquet files."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from datasets.table import InMemoryTable


def read_parquet(path: Path) -> Dataset:
    """Read a parquet file, with the class names that the datasets library stores in it.

    Args:
        path: The file.

    Returns:
        Its columns.

    Raises:
        ValueError: The file is not parquet or is damaged.
    """
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(
            f"Expected a parquet file at {path} but it cannot be read ({error}); write it again."
        ) from error
    return Dataset(InMemoryTable(table))
