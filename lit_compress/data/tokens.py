"""Tokenise a split once, keep it on disk, and read rows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch.utils.data
from datasets import Dataset, Features, List, Value
from transformers import PreTrainedTokenizerBase

Tokenizers = Mapping[str, PreTrainedTokenizerBase]
"""Tokenizer by column prefix: ``""`` for the student, ``"teacher_"`` where the teacher's differs."""


def tokenize(
    data: Dataset, columns: Sequence[str], tokenizers: Tokenizers, max_length: int, path: Path, title: str
) -> Dataset:
    """Tokenise without padding, or read the result of an earlier call.

    Args:
        data: Rows with the text columns, ``example_id`` and, where the split is labelled, ``labels``.
        columns: One text column, or two for pairs.
        tokenizers: Tokenizer by column prefix.
        max_length: Rows are cut to this many tokens, special tokens included.
        path: Arrow file to write; its name must say everything that the content depends on.
        title: Words beside the progress bar.

    Returns:
        The columns ``input_ids``, ``token_type_ids`` (if the tokenizer makes them), the same with each
        prefix, ``length``, ``truncated``, ``example_id`` and ``labels``.
    """
    if path.is_file():
        return _read(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = {"columns": list(columns), "tokenizers": dict(tokenizers), "max_length": max_length}
    # map writes beside the file and renames: two processes may do this at the same time.
    return data.map(
        _tokenize_rows,
        batched=True,
        fn_kwargs=settings,
        remove_columns=data.column_names,
        features=_features(data, tokenizers),
        cache_file_name=str(path),
        new_fingerprint=path.stem,
        desc=title,
    )


def _read(path: Path) -> Dataset:
    try:
        return Dataset.from_file(str(path))
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(
            f"Expected the tokenised rows in {path} but the file is damaged ({error}); delete it."
        ) from error


def token_columns(prefix: str, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the token columns of one tokenizer; the attention mask follows from the length."""
    kept = [name for name in ("input_ids", "token_type_ids") if name in tokenizer.model_input_names]
    return [prefix + name for name in kept]


def _features(data: Dataset, tokenizers: Tokenizers) -> Features:
    names = [name for prefix, tokenizer in tokenizers.items() for name in token_columns(prefix, tokenizer)]
    features: dict[str, Any] = {name: List(Value("int32")) for name in names}
    features |= {"length": Value("int32"), "truncated": Value("bool"), "example_id": Value("int64")}
    if "labels" in data.column_names:
        features["labels"] = data.features["labels"]
    return Features(features)


def _tokenize_rows(
    batch: dict[str, list],
    columns: list[str],
    tokenizers: dict[str, PreTrainedTokenizerBase],
    max_length: int,
) -> dict[str, Any]:
    rows: dict[str, Any] = {"example_id": batch["example_id"]}
    if "labels" in batch:
        rows["labels"] = batch["labels"]
    truncated = np.zeros(len(batch["example_id"]), dtype=bool)
    for prefix, tokenizer in tokenizers.items():
        texts = [batch[name] for name in columns]
        tokens = tokenizer(*texts, truncation=True, max_length=max_length)
        for name in token_columns(prefix, tokenizer):
            rows[name] = tokens[name.removeprefix(prefix)]
        full = [index for index, ids in enumerate(tokens["input_ids"]) if len(ids) >= max_length]
        if full:
            whole = tokenizer(*([column[i] for i in full] for column in texts), verbose=False)["input_ids"]
            truncated[full] |= [len(ids) > max_length for ids in whole]
    rows["length"] = [len(ids) for ids in rows["input_ids"]]
    rows["truncated"] = truncated
    return rows


class TokenRows(torch.utils.data.Dataset):
    """Random access to tokenised rows without decoding Arrow each time.

    Args:
        data: Result of :func:`tokenize`.
        tokens: Names of the token columns.
        labelled: Whether to give out ``labels``.
    """

    def __init__(self, data: Dataset, tokens: Sequence[str], labelled: bool) -> None:
        plain = ["example_id", *(["labels"] if labelled else [])]
        self._plain = {name: data.data.column(name).to_numpy() for name in plain}
        self._tokens = {name: _ragged(data.data.column(name)) for name in tokens}

    def __len__(self) -> int:
        return len(self._plain["example_id"])

    def __getitem__(self, row: int) -> dict[str, Any]:
        item: dict[str, Any] = {
            name: flat[offsets[row] : offsets[row + 1]] for name, (flat, offsets) in self._tokens.items()
        }
        for name, values in self._plain.items():
            item[name] = values[row]
        return item


def _ragged(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Return all tokens in one array and where each row begins."""
    lengths = np.concatenate([chunk.value_lengths().to_numpy() for chunk in column.chunks])
    flat = np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks])
    return flat, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
