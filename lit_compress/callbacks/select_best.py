"""Choice of the checkpoint that a fit ends in: the cheapest one that is good enough."""

from __future__ import annotations

import difflib
import shutil
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lit_compress.benchmark.metrics import COSTS, checkpoint_metrics, variant
from lit_compress.benchmark.protocol import BASELINE_RUNTIME
from lit_compress.benchmark.selection import Choice, Floor, choose
from lit_compress.callbacks.benchmark import Benchmark
from lit_compress.report.scale import put_on_one_scale

_PREFIX = "benchmark/"


class SelectBest(pl.Callback):
    """Make the checkpoint with the lowest cost among those that are good enough the best one.

    It chooses at the end of fit, among the checkpoints that the checkpoint callback has kept, by the rows that
    :class:`Benchmark` has just taken: those were measured in turns with the same baseline, so that times can be
    compared, and their quality is that of the weights as saved. Checkpoints whose costs differ by no more than
    noise count as equally cheap; the better quality decides between them.

    The choice becomes ``best.ckpt`` beside the others and the trainer's ``best_model_path``, from which the
    model folder is written; the loggers' ``benchmark/…`` are then its figures. Where none is good enough the
    nearest one is taken and a warning says by how much it misses.

    Several checkpoints must be kept, each in a file of its own:
    ``checkpoint.save_top_k=-1`` and ``checkpoint.filename="epoch_{epoch}"``.

    Args:
        quality: The quality to reach, under the key that validation logs; the one that the benchmark evaluates.
        at_least: ``"0.98*teacher"`` for a share of the baseline's quality, or a number such as ``0.9``.
        minimise: The figure to minimise: ``benchmark/cpu/latency_ms``, ``benchmark/size_mb``,
            ``benchmark/onnx-int8/cpu/latency_ms`` and the like.

    Raises:
        ValueError: ``at_least`` is no quality, or ``minimise`` is no cost that the benchmark takes.
    """

    def __init__(
        self,
        quality: str,
        at_least: float | str,
        minimise: str = "benchmark/cpu/latency_ms",
    ) -> None:
        self.quality = quality
        self.at_least = at_least
        self.minimise = minimise
        self._floor = Floor.parse(at_least)
        self._variant, self._cost = _split(minimise)

    # -- before training ---------------------------------------------------------------------------

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse what could only fail after hours of training; take the place behind the benchmark."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        benchmark = _benchmark(trainer)
        self._check_checkpoints(trainer)
        self._check_quality(benchmark, pl_module)
        self._check_cost(benchmark)
        # All others have found their places in setup: the model folder is behind the benchmark too.
        callbacks = [c for c in trainer.callbacks if c is not self]  # type: ignore[attr-defined]
        callbacks.insert(callbacks.index(benchmark) + 1, self)
        trainer.callbacks = callbacks  # type: ignore[attr-defined]

    def _check_checkpoints(self, trainer: pl.Trainer) -> None:
        keep = trainer.checkpoint_callback
        if not isinstance(keep, ModelCheckpoint):
            raise ValueError(
                "Expected a ModelCheckpoint whose checkpoints SelectBest can choose among but got "
                f"{type(keep).__name__}; add one with save_top_k=-1."
            )
        wrong = []
        if keep.save_top_k in (0, 1):
            wrong.append(f"checkpoint.save_top_k is {keep.save_top_k}")
        if keep.filename is not None and "{" not in keep.filename:
            wrong.append(f"checkpoint.filename is '{keep.filename}'")
        if keep.monitor is None:
            wrong.append("checkpoint.monitor is not set")
        if wrong:
            raise ValueError(
                "Expected several kept checkpoints, each in a file of its own, for SelectBest to choose among but "
                f"{' and '.join(wrong)}; set checkpoint.save_top_k=-1 (or how many to keep), "
                f"checkpoint.filename='epoch_{{epoch}}' and checkpoint.monitor={self.quality}."
            )

    def _check_quality(self, benchmark: Benchmark, pl_module: Any) -> None:
        task = getattr(pl_module, "task", None)
        stage = "val" if benchmark.split == "validation" else benchmark.split
        measured = f"{stage}/{getattr(task, 'monitor', None)}"
        if self.quality != measured:
            raise ValueError(
                f"Expected quality of SelectBest to be {measured}, the quality that the benchmark evaluates, but got "
                f"{self.quality!r}; change it, or the task's monitor, or benchmark.split."
            )
        baseline = benchmark.baseline or getattr(pl_module, "teacher_source", None)
        if self._floor.of_teacher and baseline is None:
            raise ValueError(
                f"Expected a teacher for at_least={self.at_least!r} but {type(pl_module).__name__} has none and "
                "benchmark.baseline is not set; set it to the teacher's model folder, or give at_least as a number."
            )

    def _check_cost(self, benchmark: Benchmark) -> None:
        if self._cost.startswith("gpu/") and not torch.cuda.is_available():
            raise ValueError(
                f"Expected a GPU for minimise={self.minimise!r} but there is none here; minimise "
                f"{self.minimise.replace('gpu/', 'cpu/')} instead."
            )
        wanted = self._variant.rstrip("/") or BASELINE_RUNTIME
        if wanted not in benchmark.runtimes:
            raise ValueError(
                f"Expected minimise={self.minimise!r} to name a runtime that the benchmark measures, one of "
                f"{', '.join(benchmark.runtimes)}; add {wanted!r} to benchmark.runtimes, or correct it."
            )

    # -- after training ----------------------------------------------------------------------------

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Choose, say which and why, and make it the best checkpoint."""
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        chosen = self._choose(trainer) if trainer.is_global_zero else None
        # All processes must agree on what `best` is.
        path = trainer.strategy.broadcast(chosen)
        keep: Any = trainer.checkpoint_callback
        if path and path in keep.best_k_models:
            keep.best_model_path = path
            keep.best_model_score = keep.best_k_models[path]

    def _choose(self, trainer: pl.Trainer) -> str | None:
        """Return the path of the chosen checkpoint, after everything that one process does with it."""
        keep: Any = trainer.checkpoint_callback
        paths = {Path(path).name: path for path in keep.best_k_models}
        rows = put_on_one_scale(_benchmark(trainer).rows)
        choice = self._decide(rows, paths)
        if choice.qualifies:
            rank_zero_info(f"SelectBest: {choice.reason}")
        else:
            kept = paths.get(choice.row["checkpoint"]) if choice.row else keep.best_model_path
            rank_zero_warn(
                f"SelectBest: {choice.reason} {Path(kept).name if kept else 'No checkpoint'} is kept as the best."
            )
        path = paths[choice.row["checkpoint"]] if choice.row else keep.best_model_path
        if not path:
            return None
        _copy(Path(path), Path(path).with_name("best.ckpt"))
        for logger in trainer.loggers:
            logger.log_metrics(checkpoint_metrics(rows, Path(path).name), step=trainer.global_step)
        return str(path)

    def _decide(self, rows: list[dict[str, Any]], paths: dict[str, str]) -> Choice:
        candidates = [
            row
            for row in rows
            if row["role"] != "teacher" and row["checkpoint"] in paths and variant(row, rows) == self._variant
        ]
        qualities = [row["quality"]["value"] for row in rows if row["is_baseline"] and row["quality"]]
        return choose(candidates, self._floor, self._cost, qualities[0] if qualities else None, self.quality)


def _split(minimise: str) -> tuple[str, str]:
    """Return runtime (with a slash, or nothing) and cost of ``benchmark/<runtime>/<cost>``."""
    words = minimise.removeprefix(_PREFIX)
    cost = next((cost for cost in COSTS if words == cost or words.endswith(f"/{cost}")), None)
    if cost is None or not minimise.startswith(_PREFIX):
        known = [f"{_PREFIX}{cost}" for cost in COSTS]
        near = difflib.get_close_matches(_PREFIX + words, known, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ValueError(
            "Expected minimise to be a cost that the benchmark logs, one of "
            f"{', '.join(known)}, but got {minimise!r}; correct it.{hint}"
        )
    return words[: len(words) - len(cost)], cost


def _benchmark(trainer: pl.Trainer) -> Benchmark:
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    found = [c for c in callbacks if isinstance(c, Benchmark)]
    if not any(c.at_end for c in found):
        got = "its at_end is false" if found else "there is none"
        raise ValueError(
            f"Expected a Benchmark callback whose rows SelectBest chooses by but {got}; set benchmark.at_end=true, or "
            "leave SelectBest out."
        )
    return [c for c in found if c.at_end][-1]


def _copy(source: Path, target: Path) -> None:
    """Copy at once: a kill leaves the old file or the new one. A link would change with its source."""
    partial = target.with_name(f".{target.name}.partial")
    shutil.copyfile(source, partial)
    partial.replace(target)
