"""Check the text columns of a split and leave out its empty rows."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset


def require_columns(data: Dataset, columns: Sequence[str], where: str) -> None:
    """Raise where a column is missing, naming the close ones.

    Args:
        data: One split.
        columns: Names that must be there.
        where: File or hub name for the message.

    Raises:
        ValueError: A column is missing.
    """
    for name in columns:
        if name in data.column_names:
            continue
        close = difflib.get_close_matches(name, data.column_names, 1, cutoff=0.5)
        hint = (
            f"did you mean {close[0]!r}?" if close else "set 'text' and 'label' to the columns of your data"
        )
        raise ValueError(
            f"Expected the column {name!r} in {where} but got the columns "
            f"{', '.join(map(repr, data.column_names))}; {hint}"
        )


def rows_with_text(data: Dataset, columns: Sequence[str], where: str) -> npt.NDArray[np.int64]:
    """Return the numbers of the rows whose every text column holds more than blanks.

    Args:
        data: One split.
        columns: Text columns.
        where: File or hub name for messages.

    Returns:
        Ascending 0-based row numbers.

    Raises:
        ValueError: The split has no rows, no row with text, or a column that is not text.
    """
    if len(data) == 0:
        raise ValueError(f"Expected rows in {where} but it has none; check the file, or leave the split out.")
    kept = np.ones(len(data), dtype=bool)
    for name in columns:
        column = data.data.column(name)
        if pa.types.is_null(column.type):
            column = column.cast(pa.string())
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            raise ValueError(
                f"Expected text in column {name!r} of {where} but got {column.type} "
                f"(row 0: {str(column[0])[:60]}); set 'text' to the text column."
            )
        filled = pc.not_equal(pc.utf8_trim_whitespace(column), "").fill_null(False)
        kept &= filled.to_numpy(zero_copy_only=False) if isinstance(filled, pa.Array) else filled.to_numpy()
    if not kept.any():
        raise ValueError(
            f"Expected text in column {' and '.join(map(repr, columns))} of {where} but all {len(data):,} "
            "rows are empty; set 'text' to the text column."
        )
    return np.flatnonzero(kept)
