"""The data module of text classification, pairs and regression."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Literal

import datasets.config
import numpy as np
import numpy.typing as npt
import torch
from datasets import ClassLabel, Dataset
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from lit_compress.data.collate import Collate
from lit_compress.data.labels import Column, LabelSet, infer_labels
from lit_compress.data.loader import ResumableDataLoader
from lit_compress.data.sampler import BucketSampler, EverySampler, by_length, by_length_shuffled
from lit_compress.data.source import SPLITS, TextSource
from lit_compress.data.texts import require_columns, rows_with_text
from lit_compress.data.tokenizer import load_tokenizer, tokenizer_fingerprint
from lit_compress.data.tokens import TokenRows, token_columns, tokenize

IntArray = npt.NDArray[np.int64]


class TextClassificationDataModule(LightningDataModule):
    """Labelled texts or text pairs as padded batches.

    Batches hold ``input_ids``, ``attention_mask``, ``token_type_ids`` (if the tokenizer makes them), ``labels``
    (int64 classes or float32 targets) and ``example_id``, the 0-based number of the row in its source; with a
    second tokenizer also ``teacher_input_ids`` and so on. Integer labels are ids 0 … n-1, string labels are
    sorted, float labels make the task a regression.

    Everything is read when it is first needed, so ``num_labels`` can be asked right after construction.

    Args:
        source: Where the rows come from: ``Files``, ``Hub`` or ``Docstrings``.
        tokenizer: Tokenizer of the student: folder, hub name or ``package:NAME``.
        text: Text column, or two columns for pairs.
        label: Label column.
        labels: All classes in id order (default: found in the training split).
        teacher_tokenizer: Tokenizer of the teacher where it differs from the student's.
        max_length: Longest row in tokens; longer rows are cut, counted and reported.
        batch_size: Training rows per batch and process.
        eval_batch_size: Rows per batch elsewhere (default: twice ``batch_size``).
        bucket_pool: Pool, in batches, within which training rows are sorted by length; 0 turns that off.
        padding: Pad to the longest row of the batch, or always to ``max_length``.
        num_workers: Worker processes of each loader.
        cache_dir: Folder for tokenised data (default: below the cache of the datasets library).
        seed: Seed of the order of rows and of random choices of rows.
        limit_train: Train on this many randomly chosen rows only.
        validation_share: Share of the training rows to hold out where the source has no validation split.
    """

    def __init__(
        self,
        source: TextSource,
        tokenizer: str,
        text: list[str] | str = "text",
        label: str = "label",
        labels: list[str] | None = None,
        teacher_tokenizer: str | None = None,
        max_length: int = 128,
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        bucket_pool: int = 50,
        padding: Literal["longest", "max_length"] = "longest",
        num_workers: int = 0,
        cache_dir: str | None = None,
        seed: int = 0,
        limit_train: int | None = None,
        validation_share: float | None = None,
    ) -> None:
        super().__init__()
        self.source = source
        self.tokenizer, self.teacher_tokenizer = tokenizer, teacher_tokenizer
        self.text = [text] if isinstance(text, str) else list(text)
        self.label, self.labels = label, labels
        self.max_length, self.padding = max_length, padding
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size or 2 * batch_size
        self.bucket_pool, self.num_workers, self.seed = bucket_pool, num_workers, seed
        self.limit_train, self.validation_share = limit_train, validation_share
        self.cache = Path(cache_dir or Path(datasets.config.HF_DATASETS_CACHE) / "lit_compress").expanduser()
        self._check_options()
        self._raw: dict[str, Dataset | None] = {}
        self._rows: dict[tuple[str, bool], Dataset] = {}

    # ---- what the rows are -------------------------------------------------------------------------------

    @property
    def num_labels(self) -> int:
        """Number of outputs of the model: the classes, or 1 for regression."""
        return self._label_set.num_labels

    @property
    def label_names(self) -> list[str] | None:
        """Class names in id order; None for regression."""
        return self._label_set.names

    @property
    def is_regression(self) -> bool:
        """Whether the labels are float targets."""
        return self._label_set.names is None

    @cached_property
    def tokenizer_object(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the student."""
        return load_tokenizer(self.tokenizer, self.max_length, "data.tokenizer")

    @cached_property
    def teacher_tokenizer_object(self) -> PreTrainedTokenizerBase | None:
        """The tokenizer of the teacher, or None where it is the student's."""
        if self.teacher_tokenizer is None:
            return None
        return load_tokenizer(self.teacher_tokenizer, self.max_length, "data.teacher_tokenizer")

    def has_split(self, split: str) -> bool:
        """Whether there are rows for ``train``, ``validation`` or ``test``."""
        return self._read(self._stored_split(split)) is not None

    def fingerprint(self, split: str, side: Literal["student", "teacher"] = "student") -> str:
        """Return a hash of the rows of a split as one model sees them: data, tokenizer and length.

        Args:
            split: ``train``, ``validation`` or ``test``.
            side: Whose tokenizer counts.

        Returns:
            64 hexadecimal digits.
        """
        tokenizer = self.tokenizer_object
        if side == "teacher" and self.teacher_tokenizer_object is not None:
            tokenizer = self.teacher_tokenizer_object
        stored = self._stored_split(split)
        facts = [
            self.source.fingerprint(stored),
            self.text,
            tokenizer_fingerprint(tokenizer),
            self.max_length,
            self._choice(split),
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def rows(self, split: str, labelled: bool = True) -> Dataset:
        """Return the tokenised rows of a split without padding.

        Args:
            split: ``train``, ``validation`` or ``test``.
            labelled: Whether the rows need valid labels; predictions do not.

        Returns:
            Columns ``input_ids``, ``token_type_ids``, ``teacher_…``, ``labels``, ``example_id``, ``length`` and
            ``truncated``.

        Raises:
            ValueError: The split is missing, or its rows are unusable; the message names row and column.
        """
        key = (split, labelled)
        if key not in self._rows:
            self._rows[key] = self._prepare(split, labelled)
        return self._rows[key]

    def lengths(self, split: str) -> IntArray:
        """Return the token count of every row of a split, after cutting, in the order of :meth:`rows`."""
        return np.asarray(self.rows(split).data.column("length").to_numpy(), dtype=np.int64)

    def truncated_rows(self, split: str) -> int:
        """Return how many rows of a split were cut to ``max_length``."""
        return int(self.rows(split).data.column("truncated").to_numpy().sum())

    # ---- Lightning ---------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Tokenise the splits that a fit needs, in one process."""
        for split in ("train", "validation"):
            if self.has_split(split):
                self.rows(split)

    def train_dataloader(self) -> DataLoader:
        """Return shuffled, length-bucketed batches that can be resumed in the middle of an epoch."""
        sampler = BucketSampler(self.lengths("train"), self.batch_size, self.bucket_pool, self.seed)
        return ResumableDataLoader(
            self._dataset("train", labelled=True),
            sampler=sampler,
            finished=self._finished_batches,
            **self._options(self.batch_size),
        )

    def val_dataloader(self) -> DataLoader | list:
        """Return every validation row once; an empty list where a fit has no validation split."""
        if not self.has_split("validation") and self.trainer is not None and self.trainer.state.fn == "fit":
            return []
        return self._evaluation("validation")

    def test_dataloader(self) -> DataLoader:
        """Return every test row once."""
        return self._evaluation("test")

    def predict_dataloader(self) -> DataLoader:
        """Return the test rows (validation where there is no test split), without labels, in source order."""
        split = "test" if self.has_split("test") else "validation"
        order = np.arange(len(self.rows(split, labelled=False)))
        return self._every(split, order, self.eval_batch_size, labelled=False)

    def sequential_dataloader(self, split: str, batch_size: int) -> DataLoader:
        """Return every row of a split exactly once, from short to long.

        Args:
            split: ``train``, ``validation`` or ``test``.
            batch_size: Rows per batch.
        """
        return self._every(split, by_length(self.lengths(split)), batch_size, labelled=True)

    # ---- inside ------------------------------------------------------------------------------------------

    def _check_options(self) -> None:
        if not 1 <= len(self.text) <= 2 or len(set(self.text)) != len(self.text):
            raise ValueError(
                f"Expected one text column or two different ones in data.text but got {self.text}."
            )
        if self.label in self.text:
            raise ValueError(
                f"Expected a label column beside the text but got {self.label!r} as both; set data.label."
            )
        positive = {"batch_size": self.batch_size, "eval_batch_size": self.eval_batch_size}
        positive |= {"limit_train": 1 if self.limit_train is None else self.limit_train}
        for name, value in positive.items():
            if value < 1:
                raise ValueError(f"Expected data.{name} >= 1 but got {value}.")
        if self.max_length < 4:
            raise ValueError(f"Expected data.max_length >= 4 (room for text) but got {self.max_length}.")
        if self.bucket_pool < 0 or self.num_workers < 0:
            raise ValueError(
                f"Expected data.bucket_pool >= 0 and data.num_workers >= 0 but got {self.bucket_pool} "
                f"and {self.num_workers}."
            )
        if self.validation_share is not None and not 0 < self.validation_share < 1:
            raise ValueError(
                f"Expected 0 < data.validation_share < 1 but got {self.validation_share}; 0.1 holds out a tenth."
            )

    def _read(self, stored: str) -> Dataset | None:
        if stored not in self._raw:
            self._raw[stored] = self.source.load(stored)
        return self._raw[stored]

    def _stored_split(self, split: str) -> str:
        """Return the split of the source that the rows of ``split`` are stored in."""
        if split not in SPLITS:
            raise ValueError(f"Expected a split among {', '.join(SPLITS)} but got {split!r}.")
        if self.validation_share is None:
            return split
        if self._read("validation") is not None:
            raise ValueError(
                "Expected no validation split in the source together with data.validation_share but got "
                f"{self.source.describe('validation')}; remove one of the two."
            )
        return "train" if split == "validation" else split

    def _choice(self, split: str) -> list[float | int | str | None]:
        """Describe which rows of the stored split are used."""
        limit = self.limit_train if split == "train" else None
        share = self.validation_share if split != "test" else None
        chosen = limit is not None or share is not None
        return [split if share else None, share, limit, self.seed if chosen else None]

    def _chosen_rows(self, split: str, count: int) -> IntArray:
        _, share, limit, _ = self._choice(split)
        order = np.random.default_rng(self.seed).permutation(count)
        if share is not None:
            held = max(1, round(float(share) * count))
            order = order[:held] if split == "validation" else order[held:]
        return np.sort(order[: None if limit is None else int(limit)])

    @cached_property
    def _label_set(self) -> LabelSet:
        split = next((name for name in SPLITS if self._read(name) is not None), None)
        if split is None:
            raise ValueError("Expected at least one split in the source but got none.")
        data, where = self._read(split), self.source.describe(split)
        assert data is not None
        require_columns(data, [*self.text, self.label], where)
        filled = rows_with_text(data, self.text, where)
        column = self._column(data, filled, where)
        feature = data.features[self.label]
        stored = list(feature.names) if isinstance(feature, ClassLabel) else None
        found = infer_labels(column, self.labels, stored)
        if split != "train" and found.names is not None and self.labels is None:
            raise ValueError(
                f"Expected a train split to find the classes in, but {where} is all there is; "
                "give all classes in data.labels, in the order the model was trained with."
            )
        return found

    def _column(self, data: Dataset, rows: IntArray, where: str) -> Column:
        values = data.data.column(self.label).take(rows).to_pylist()
        return Column(values, rows, where, self.label)

    def _prepare(self, split: str, labelled: bool) -> Dataset:
        stored = self._stored_split(split)
        path = self.cache / f"{self._cache_key(split, labelled)}.arrow"
        if path.is_file():
            return Dataset.from_file(str(path))
        data, where = self._read(stored), self.source.describe(stored)
        if data is None:
            raise ValueError(
                f"Expected a {split} split but the source has none; set source.{split}"
                f"{', or data.validation_share' if split == 'validation' else ''}."
            )
        require_columns(data, [*self.text, self.label] if labelled else self.text, where)
        filled = rows_with_text(data, self.text, where)
        if len(filled) < len(data):
            rank_zero_warn(
                f"{len(data) - len(filled):,} of {len(data):,} rows of {where} are left out because "
                f"{' or '.join(self.text)} is empty, the first of them row "
                f"{np.setdiff1d(np.arange(len(data)), filled)[0]} (counted from 0)."
            )
        rows = np.intersect1d(filled, self._chosen_rows(split, len(data)), assume_unique=True)
        columns = {name: data.data.column(name).take(rows).to_pylist() for name in self.text}
        columns |= {"example_id": rows}
        if labelled:
            columns["labels"] = self._label_set.encode(self._column(data, rows, where))
        tokenised = tokenize(
            Dataset.from_dict(columns),
            self.text,
            self._tokenizers(),
            self.max_length,
            path,
            f"Tokenising {split}",
        )
        self._report_truncation(tokenised, split, where)
        return tokenised

    def _report_truncation(self, rows: Dataset, split: str, where: str) -> None:
        cut = int(np.sum(rows.data.column("truncated").to_numpy()))
        if cut:
            rank_zero_info(
                f"{cut:,} of {len(rows):,} {split} rows ({where}) are longer than max_length={self.max_length} "
                "tokens and were cut."
            )

    def _cache_key(self, split: str, labelled: bool) -> str:
        teacher = self.fingerprint(split, "teacher") if self.teacher_tokenizer else None
        label = [self.label, sorted(self._label_set.ids.items(), key=str)] if labelled else None
        facts = [1, self.fingerprint(split), teacher, label]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:40]

    def _tokenizers(self) -> dict[str, PreTrainedTokenizerBase]:
        teacher = self.teacher_tokenizer_object
        return {"": self.tokenizer_object} | ({"teacher_": teacher} if teacher is not None else {})

    def _dataset(self, split: str, labelled: bool) -> TokenRows:
        names = [
            n for prefix, tokenizer in self._tokenizers().items() for n in token_columns(prefix, tokenizer)
        ]
        return TokenRows(self.rows(split, labelled), names, labelled)

    def _options(self, batch_size: int) -> dict:
        padding = {}
        for prefix, tokenizer in self._tokenizers().items():
            values = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
            for name in token_columns(prefix, tokenizer):
                padding[name] = values[name.removeprefix(prefix)]
        width = self.max_length if self.padding == "max_length" else None
        return {
            "batch_size": batch_size,
            "collate_fn": Collate(padding, width),
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
            # Without its own generator every pass of a loader draws from the global one.
            "generator": torch.Generator().manual_seed(self.seed),
        }

    def _evaluation(self, split: str) -> DataLoader:
        order = by_length_shuffled(self.lengths(split), self.eval_batch_size)
        return self._every(split, order, self.eval_batch_size, labelled=True)

    def _every(self, split: str, order: IntArray, batch_size: int, labelled: bool) -> DataLoader:
        sampler = EverySampler(order, batch_size)
        return DataLoader(self._dataset(split, labelled), sampler=sampler, **self._options(batch_size))

    def _finished_batches(self) -> int | None:
        """Return the batches of this epoch that the Trainer has finished, where one is fitting."""
        if self.trainer is None or self.trainer.state.fn != "fit":
            return None
        return self.trainer.fit_loop.epoch_loop.batch_progress.current.processed
