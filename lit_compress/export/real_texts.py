"""The real texts that an export is compared on, in the tokens that its model reads."""

from __future__ import annotations

from typing import Any

from lit_compress.benchmark.protocol import typical_rows
from lit_compress.benchmark.quality import Texts

_NAMES = ("input_ids", "token_type_ids")


def typical_texts(texts: Texts, side: str, count: int) -> list[dict[str, Any]]:
    """Return tokenised texts of the split with their labels, in its order: sorted ones would need no padding.

    Args:
        texts: The labelled texts.
        side: ``"teacher"`` takes the teacher's own tokens where the data has them.
        count: How many, from short to long.
    """
    rows = texts.datamodule.rows(texts.split)
    chosen = typical_rows(texts.datamodule.lengths(texts.split), min(count, len(rows)))
    prefix = _prefix(side, rows)
    names = [name for name in _NAMES if prefix + name in rows.column_names]
    return [
        {"labels": row["labels"], **{name: row[prefix + name] for name in names}}
        for row in rows.select(sorted(chosen))
    ]


def refuse_pairs(name: str, texts: Texts, rows: list[dict[str, Any]]) -> None:
    """Refuse data of pairs for a format that does not tell the two texts of a pair apart.

    Args:
        name: The format.
        texts: The labelled texts.
        rows: Some of them, see :func:`typical_texts`.

    Raises:
        ValueError: There is a pair.
    """
    if any(any(row.get("token_type_ids", ())) for row in rows):
        raise ValueError(
            f"Expected data of single texts for {name}, which does not tell the two texts of a pair apart, but those "
            f"of the model are pairs ({texts.split} split, token_type_ids); use another format, such as onnx."
        )


def refuse_longer(name: str, texts: Texts, side: str, most: int | None) -> None:
    """Refuse texts that a file cannot read: cut, they would be other texts than the original was judged on.

    Args:
        name: The format.
        texts: The labelled texts.
        side: As for :func:`typical_texts`.
        most: Length in tokens of the longest text that the file reads; ``None`` where it knows no limit.

    Raises:
        ValueError: There is a longer one.
    """
    if most is None:
        return
    rows = texts.datamodule.rows(texts.split)
    prefix = _prefix(side, rows)
    counts = map(len, rows[f"{prefix}input_ids"]) if prefix else texts.datamodule.lengths(texts.split)
    longest = max(counts)
    if longest > most:
        raise ValueError(
            f"Expected texts of at most {most} tokens, the longest that {name} reads, but the {texts.split} split has "
            f"one of {longest}; give a data section with max_length: {most} with --data, or choose another format."
        )


def _prefix(side: str, rows: Any) -> str:
    return "teacher_" if side == "teacher" and "teacher_input_ids" in rows.column_names else ""
