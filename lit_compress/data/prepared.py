"""Checked, numbered and tokenised rows of a source."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from datasets import ClassLabel, Dataset
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from transformers import PreTrainedTokenizerBase

from lit_compress.data.augment import Augmentation, augmented_rows
from lit_compress.data.labels import Column, LabelSet, infer_labels
from lit_compress.data.source import SPLITS, TextSource
from lit_compress.data.texts import require_columns, rows_with_text
from lit_compress.data.tokenizer import load_tokenizer, tokenizer_fingerprint
from lit_compress.data.tokens import tokenize

# Raise it when the same settings lead to other tokens than before.
_VERSION = 1
_HOLD_OUT_SEED = 0


@dataclass(frozen=True)
class TextSettings:
    """What :class:`PreparedText` does with a source; the fields are arguments of the data module."""

    text: Sequence[str]
    label: str
    labels: Sequence[str | int] | None
    tokenizer: str
    teacher_tokenizer: str | None
    max_length: int
    limit_train: int | None
    validation_share: float | None
    seed: int
    cache: Path
    augment: Augmentation | None = None


class PreparedText:
    """Rows of a source as token ids with labels; everything is read when it is first needed.

    Args:
        source: Where the rows come from.
        settings: What to do with them.
    """

    def __init__(self, source: TextSource, settings: TextSettings) -> None:
        self.source = source
        self.settings = settings
        self._raw: dict[str, Dataset | None] = {}
        self._rows: dict[tuple[str, bool], Dataset] = {}
        self._source_fingerprints: dict[str, str] = {}

    @cached_property
    def student_tokenizer(self) -> PreTrainedTokenizerBase:
        """The student's tokenizer."""
        return load_tokenizer(self.settings.tokenizer, self.settings.max_length, "data.tokenizer")

    @cached_property
    def teacher_tokenizer(self) -> PreTrainedTokenizerBase | None:
        """The teacher's tokenizer; None where it is the student's."""
        name = self.settings.teacher_tokenizer
        if name is None:
            return None
        return load_tokenizer(name, self.settings.max_length, "data.teacher_tokenizer")

    @property
    def tokenizers(self) -> dict[str, PreTrainedTokenizerBase]:
        """Tokenizers by column prefix."""
        teacher = self.teacher_tokenizer
        return {"": self.student_tokenizer} | ({"teacher_": teacher} if teacher is not None else {})

    @cached_property
    def labels(self) -> LabelSet:
        """The label set, found in the training split.

        Raises:
            ValueError: No split tells the labels, or they fit no task.
        """
        split = next((name for name in SPLITS if self._read(name) is not None), None)
        if split is None:
            raise ValueError("Expected at least one split in the source but got none; set source.train.")
        data, where = self._raw[split], self.source.describe(split)
        assert data is not None
        require_columns(data, [*self.settings.text, self.settings.label], where)
        column = self._column(data, rows_with_text(data, self.settings.text, where), where)
        feature = data.features[self.settings.label]
        stored = list(feature.names) if isinstance(feature, ClassLabel) else None
        found = infer_labels(column, self.settings.labels, stored)
        if split != "train" and found.names is not None and self.settings.labels is None and stored is None:
            raise ValueError(
                f"Expected a train split to find the classes in, but {where} is all there is; give all "
                "classes in data.labels, in the order the model was trained with."
            )
        return found

    def has_split(self, split: str) -> bool:
        """Whether the split has rows."""
        return self._read(self._stored_split(split)) is not None

    def fingerprint(self, split: str, side: str) -> str:
        """Return a hash of a split as the model of one side sees it."""
        tokenizer = (self.teacher_tokenizer if side == "teacher" else None) or self.student_tokenizer
        stored = self._stored_split(split)
        if stored not in self._source_fingerprints:
            self._source_fingerprints[stored] = self.source.fingerprint(stored)
        facts = [
            _VERSION,
            self._source_fingerprints[stored],
            list(self.settings.text),
            tokenizer_fingerprint(tokenizer),
            self.settings.max_length,
            self._choice(split),
        ]
        augment = self._augment(split)
        return _hash([*facts, asdict(augment)] if augment else facts)

    def rows(self, split: str, labelled: bool) -> Dataset:
        """Return the tokenised rows; see :meth:`TextClassificationDataModule.rows`."""
        key = (split, labelled)
        if key not in self._rows:
            self._rows[key] = self._prepare(split, labelled)
        return self._rows[key]

    def texts(self, split: str) -> dict[str, list[str]]:
        """Return the texts of the rows, by column; see :meth:`TextClassificationDataModule.texts`."""
        data, rows = self._filled(split, [])
        return self._columns(data, rows)

    def _read(self, stored: str) -> Dataset | None:
        if stored not in self._raw:
            self._raw[stored] = self.source.load(stored)
        return self._raw[stored]

    def _stored_split(self, split: str) -> str:
        """Return the split of the source that the rows of ``split`` are stored in."""
        if split not in SPLITS:
            raise ValueError(f"Expected a split among {', '.join(SPLITS)} but got {split!r}.")
        if self.settings.validation_share is None:
            return split
        if self._read("validation") is not None:
            raise ValueError(
                "Expected no validation split in the source together with data.validation_share but got "
                f"{self.source.describe('validation')}; remove one of the two."
            )
        return "train" if split == "validation" else split

    def _choice(self, split: str) -> list[float | int | str | None]:
        """Describe which rows of the stored split are used."""
        limit = self.settings.limit_train if split == "train" else None
        share = self.settings.validation_share if split != "test" else None
        return [split if share else None, share, limit, None if limit is None else self.settings.seed]

    def _chosen_rows(self, split: str, count: int) -> npt.NDArray[np.int64]:
        _, share, limit, seed = self._choice(split)
        rows = np.arange(count)
        if share is not None:
            # Whatever the seed: a teacher must not have trained on what its students are selected by.
            order = np.random.default_rng(_HOLD_OUT_SEED).permutation(count)
            held = max(1, round(float(share) * count))
            rows = np.sort(order[:held] if split == "validation" else order[held:])
        if limit is None:
            return rows
        if int(limit) > len(rows):
            raise ValueError(
                f"Expected data.limit_train <= {len(rows):,}, the training rows there are, but got {limit}; "
                "lower it or leave it out."
            )
        return np.sort(np.random.default_rng(int(seed or 0)).permutation(rows)[: int(limit)])

    def _column(self, data: Dataset, rows: npt.NDArray[np.int64], where: str) -> Column:
        values = data.data.column(self.settings.label).take(rows).to_pylist()
        return Column(values, rows, where, self.settings.label)

    def _columns(self, data: Dataset, rows: npt.NDArray[np.int64]) -> dict[str, list[str]]:
        return {name: data.data.column(name).take(rows).to_pylist() for name in self.settings.text}

    def _filled(self, split: str, needed: list[str]) -> tuple[Dataset, npt.NDArray[np.int64]]:
        """Return what a split is stored in and the numbers of its rows with text."""
        stored = self._stored_split(split)
        data, where = self._read(stored), self.source.describe(stored)
        if data is None:
            share = ", or data.validation_share" if split == "validation" else ""
            raise ValueError(
                f"Expected a {split} split but the source has none; set source.{split}{share}, or leave out "
                "what needs it."
            )
        text = list(self.settings.text)
        require_columns(data, [*text, *needed], where)
        filled = rows_with_text(data, text, where)
        chosen = self._chosen_rows(split, len(data))
        rows = np.intersect1d(filled, chosen, assume_unique=True)
        if len(rows) == 0:
            raise ValueError(
                f"Expected {split} rows with text but none of the {len(chosen):,} chosen rows of {where} "
                "has any; check data.validation_share and data.limit_train."
            )
        _report_empty(np.setdiff1d(chosen, rows), len(chosen), text, where)
        return data, rows

    def _prepare(self, split: str, labelled: bool) -> Dataset:
        text, where = list(self.settings.text), self.source.describe(self._stored_split(split))
        data, rows = self._filled(split, [self.settings.label] if labelled else [])
        columns: dict[str, Any] = {**self._columns(data, rows), "example_id": rows}
        if labelled:
            columns["labels"] = self.labels.encode(self._column(data, rows, where))
        if (augment := self._augment(split)) is not None:
            columns = self._with_copies(columns, augment, len(data))
        path = self.settings.cache / f"{self._cache_key(split, labelled)}.arrow"
        tokens = tokenize(
            Dataset.from_dict(columns),
            text,
            self.tokenizers,
            self.settings.max_length,
            path,
            f"Tokenising {split}",
        )
        self._report_truncated(tokens, split, where)
        return tokens

    def _augment(self, split: str) -> Augmentation | None:
        return self.settings.augment if split == "train" else None

    def _with_copies(self, columns: dict[str, Any], augment: Augmentation, count: int) -> dict[str, Any]:
        """Add the copies of the rows; copy k of row i has the example id ``i + k * count``."""
        mask_token = self.student_tokenizer.mask_token
        if mask_token is None and augment.mask > 0:
            raise ValueError(
                f"Expected a tokenizer with a mask token for data.augment.mask={augment.mask} but "
                f"{self.settings.tokenizer} has none; set data.augment.mask to 0."
            )
        text, rows = list(self.settings.text), columns["example_id"]
        copies = list(augmented_rows([columns[name] for name in text], rows, augment, mask_token or ""))
        rank_zero_info(f"Augmentation: {len(copies):,} copies of {len(rows):,} training rows.")
        positions = np.array([position for position, _, _ in copies], dtype=np.int64)
        numbers = np.array([number for _, number, _ in copies], dtype=np.int64)
        added = {name: [drawn[i] for _, _, drawn in copies] for i, name in enumerate(text)}
        grown = {name: columns[name] + added[name] for name in text}
        grown["example_id"] = np.concatenate([rows, rows[positions] + numbers * count])
        if "labels" in columns:
            labels = np.asarray(columns["labels"])
            grown["labels"] = np.concatenate([labels, labels[positions]])
        return grown

    def _cache_key(self, split: str, labelled: bool) -> str:
        teacher = self.fingerprint(split, "teacher") if self.settings.teacher_tokenizer else None
        label = [self.settings.label, sorted(self.labels.ids.items())] if labelled else None
        return _hash([self.fingerprint(split, "student"), teacher, label])[:40]

    def _report_truncated(self, rows: Dataset, split: str, where: str) -> None:
        cut = int(np.sum(rows.data.column("truncated").to_numpy()))
        if cut:
            rank_zero_warn(
                f"{cut:,} of {len(rows):,} {split} rows ({where}) are longer than "
                f"max_length={self.settings.max_length} tokens and were cut."
            )


def _report_empty(empty: npt.NDArray[np.int64], count: int, text: list[str], where: str) -> None:
    if len(empty):
        rank_zero_warn(
            f"{len(empty):,} of {count:,} rows of {where} are left out because {' or '.join(text)} is empty, "
            f"the first of them row {empty[0]} (counted from 0)."
        )


def _hash(facts: object) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
