"""Measures what a fit leaves behind, beside its teacher, and logs the figures."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from transformers import PreTrainedModel

from lit_compress.benchmark.folders import display_name, local_folder, recorded_method
from lit_compress.benchmark.measure import measure
from lit_compress.benchmark.measurement import Measurement
from lit_compress.benchmark.metrics import checkpoint_metrics, log_rows
from lit_compress.benchmark.plan import sessions_of
from lit_compress.benchmark.protocol import BASELINE_RUNTIME, Candidate, Protocol
from lit_compress.benchmark.quality import Texts
from lit_compress.benchmark.results import (
    FILE_NAME,
    add_quality_ratios,
    append_rows,
    read_results,
    to_row,
)
from lit_compress.benchmark.runtimes import runtime
from lit_compress.callbacks.student import deployable, kept_checkpoints, student_from_checkpoint
from lit_compress.callbacks.transform import rounding_of
from lit_compress.models.checkpoint import save_folder
from lit_compress.modules.tasks import Classification
from lit_compress.report.command import print_groups
from lit_compress.report.groups import group_rows


@dataclass(frozen=True)
class _Subject:
    """A student to measure: its name in the table, its folder, the checkpoint that it came from."""

    name: str
    folder: str
    checkpoint: str | None


class Benchmark(pl.Callback):
    """Measure every kept checkpoint at the end of fit, with the teacher as interleaved baseline.

    Each model runs in a clean process of its own. Rows go to ``<default_root_dir>/results.jsonl``, figures
    to all loggers under ``benchmark/…`` (those of the best checkpoint), the table to the terminal and, where
    the logger takes tables, to it too. With ``every_n_epochs`` the student is also measured after the
    validation of epochs 0, n, 2n, …; the figures are then metrics like any other, so that
    ``ModelCheckpoint(monitor="benchmark/cpu/latency_ms")`` works, and the epochs in between repeat them. What
    the benchmark cost is logged as ``benchmark/seconds``, and what each model cost is in its row.

    Args:
        every_n_epochs: Also measure during fit, in every n-th epoch; ``None`` does not.
        at_end: Measure the kept checkpoints at the end of fit.
        baseline: Model folder, hub name or ``package:NAME`` to compare with; the module's teacher where
            ``None``, and no comparison where it has none.
        runtimes: Runtimes to measure every checkpoint in, such as ``[torch-fp32, onnx-int8]``; eager float32
            where ``None``. The baseline is always measured in eager float32.
        rounds: Most rounds that count.
        threads: CPU threads of each model; one is the steadiest on a shared machine.
        max_seconds: Budget per device and session of up to four models; no further round is begun when it is
            spent, but five are measured.
        split: Split whose text lengths are used and on which quality is evaluated.

    Raises:
        ValueError: A setting that cannot be measured with.
    """

    def __init__(
        self,
        every_n_epochs: int | None = None,
        at_end: bool = True,
        baseline: str | None = None,
        runtimes: list[str] | None = None,
        rounds: int = Protocol.rounds,
        threads: int = Protocol.threads,
        max_seconds: float = Protocol.max_seconds,
        split: str = "validation",
    ) -> None:
        if every_n_epochs is not None and every_n_epochs < 1:
            raise ValueError(
                f"Expected benchmark.every_n_epochs to be at least 1 but got {every_n_epochs}; leave it "
                "out to measure at the end only."
            )
        self.every_n_epochs = every_n_epochs
        self.at_end = at_end
        self.baseline = baseline
        self.runtimes = [BASELINE_RUNTIME] if runtimes is None else list(runtimes)
        self.rounds = rounds
        self.threads = threads
        self.max_seconds = max_seconds
        self.split = split
        #: Rows of the last benchmark, of all its sessions.
        self.rows: list[dict[str, Any]] = []
        self._last_epoch = -1
        self._last_figures: dict[str, float] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse what could only fail after hours of training."""
        if self.every_n_epochs is None and not self.at_end:
            return
        if not isinstance(getattr(pl_module, "student", None), PreTrainedModel):
            raise ValueError(
                "Expected a module with a transformers model as 'student' to benchmark but "
                f"got {type(pl_module).__name__}; train with FineTuning or Distillation, or "
                "set benchmark.at_end=false."
            )
        data = getattr(trainer, "datamodule", None)
        if not hasattr(data, "sequential_dataloader"):
            raise ValueError(
                f"Expected a TextClassificationDataModule to take real text lengths from but got "
                f"{type(data).__name__}; pass datamodule=… to trainer.fit, or set benchmark.at_end=false."
            )
        for name in self.runtimes:
            runtime(name).check()
        self._protocol(self._texts(trainer, pl_module))
        results = Path(trainer.default_root_dir) / FILE_NAME
        if self.at_end and results.is_file():
            read_results(results)
        source = self._baseline_source(pl_module)
        if source is not None:
            local_folder(source)

    # -- during fit --------------------------------------------------------------------------------

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the figures of the student as it is now."""
        if self.every_n_epochs is None or trainer.sanity_checking or trainer.state.fn != "fit":
            return
        epoch = trainer.current_epoch
        if not self._last_figures or (epoch % self.every_n_epochs == 0 and epoch != self._last_epoch):
            # One process measures; all need the figures, or they would disagree about what to save.
            figures = self._measure_now(trainer, pl_module) if trainer.is_global_zero else {}
            self._take(trainer.strategy.broadcast(figures))
            self._last_epoch = epoch
        # All processes log the same numbers; the mean over them says so to Lightning.
        pl_module.log_dict(self._last_figures, sync_dist=trainer.world_size > 1)

    def _measure_now(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        started = time.monotonic()
        student: Any = pl_module.student
        with _scratch_folder(trainer) as root:
            model = deployable(student, rounding_of(trainer))
            subject = self._save(trainer, model, root, "student", None)
            rows = [row for part in self._measure(trainer, pl_module, [subject], judge=False) for row in part]
        failed = [row["error"] for row in rows if row["role"] == "student" and row.get("error")]
        if failed:
            return {"error": "; ".join(failed)}
        return {**checkpoint_metrics(rows, None), "benchmark/seconds": time.monotonic() - started}

    def _take(self, figures: dict[str, Any]) -> None:
        if "error" not in figures:
            self._last_figures = figures
        elif self._last_figures:
            rank_zero_warn(f"Benchmark failed, its last figures are logged again: {figures['error']}")
        else:
            raise ValueError(
                f"Expected a student that can be measured but got {figures['error']}; correct the cause, or "
                "leave benchmark.every_n_epochs out."
            )

    # -- at the end --------------------------------------------------------------------------------

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the kept checkpoints, append their rows, print the table and log it."""
        if not self.at_end or not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        started = time.monotonic()
        self.rows = []
        with _scratch_folder(trainer) as root:
            subjects = self._kept(trainer, pl_module, root)
            for rows in self._measure(trainer, pl_module, subjects, judge=True):
                append_rows(Path(trainer.default_root_dir) / FILE_NAME, rows)
                self.rows += rows
        seconds = time.monotonic() - started
        print_groups(group_rows(self.rows))
        rank_zero_info(f"Benchmark: it took {seconds:.0f} s.")
        log_rows(trainer.loggers, self.rows, trainer.global_step, seconds)

    def _kept(self, trainer: pl.Trainer, pl_module: pl.LightningModule, root: Path) -> list[_Subject]:
        """Rebuild each kept checkpoint; without any, take the weights as the fit leaves them."""
        student: Any = pl_module.student
        name = Path(trainer.default_root_dir).resolve().name
        kept, step = kept_checkpoints(trainer), rounding_of(trainer)
        if not kept:
            rank_zero_info("Benchmark: no checkpoint was kept, so the final weights are measured.")
            return [self._save(trainer, deployable(student, step), root, name, None)]
        return [
            self._save(
                trainer,
                student_from_checkpoint(student, path, step),
                root,
                name if len(kept) == 1 else f"{name}/{path.stem}",
                path.name,
            )
            for path in kept
        ]

    # -- both --------------------------------------------------------------------------------------

    def _measure(
        self, trainer: pl.Trainer, pl_module: Any, subjects: Sequence[_Subject], judge: bool
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield the rows of one session after the other, the baseline's first."""
        method = getattr(pl_module, "method", None) or type(pl_module).__name__
        texts = self._texts(trainer, pl_module)
        baseline = self._baseline(pl_module, texts, {subject.name for subject in subjects})
        candidates = [
            Candidate(subject.name, subject.folder, method, name)
            for subject in subjects
            for name in self.runtimes
        ]
        if torch.cuda.is_available():
            # What the allocator holds back from training is missing to the workers.
            torch.cuda.empty_cache()
        for session in sessions_of(candidates):
            rank_zero_info(
                f"Benchmark: measuring {', '.join(c.label for c in session)}"
                f"{f' beside {baseline.name}' if baseline else ', without a baseline'}, "
                f"for {self.max_seconds:g} s per device or {self.rounds} rounds."
            )
            found = measure(session, baseline, self._protocol(texts), texts if judge else None)
            yield self._rows(trainer, pl_module, subjects, found)

    def _rows(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        subjects: Sequence[_Subject],
        found: Sequence[Measurement],
    ) -> list[dict[str, Any]]:
        checkpoints = {subject.name: subject.checkpoint for subject in subjects}
        seed = os.environ.get("PL_GLOBAL_SEED")
        rows = [
            to_row(
                measurement,
                run=str(trainer.default_root_dir),
                recipe=getattr(pl_module, "recipe", None),
                seed=int(seed) if seed else None,
                checkpoint=checkpoints.get(measurement.candidate.name),
            )
            for measurement in found
        ]
        for measurement in found:
            name = measurement.candidate.label
            if measurement.error:
                rank_zero_warn(f"Benchmark: {name} could not be measured: {measurement.error}")
            for warning in measurement.warnings:
                rank_zero_warn(f"Benchmark: {name}: {warning}")
        add_quality_ratios(rows)
        return rows

    def _save(
        self, trainer: pl.Trainer, model: PreTrainedModel, root: Path, name: str, checkpoint: str | None
    ) -> _Subject:
        folder = root / str(len(list(root.iterdir())))
        tokenizer = getattr(trainer.datamodule, "tokenizer_object", None)  # type: ignore[attr-defined]
        save_folder(folder, model, tokenizer, {})
        return _Subject(name, str(folder), checkpoint)

    def _texts(self, trainer: pl.Trainer, pl_module: Any) -> Texts:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        return Texts(data, self.split, getattr(pl_module, "task", None) or Classification())

    def _protocol(self, texts: Texts) -> Protocol:
        return Protocol(
            texts.lengths(),
            threads=self.threads,
            rounds=self.rounds,
            max_seconds=self.max_seconds,
            data=texts.describe(),
        )

    def _baseline_source(self, pl_module: Any) -> str | None:
        return self.baseline or getattr(pl_module, "teacher_source", None)

    def _baseline(self, pl_module: Any, texts: Texts, taken: set[str]) -> Candidate | None:
        source = self._baseline_source(pl_module)
        if source is None:
            return None
        name = display_name(source)
        return Candidate(
            f"{name} (baseline)" if name in taken else name,
            source,
            recorded_method(source, "teacher"),
            # The same texts, in the teacher's own tokens where it has them.
            lengths=texts.teacher_lengths(),
            side="teacher",
        )


@contextmanager
def _scratch_folder(trainer: pl.Trainer) -> Iterator[Path]:
    """Give a folder beside the checkpoints: where they fit, their copies fit too."""
    root = Path(trainer.default_root_dir)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".benchmark_", dir=root) as folder:
        yield Path(folder)
