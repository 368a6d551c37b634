"""One variant of scripts/bench_training.py in a process of its own: trains a few steps whenever it is told to.

The first line on stdin describes the variant; every further line ``{"do": "steps", "count": n}`` asks for n more
steps and is answered, as JSON, with what they cost. The process ends when stdin closes.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Mapping
from typing import Any, TextIO

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import CSVLogger

from lit_compress import callbacks, objectives
from lit_compress.benchmark.devices import CpuDevice
from lit_compress.benchmark.protocol import clock_name
from lit_compress.data import Files, TextClassificationDataModule
from lit_compress.models import LayerSubset, Teacher
from lit_compress.models.teacher import runtime_dtype
from lit_compress.modules import AdamW, CompressionModule, Distillation, FineTuning, WarmupLinear
from lit_compress.modules.optim import parameter_groups
from lit_compress.pruning import movement, scores
from lit_compress.pruning.target import Target
from lit_compress.quantization import Scheme
from lit_compress.schedules import Cubic

CLIP = 1.0
TEMPERATURE = 2.0
EPOCHS = 1000
INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class Gate(pl.Callback):
    """Waits for the parent's word, then lets a number of steps pass and reports what they cost.

    Args:
        replies: Where the parent reads.
        threads: CPU threads; they decide the clock.
    """

    def __init__(self, replies: TextIO, threads: int) -> None:
        self._replies = replies
        self._device = CpuDevice(threads)
        self._clock = time.process_time if clock_name(threads) == "cpu time" else time.perf_counter
        self._left = self._count = self._examples = 0

    def ready(self) -> None:
        """Say that everything is built; memory counts from here on."""
        self._device.reset_memory()
        self.reply({"ready": True})
        self._wait()

    def step_done(self, examples: int) -> None:
        """Count a step; at the end of a round report and wait."""
        self._examples += examples
        self._left -= 1
        if self._left == 0:
            seconds = self._clock() - self._start
            figures = {"seconds": seconds, "steps": self._count, "examples": self._examples}
            self.reply({**figures, "peak_bytes": self._device.memory().peak})
            self._wait()

    def reply(self, reply: dict[str, Any]) -> None:
        """Answer the parent."""
        print(json.dumps(reply), file=self._replies, flush=True)

    def _wait(self) -> None:
        line = sys.stdin.readline()
        if not line:
            # Not SystemExit: a Trainer would tidy up first, and nothing of this process is kept.
            os._exit(0)
        self._left = self._count = int(json.loads(line)["count"])
        self._examples = 0
        self._start = self._clock()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A Trainer is ready for its first step."""
        self.ready()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """A Trainer has done a step."""
        self.step_done(len(batch["labels"]))


def data_module(variant: Mapping[str, Any]) -> TextClassificationDataModule:
    """Return the rows of the variant; the same seed gives all variants the same batches."""
    return TextClassificationDataModule(
        Files(folder=variant["data"], train="train.tsv"),
        tokenizer=variant["teacher"],
        text=variant["text"],
        max_length=128,
        batch_size=variant["batch_size"],
        limit_train=variant["rows"],
        bucket_pool=variant.get("bucket_pool", 50),
        padding=variant.get("padding", "longest"),
        cache_dir=variant["cache_dir"],
    )


def fit(variant: Mapping[str, Any], gate: Gate, folder: str) -> None:
    """Train with the library under a Trainer, as a user's recipe does, with a log file."""
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=EPOCHS,
        gradient_clip_val=CLIP,
        precision=variant.get("precision", "32-true"),
        logger=CSVLogger(folder, flush_logs_every_n_steps=variant["steps"]),
        # Every round writes its line of the log: more often than the default of once in 50 steps.
        log_every_n_steps=variant["steps"],
        callbacks=[*own_callbacks(variant), gate],
        limit_val_batches=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(module(variant, folder), datamodule=data_module(variant))


