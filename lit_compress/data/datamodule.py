"""The data module of text classification, pairs and regression."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from datasets import Dataset
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from lit_compress.data.augment import Augmentation
from lit_compress.data.cache import cache_folder
from lit_compress.data.collate import Collate
from lit_compress.data.loader import ResumableDataLoader
from lit_compress.data.prepared import PreparedText, TextSettings
from lit_compress.data.sampler import BucketSampler, EverySampler, by_length, by_length_shuffled
from lit_compress.data.source import TextSource
from lit_compress.data.tokens import TokenRows, token_columns

IntArray = npt.NDArray[np.int64]
_SPLITS_OF = {"fit": ("train", "validation"), "validate": ("validation",), "test": ("test",)}


class TextClassificationDataModule(LightningDataModule):
    """Labelled texts or text pairs as padded batches.

    Batches hold ``input_ids``, ``attention_mask`` and ``token_type_ids`` (if the tokenizer makes them),
    ``labels`` (int64 classes or float32 targets) and ``example_id``, the 0-based number of the row in its
    source; with a second tokenizer also ``teacher_input_ids`` and so on. Integer labels are ids 0 … n-1,
    string labels are sorted, float labels make the task a regression.

    Everything is read when it is first needed, so ``num_labels`` can be asked right after construction. Rows
    with an empty text are left out, rows longer than ``max_length`` are cut; both are counted in a warning.

    Args:
        source: Where the rows come from: ``Files``, ``Hub`` or ``Docstrings``.
        tokenizer: Tokenizer of the student: folder, hub name or ``package:NAME``.
        text: Text column, or two columns for pairs.
        label: Label column.
        labels: All classes in id order (default: found in the training split).
        teacher_tokenizer: Tokenizer of the teacher where it differs from the student's.
        max_length: Longest row in tokens, special tokens included.
        batch_size: Training rows per batch and process.
        eval_batch_size: Rows per batch elsewhere (default: twice ``batch_size``).
        bucket_pool: Pool, in batches, within which training rows are sorted by length; 0 turns that off.
        padding: Pad to the longest row of the batch, or always to ``max_length``.
        num_workers: Worker processes of each loader.
        cache_dir: Folder for tokenised data (default: below the cache of the datasets library).
        seed: Seed of the order of rows and of random choices of rows.
        limit_train: Train on this many randomly chosen rows only.
        validation_share: Share of the training rows to hold out where the source has no validation split; which rows
            does not depend on ``seed``, so that a teacher and its students hold out the same.
        augment: Perturbed copies of the training rows for the teacher to label; none where ``None``.
    """

    def __init__(
        self,
        source: TextSource,
        tokenizer: str,
        text: list[str] | str = "text",
        label: str = "label",
        labels: list[str | int] | None = None,
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
        augment: Augmentation | None = None,
    ) -> None:
        super().__init__()
        self.source = source
        self.batch_size = batch_size
        self.eval_batch_size = 2 * batch_size if eval_batch_size is None else eval_batch_size
        self.bucket_pool, self.padding = bucket_pool, padding
        self.num_workers, self.seed = num_workers, seed
        settings = TextSettings(
            text=(text,) if isinstance(text, str) else tuple(text),
            label=label,
            labels=labels,
            tokenizer=tokenizer,
            teacher_tokenizer=teacher_tokenizer,
            max_length=max_length,
            limit_train=limit_train,
            validation_share=validation_share,
            seed=seed,
            cache=cache_folder(cache_dir),
            augment=augment,
        )
        _check_columns(settings)
        self._check_numbers(settings)
        self._prepared = PreparedText(source, settings)

    @property
    def num_labels(self) -> int:
        """Number of outputs of the model: the classes, or 1 for regression."""
        return self._prepared.labels.num_labels

    @property
    def label_names(self) -> list[str] | None:
        """Class names in id order; None for regression."""
        return self._prepared.labels.names

    @property
    def is_regression(self) -> bool:
        """Whether the labels are float targets."""
        return self._prepared.labels.names is None

    @property
    def tokenizer_object(self) -> PreTrainedTokenizerBase:
        """The tokenizer of the student."""
        return self._prepared.student_tokenizer

    @property
    def teacher_tokenizer_object(self) -> PreTrainedTokenizerBase | None:
        """The tokenizer of the teacher, or None where it is the student's."""
        return self._prepared.teacher_tokenizer

    def has_split(self, split: str) -> bool:
        """Whether there are rows for ``train``, ``validation`` or ``test``."""
        return self._prepared.has_split(split)

    def fingerprint(self, split: str, side: Literal["student", "teacher"] = "student") -> str:
        """Return a hash of the rows of a split as one model sees them: data, tokenizer and length.

        Args:
            split: ``train``, ``validation`` or ``test``.
            side: Whose tokenizer counts.

        Returns:
            64 hexadecimal digits.
        """
        return self._prepared.fingerprint(split, side)

    def rows(self, split: str, labelled: bool = True) -> Dataset:
        """Return the tokenised rows of a split without padding, in source order.

        Args:
            split: ``train``, ``validation`` or ``test``.
            labelled: Whether the rows need valid labels; predictions do not.

        Returns:
            Columns ``input_ids``, ``token_type_ids``, ``teacher_…``, ``labels``, ``example_id``, ``length``,
            ``truncated``.

        Raises:
            ValueError: The split is missing, or its rows are unusable; the message names row and column.
        """
        return self._prepared.rows(split, labelled)

    def texts(self, split: str) -> dict[str, list[str]]:
        """Return the texts of the rows of a split, by column, whole and in source order.

        Args:
            split: ``train``, ``validation`` or ``test``.

        Raises:
            ValueError: The split is missing, or none of its rows has text.
        """
        return self._prepared.texts(split)

    def lengths(self, split: str) -> IntArray:
        """Return the token count of every row of a split, after cutting, in the order of :meth:`rows`."""
        return np.asarray(self.rows(split).data.column("length").to_numpy(), dtype=np.int64)

    def truncated_rows(self, split: str) -> int:
        """Return how many rows of a split were cut to ``max_length``."""
        return int(self.rows(split).data.column("truncated").to_numpy().sum())

    def prepare_data(self) -> None:
        """Tokenise what the Trainer is about to read, in one process."""
        stage = self.trainer.state.fn if self.trainer is not None else "fit"
        for split in _SPLITS_OF.get(stage or "fit", ()):
            if self.has_split(split):
                self.rows(split)

    def train_dataloader(self) -> DataLoader:
        """Return shuffled, length-bucketed batches that can be resumed in the middle of an epoch."""
        sampler = BucketSampler(self.lengths("train"), self.batch_size, self.bucket_pool, self.seed)
        dataset, options = self._dataset("train", labelled=True), self._options(self.batch_size)
        return ResumableDataLoader(dataset, sampler=sampler, progress=self._progress, **options)

    def val_dataloader(self) -> DataLoader | list:
        """Return every validation row once; an empty list where a fit has no validation split."""
        fitting = self.trainer is not None and self.trainer.state.fn == "fit"
        return [] if fitting and not self.has_split("validation") else self._evaluation("validation")

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

        Also in a run of several processes: its readers (teacher cache, benchmark) work in one of them.

        Args:
            split: ``train``, ``validation`` or ``test``.
            batch_size: Rows per batch.
        """
        sampler = EverySampler(by_length(self.lengths(split)), batch_size, num_replicas=1, rank=0)
        return DataLoader(self._dataset(split, labelled=True), sampler=sampler, **self._options(batch_size))

    def _evaluation(self, split: str) -> DataLoader:
        order = by_length_shuffled(self.lengths(split), self.eval_batch_size)
        return self._every(split, order, self.eval_batch_size, labelled=True)

    def _every(self, split: str, order: IntArray, batch_size: int, labelled: bool) -> DataLoader:
        sampler = EverySampler(order, batch_size)
        return DataLoader(self._dataset(split, labelled), sampler=sampler, **self._options(batch_size))

    def _dataset(self, split: str, labelled: bool) -> TokenRows:
        tokenizers = self._prepared.tokenizers.items()
        names = [name for prefix, tokenizer in tokenizers for name in token_columns(prefix, tokenizer)]
        return TokenRows(self.rows(split, labelled), names, labelled)

    def _options(self, batch_size: int) -> dict[str, Any]:
        padding = {}
        for prefix, tokenizer in self._prepared.tokenizers.items():
            values = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
            for name in token_columns(prefix, tokenizer):
                padding[name] = values[name.removeprefix(prefix)]
        width = self._prepared.settings.max_length if self.padding == "max_length" else None
        return {
            "batch_size": batch_size,
            "collate_fn": Collate(padding, width),
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": torch.cuda.is_available(),
            # Without its own generator every pass of a loader draws from the global one.
            "generator": torch.Generator().manual_seed(self.seed),
        }

    def _progress(self) -> tuple[int, int] | None:
        """Return (epoch, batches of it that are trained on) where a Trainer is fitting."""
        if self.trainer is None or self.trainer.state.fn != "fit":
            return None
        batches = self.trainer.fit_loop.epoch_loop.batch_progress.current
        return self.trainer.current_epoch, batches.processed  # type: ignore[attr-defined]

    def _check_numbers(self, settings: TextSettings) -> None:
        least = {
            "batch_size": (self.batch_size, 1),
            "eval_batch_size": (self.eval_batch_size, 1),
            "bucket_pool": (self.bucket_pool, 0),
            "num_workers": (self.num_workers, 0),
            "seed": (self.seed, 0),
            "limit_train": (settings.limit_train, 1),
            # [CLS] a [SEP] b [SEP]
            "max_length": (settings.max_length, 5),
        }
        for name, (value, minimum) in least.items():
            if value is not None and value < minimum:
                raise ValueError(f"Expected data.{name} >= {minimum} but got {value}.")
        share = settings.validation_share
        if share is not None and not 0 < share < 1:
            raise ValueError(
                f"Expected 0 < data.validation_share < 1 but got {share}; 0.1 holds out a tenth of the rows."
            )
        if self.padding not in ("longest", "max_length"):
            raise ValueError(f"Expected data.padding 'longest' or 'max_length' but got {self.padding!r}.")


def _check_columns(settings: TextSettings) -> None:
    text = settings.text
    if len(text) not in (1, 2) or len(set(text)) != len(text):
        raise ValueError(
            f"Expected one text column, or two different ones for pairs, but got {list(text)}; set data.text."
        )
    if settings.label in text:
        raise ValueError(
            f"Expected a label column beside the text but got {settings.label!r} as both; set data.label."
        )
