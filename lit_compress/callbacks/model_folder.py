"""Ends every fit in a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn
from transformers import PreTrainedModel

from lit_compress.benchmark.protocol import BASELINE_RUNTIME
from lit_compress.benchmark.results import FILE_NAME, read_results
from lit_compress.callbacks.benchmark import Benchmark
from lit_compress.callbacks.checkpoint import unsettled
from lit_compress.callbacks.student import deployable, student_from_checkpoint
from lit_compress.callbacks.transform import TransformCallback, rounding_of
from lit_compress.dashboard.artifacts import log_artifacts
from lit_compress.dashboard.pictures import log_maps
from lit_compress.models.card import model_card
from lit_compress.models.checkpoint import check_place, save_folder
from lit_compress.models.transforms import transforms_of
from lit_compress.pruning.achieved import achieved_speedup
from lit_compress.pruning.summary import kept_units, pruning_facts


class ModelFolder(pl.Callback):
    """Write the best checkpoint as a model folder: weights, config, tokenizer, card and manifest.

    Loggers of Weights & Biases get the folder and ``results.jsonl`` as artifacts.

    Args:
        folder: Where to write it; ``<default_root_dir>/model`` where ``None``.
        enabled: Whether to write it at all.
    """

    def __init__(self, folder: str | None = None, enabled: bool = True) -> None:
        self.folder = folder
        self.enabled = enabled

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Move behind the benchmark, whose figures belong on the card."""
        callbacks = list(trainer.callbacks)  # type: ignore[attr-defined]
        behind = [i for i, c in enumerate(callbacks) if isinstance(c, Benchmark)]
        if behind and callbacks.index(self) < behind[-1]:
            callbacks.remove(self)
            callbacks.insert(behind[-1], self)
            # A new list: Lightning is iterating over the old one, and would skip the next callback.
            trainer.callbacks = callbacks  # type: ignore[attr-defined]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse what could only fail after hours of training."""
        if not self.enabled:
            return
        student = getattr(pl_module, "student", None)
        if not isinstance(student, PreTrainedModel):
            raise ValueError(
                f"Expected a module with a transformers model as 'student' but {type(pl_module).__name__} has "
                f"{type(student).__name__}; leave the ModelFolder callback out."
            )
        check_place(self._path(trainer))

    def _path(self, trainer: pl.Trainer) -> Path:
        return Path(self.folder or Path(trainer.default_root_dir) / "model")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the folder."""
        if not self.enabled or not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        path = self._path(trainer)
        checkpoint = getattr(trainer.checkpoint_callback, "best_model_path", "") or None
        student: Any = pl_module.student
        step = rounding_of(trainer)
        model = (
            student_from_checkpoint(student, checkpoint, step) if checkpoint else deployable(student, step)
        )
        if checkpoint is None:
            _warn_of_unsettled(trainer, pl_module)
        facts = run_facts(trainer, pl_module, checkpoint)
        facts |= compression_facts(trainer, student, model)
        data = getattr(trainer, "datamodule", None)
        card = model_card({**facts, "ragged": bool(transforms_of(model))})
        save_folder(path, model, getattr(data, "tokenizer_object", None), facts, card)
        run_dir = Path(trainer.default_root_dir)
        log_artifacts(trainer.loggers, facts["recipe"] or run_dir.name, path, run_dir / FILE_NAME, facts)
        log_maps(trainer.loggers, run_dir.name, kept_units(model), trainer.global_step)
        rank_zero_info(f"Model folder: {path}")


def _warn_of_unsettled(trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
    """Say what is missing where the fit was stopped before a checkpoint could be the best one."""
    for callback in unsettled(trainer, pl_module):
        rank_zero_warn(
            f"The fit ended early: {callback.aim} by {type(callback).__name__}, and the model folder holds the weights "
            "of the last step; go on with --ckpt_path last, or lower the point."
        )


def run_facts(trainer: pl.Trainer, pl_module: Any, checkpoint: str | None) -> dict[str, Any]:
    """Return what the manifest and the card tell about the run, as plain JSON data."""
    data = getattr(trainer, "datamodule", None)
    facts: dict[str, Any] = {
        "method": getattr(pl_module, "method", None),
        "recipe": getattr(pl_module, "recipe", None),
        "teacher": getattr(pl_module, "teacher_source", None),
        "task": type(pl_module.task).__name__ if hasattr(pl_module, "task") else None,
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "metrics": _metrics(trainer),
    }
    if data is not None and hasattr(data, "lengths"):
        facts["data"] = data.source.describe("train")
        facts["label_names"] = data.label_names
        facts["input_lengths"] = sample_lengths(np.asarray(data.lengths("train")))
    facts["result"] = _row_of(trainer, checkpoint)
    return facts


def compression_facts(trainer: pl.Trainer, student: nn.Module, model: PreTrainedModel) -> dict[str, Any]:
    """Return ``pruning``: what is left, and each asked speed-up with the achieved one; nothing where nothing was cut.

    Args:
        trainer: The trainer, whose callbacks have the targets.
        student: The student as it was trained.
        model: What is shipped of it.
    """
    facts = pruning_facts(student, model)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        target = callback.target if isinstance(callback, TransformCallback) else None
        if target is not None and target.speedup is not None:
            facts["speedup"] = found = achieved_speedup(student, model, target)
            rank_zero_info(f"Speed-up: {found['achieved']:.2f}x achieved, {found['asked']:.2f}x asked.")
        elif target is not None:
            facts["sparsity_asked"] = target.sparsity
    return {"pruning": facts} if facts else {}


def sample_lengths(lengths: np.ndarray, count: int = 200) -> list[int]:
    """Return up to ``count`` quantiles of the token lengths, from the shortest to the longest."""
    if len(lengths) <= count:
        return sorted(int(n) for n in lengths)
    return [int(n) for n in np.quantile(lengths, np.linspace(0, 1, count), method="nearest")]


def _metrics(trainer: pl.Trainer) -> dict[str, float]:
    best = getattr(trainer.checkpoint_callback, "best_model_score", None)
    monitor = getattr(trainer.checkpoint_callback, "monitor", None)
    if best is not None and monitor:
        return {monitor: float(best)}
    return {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}


def _row_of(trainer: pl.Trainer, checkpoint: str | None) -> dict[str, Any] | None:
    """Return the row of this checkpoint; other fits in the folder, and other checkpoints, have theirs too."""
    results = Path(trainer.default_root_dir) / FILE_NAME
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    measured = any(isinstance(callback, Benchmark) and callback.at_end for callback in callbacks)
    if not measured or not results.is_file():
        return None
    try:
        rows = read_results(results)
    except ValueError as error:
        rank_zero_warn(f"The model card is written without figures: {error}")
        return None
    name = Path(checkpoint).name if checkpoint else None
    own = [row for row in rows if row["role"] == "student" and row["checkpoint"] == name]
    # The card shows what the folder holds, in eager float32 where that was measured.
    plain = [row for row in own if row["runtime"] == BASELINE_RUNTIME]
    return next(iter([*reversed(plain), *reversed(own)]), None)