def own_callbacks(variant: Mapping[str, Any]) -> list[pl.Callback]:
    """Return the callback of a variant that has one: a class of ``lit_compress.callbacks``, its arguments."""
    if "callback" not in variant:
        return []
    name, arguments = variant["callback"]
    arguments = dict(arguments)
    if "target" in arguments:
        arguments["target"] = Target(**arguments["target"])
    for part in ("weights", "embeddings"):
        if part in arguments:
            arguments[part] = Scheme(**arguments[part])
    if "score" in arguments:
        kind = getattr(movement, arguments["score"], None) or getattr(scores, arguments["score"])
        arguments["score"] = kind()
    if name == "Pruning":
        # Under way from the first step, so that every round has the work of the ramp in it.
        arguments["ramp"] = Cubic(begin=0.0, finish=0.7)
    return [getattr(callbacks, name)(**arguments)]


def module(variant: Mapping[str, Any], folder: str) -> CompressionModule:
    """Return the module of a Trainer variant: distillation where it has objectives, else fine-tuning."""
    source = variant["teacher"]
    rates: dict[str, Any] = {"optimizer": AdamW(lr=1e-4), "schedule": WarmupLinear()}
    if "objectives" not in variant:
        layers = variant.get("layers", "every_other")
        return FineTuning(LayerSubset(depth=variant["depth"], layers=layers, source=source), **rates)
    cache = f"{folder}/cache" if variant.get("cached") else None
    terms = {
        name: getattr(objectives, name)(**arguments) for name, arguments in variant["objectives"].items()
    }
    return Distillation(LayerSubset(depth=variant["depth"]), Teacher(source, cache=cache), terms, **rates)


def loop(variant: Mapping[str, Any], gate: Gate) -> None:
    """The same distillation as a bare loop: labels and soft targets, nothing of the library in the step."""
    data = data_module(variant)
    live = Teacher(variant["teacher"])
    student = LayerSubset(depth=variant["depth"]).build(live.load, data.num_labels)
    dtype = runtime_dtype(variant.get("teacher_precision", "auto"), torch.device("cpu"))
    teacher: Any = live.load()
    teacher.to(dtype)
    for model in (student, teacher):
        model.set_attn_implementation(variant.get("attention", "sdpa"))
    factory, loader = AdamW(lr=1e-4), data.train_dataloader()
    sampler: Any = loader.sampler
    optimizer = factory.build(parameter_groups(student.named_parameters(), factory.lr, factory.weight_decay))
    schedule = WarmupLinear().build(optimizer, EPOCHS * len(loader))
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=variant.get("precision") == "bf16-mixed")
    gate.ready()
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        for batch in loader:
            inputs = {name: batch[name] for name in INPUTS}
            with torch.no_grad():
                wanted = teacher(**inputs).logits.float()
            with autocast:
                logits = student(**inputs).logits.float()
            hard = F.cross_entropy(logits, batch["labels"])
            loss = 0.5 * hard + 0.5 * softened(logits, wanted)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(student.parameters(), CLIP)
            optimizer.step()
            schedule.step()
            gate.step_done(len(batch["labels"]))


def softened(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Hinton's soft-target loss, written by hand."""
    log_student = F.log_softmax(student / TEMPERATURE, -1)
    log_teacher = F.log_softmax(teacher / TEMPERATURE, -1)
    return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * TEMPERATURE**2


def main() -> None:
    # Libraries print to stdout; the replies keep it for themselves.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    variant = json.loads(sys.stdin.readline())
    torch.set_num_threads(variant["threads"])
    torch.set_num_interop_threads(1)
    pl.seed_everything(0, verbose=False)
    gate = Gate(replies, variant["threads"])
    try:
        with tempfile.TemporaryDirectory(dir=variant["cache_dir"]) as folder:
            if variant.get("bare"):
                loop(variant, gate)
            else:
                fit(variant, gate, folder)
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        gate.reply({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
