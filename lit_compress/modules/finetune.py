"""Plain fine-tuning: the way teachers are made, and the baseline that distillation has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lit_compress.capture import model_inputs
from lit_compress.models.student import StudentFactory
from lit_compress.modules.base import CompressionModule, unsaveable_arguments
from lit_compress.modules.optim import LRSchedule, OptimizerFactory
from lit_compress.modules.tasks import Task
from lit_compress.objectives import HardLabels
from lit_compress.outputs import Outputs


class FineTuning(CompressionModule):
    """Train a model on hard labels.

    Args:
        student: The model to train: a factory such as ``Pretrained`` or ``LayerSubset``, or a module.
        task: What to predict and how to judge it; ``Classification`` where ``None``.
        optimizer: Optimizer factory; ``AdamW`` where ``None``.
        schedule: Learning-rate schedule; ``WarmupLinear`` where ``None``.
        num_labels: Outputs of the model; taken from the data where ``None``.
        label_names: Names of the labels; taken from the data where ``None``.
        freeze: Parts of the student's parameter names that are not trained, such as ``word_embeddings``.
        baseline: Folder or hub name of the model that the benchmark compares with, if any.
        method: Name of the method in the results table.
        recipe: Name of the recipe in the results table.
    """

    def __init__(
        self,
        student: StudentFactory | nn.Module,
        task: Task | None = None,
        optimizer: OptimizerFactory | None = None,
        schedule: LRSchedule | None = None,
        num_labels: int | None = None,
        label_names: list[str] | None = None,
        freeze: list[str] | None = None,
        baseline: str | None = None,
        method: str = "fine-tuning",
        recipe: str | None = None,
    ) -> None:
        arguments = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__(student, task, optimizer, schedule, num_labels, label_names, freeze, method, recipe)
        self.save_hyperparameters(ignore=unsaveable_arguments(arguments))
        self.teacher_source = baseline
        self.objective = HardLabels()

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        """Return the loss on the labels."""
        assert self.student is not None
        logits = self.student(**model_inputs(self.student, batch)).logits
        loss = self.objective(Outputs(logits=logits), Outputs(), batch)
        self.log("train/loss", loss.detach(), prog_bar=True)
        return loss
