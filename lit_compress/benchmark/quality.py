"""The quality of a model as it was measured: its own artefact, in its own runtime and process."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torchmetrics import MetricCollection

from lit_compress.benchmark.protocol import typical_rows
from lit_compress.benchmark.runtimes.base import Batch

if TYPE_CHECKING:
    from lit_compress.modules.tasks import Task

_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_BATCH_SIZE = 64
#: Float32 metrics: 18 of 20 rows correct must be "at least 0.9".
ROUNDING = 1e-6


def check_share(quality: float) -> None:
    """Refuse what is no share of a quality.

    Args:
        quality: The value of ``--quality``.

    Raises:
        ValueError: It is not above 0, or above 1.
    """
    if not 0 < quality <= 1:
        raise ValueError(
            "Expected --quality to be the share of the original's own quality to keep, above 0 and at most 1, "
            f"but got {quality:g}; percentages are written as fractions, such as 0.98."
        )


@dataclass(frozen=True)
class Texts:
    """The labelled texts of a split: what lengths are taken from and quality is evaluated on.

    Args:
        datamodule: Data module with ``sequential_dataloader``, ``rows``, ``lengths`` and ``num_labels``.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        task: Gives the metrics and names the main one.
        known: What was evaluated before, by model, runtime and device: a baseline of many sessions is judged once.
    """

    datamodule: Any
    split: str
    task: Task
    known: dict[tuple[Any, ...], dict[str, Any]] = field(default_factory=dict, compare=False)

    def lengths(self) -> tuple[int, ...]:
        """Return the token lengths of typical texts, see ``typical_rows``."""
        lengths = self.datamodule.lengths(self.split)
        return tuple(int(lengths[row]) for row in typical_rows(lengths))

    def teacher_lengths(self) -> tuple[int, ...] | None:
        """Return the lengths of the same texts in the teacher's own tokens, ``None`` where it has none."""
        rows = self.datamodule.rows(self.split)
        if "teacher_input_ids" not in rows.column_names:
            return None
        chosen = rows.select(typical_rows(self.datamodule.lengths(self.split)))
        return tuple(len(tokens) for tokens in chosen["teacher_input_ids"])

    def describe(self) -> str:
        """Return the split with the fingerprint of its tokens, which is the same wherever the data lie."""
        return f"{self.split} {self.datamodule.fingerprint(self.split)[:12]}"

    def samples(self, side: str, count: int = 128, seed: int | None = None) -> list[Batch]:
        """Return typical training texts, one batch each, for runtimes that are calibrated.

        Args:
            side: ``"teacher"`` takes the teacher's own tokens where the data has them.
            count: How many, from short to long; all where there are fewer.
            seed: Draws them at random instead.

        Raises:
            ValueError: There is no training split.
        """
        data = self.datamodule
        if not data.has_split("train"):
            raise ValueError(
                "Expected a train split to calibrate a runtime with but the data has none; name its train file."
            )
        lengths = data.lengths("train")
        chosen: Sequence[int] = (
            typical_rows(lengths, min(count, len(lengths)))
            if seed is None
            else np.random.default_rng(seed).permutation(len(lengths))[:count].tolist()
        )
        rows = data.rows("train").select(chosen)
        prefix = "teacher_" if side == "teacher" and "teacher_input_ids" in rows.column_names else ""
        names = [name for name in _INPUTS if prefix + name in rows.column_names]
        samples = [{name: np.asarray([row[prefix + name]], dtype=np.int64) for name in names} for row in rows]
        return [{**sample, "attention_mask": np.ones_like(sample["input_ids"])} for sample in samples]

    def batches(self, side: str) -> Iterator[tuple[Batch, torch.Tensor]]:
        """Return every row once as token batches with their labels.

        Args:
            side: ``"teacher"`` takes the teacher's own tokens where the data has them.
        """
        for batch in self.datamodule.sequential_dataloader(self.split, _BATCH_SIZE):
            prefix = "teacher_" if side == "teacher" and "teacher_input_ids" in batch else ""
            inputs = {name: batch[prefix + name].numpy() for name in _INPUTS if prefix + name in batch}
            yield inputs, batch["labels"]


def evaluate(
    predict: Callable[[Batch], npt.NDArray[np.float32]], texts: Texts, side: str = "student"
) -> dict[str, Any]:
    """Return the main metric of a model on all texts.

    Args:
        predict: Returns the logits of a batch in float32.
        texts: The texts.
        side: Whose tokens the model reads.

    Returns:
        ``metric``, ``split``, ``value``, ``n`` rows and ``higher_is_better``.

    Raises:
        ValueError: The model has another number of outputs than the data has labels, or its metric is no number.
    """
    task, metrics = texts.task, _metrics(texts)
    rows = 0
    for batch, targets in texts.batches(side):
        _update(metrics, texts, predict(batch), targets)
        rows += len(targets)
    value = float(metrics.compute()[task.monitor])
    if not math.isfinite(value):
        raise ValueError(
            f"Expected the {task.monitor} of {rows} {texts.split} rows to be a number but it is {value}: the scores of "
            "the model are no numbers, or all alike; look at what it predicts"
        )
    return {
        "metric": task.monitor,
        "split": texts.split,
        "value": value,
        "n": rows,
        "higher_is_better": metrics[task.monitor].higher_is_better is not False,
    }


def score(logits: npt.NDArray[np.float32], targets: torch.Tensor, texts: Texts) -> float:
    """Return the main metric of some logits.

    Args:
        logits: ``(rows, outputs)``.
        targets: Labels of these rows.
        texts: The texts that they are of.

    Raises:
        ValueError: The model has another number of outputs than the data has labels.
    """
    metrics = _metrics(texts)
    _update(metrics, texts, logits, targets)
    return float(metrics.compute()[texts.task.monitor])


def _metrics(texts: Texts) -> MetricCollection:
    metrics: MetricCollection = texts.task.metrics(texts.datamodule.num_labels)
    for metric in metrics.values():
        # One process evaluates; the others of a distributed run would not answer.
        metric.distributed_available_fn = lambda: False
    return metrics


def _update(
    metrics: MetricCollection, texts: Texts, logits: npt.NDArray[np.float32], targets: torch.Tensor
) -> None:
    labels = texts.datamodule.num_labels
    if logits.shape[1] != labels:
        raise ValueError(
            f"Expected a model with {labels} outputs, as the data has labels, but it has "
            f"{logits.shape[1]}; give a model that was fine-tuned on these data."
        )
    metrics.update(torch.from_numpy(logits), targets)
