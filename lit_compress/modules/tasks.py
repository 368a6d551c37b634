"""What a model is asked to do: the metrics that judge it and the one that selects checkpoints."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    BinaryF1Score,
    MulticlassAccuracy,
    MulticlassF1Score,
    MulticlassMatthewsCorrCoef,
)
from torchmetrics.regression import MeanSquaredError, PearsonCorrCoef, SpearmanCorrCoef


class Task(ABC):
    """Metrics of a task. All metrics are updated as ``metrics.update(logits, labels)``."""

    #: Name of the metric that selects checkpoints (higher is better).
    monitor: str
    is_regression: bool

    @abstractmethod
    def metrics(self, num_labels: int) -> MetricCollection:
        """Return fresh metrics for ``num_labels`` outputs."""


class Classification(Task):
    """Single-label classification of one text or a pair.

    Reports ``accuracy`` (share of correct rows), ``f1`` (of class 1 for two classes as GLUE does,
    macro average for more) and ``mcc`` (Matthews correlation).

    Args:
        monitor: Metric that selects checkpoints: ``accuracy``, ``f1`` or ``mcc``.
    """

    is_regression = False

    def __init__(self, monitor: str = "accuracy") -> None:
        self.monitor = _checked(monitor, ("accuracy", "f1", "mcc"))

    def metrics(self, num_labels: int) -> MetricCollection:
        """Return fresh metrics for ``num_labels`` classes."""
        if num_labels < 2:
            raise ValueError(
                f"Expected at least 2 classes but got num_labels={num_labels}; use task: Regression for scores."
            )
        f1 = _PositiveF1() if num_labels == 2 else MulticlassF1Score(num_labels, average="macro")
        return MetricCollection(
            {
                "accuracy": MulticlassAccuracy(num_labels, average="micro"),
                "f1": f1,
                "mcc": MulticlassMatthewsCorrCoef(num_labels),
            },
            compute_groups=False,
        )


class Regression(Task):
    """Prediction of one score per row.

    Reports ``pearson`` and ``spearman`` correlation and ``mse``.

    Args:
        monitor: Metric that selects checkpoints: ``pearson`` or ``spearman``.
    """

    is_regression = True

    def __init__(self, monitor: str = "spearman") -> None:
        self.monitor = _checked(monitor, ("pearson", "spearman"))

    def metrics(self, num_labels: int) -> MetricCollection:
        """Return fresh metrics; ``num_labels`` must be 1."""
        if num_labels != 1:
            raise ValueError(
                f"Expected num_labels=1 for regression but got {num_labels}; use task: Classification for classes."
            )
        return MetricCollection(
            {"pearson": _Pearson(), "spearman": _Spearman(), "mse": _SquaredError()}, compute_groups=False
        )


def _checked(monitor: str, allowed: tuple[str, ...]) -> str:
    if monitor not in allowed:
        raise ValueError(f"Expected monitor to be one of {', '.join(allowed)} but got {monitor!r}.")
    return monitor


class _PositiveF1(BinaryF1Score):
    """F1 of class 1 from two logits."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add a batch of ``(batch, 2)`` logits."""
        super().update(preds.argmax(-1), target)


# Bfloat16 scores are too coarse for rank correlations, so scores are accumulated in float32.
class _Pearson(PearsonCorrCoef):
    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(preds.float().squeeze(-1), target.float())


class _Spearman(SpearmanCorrCoef):
    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(preds.float().squeeze(-1), target.float())


class _SquaredError(MeanSquaredError):
    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(preds.float().squeeze(-1), target.float())
