"""The quality of a model folder on a split: what the saved weights do, not what training logged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torchmetrics import MetricCollection

from lit_compress.benchmark.folders import local_folder
from lit_compress.capture import model_inputs
from lit_compress.models.checkpoint import load

if TYPE_CHECKING:
    from lit_compress.modules.tasks import Task


@torch.inference_mode()
def evaluate(
    folder: str,
    datamodule: Any,
    split: str,
    task: Task,
    device: str | torch.device = "cpu",
    side: str = "student",
    batch_size: int = 64,
) -> dict[str, Any]:
    """Return the main metric of a model folder on one split, computed in float32.

    Args:
        folder: Model folder, hub name or ``package:NAME``.
        datamodule: Data module with ``sequential_dataloader`` and ``num_labels``.
        split: ``"train"``, ``"validation"`` or ``"test"``.
        task: Gives the metrics and names the main one.
        device: Where to compute.
        side: ``"teacher"`` takes the teacher's own tokens where the data has them.
        batch_size: Rows per batch.

    Returns:
        ``metric``, ``split``, ``value``, ``n`` rows and ``higher_is_better``.

    Raises:
        ValueError: The model has another number of outputs than the data has labels.
    """
    model = load(str(local_folder(folder)))
    nn.Module.to(model, device=torch.device(device), dtype=torch.float32)
    if model.config.num_labels != datamodule.num_labels:
        raise ValueError(
            f"Expected a model with {datamodule.num_labels} outputs, as the data has labels, but "
            f"{folder} has {model.config.num_labels}; give a model that was fine-tuned on it."
        )
    metrics: MetricCollection = task.metrics(datamodule.num_labels).to(device)
    for metric in metrics.values():
        # One process evaluates; the others of a distributed run would not answer.
        metric.distributed_available_fn = lambda: False
    prefix = "teacher_" if side == "teacher" else ""
    rows = 0
    for batch in datamodule.sequential_dataloader(split, batch_size):
        inputs = {name: tensor.to(device) for name, tensor in model_inputs(model, batch, prefix).items()}
        metrics.update(model(**inputs).logits, batch["labels"].to(device))
        rows += len(batch["labels"])
    return {
        "metric": task.monitor,
        "split": split,
        "value": float(metrics.compute()[task.monitor]),
        "n": rows,
        "higher_is_better": metrics[task.monitor].higher_is_better is not False,
    }
