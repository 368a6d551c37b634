"""The student as a checkpoint holds it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from transformers import PreTrainedModel

from lit_compress.models.transforms import SHAPES, transforms_of
from lit_compress.pruning.bake import bake
from lit_compress.pruning.masks import WEIGHT_MASKS, masks_of
from lit_compress.pruning.shrink import shrink
from lit_compress.quantization.clustering.clustered_weights import CLUSTERED_WEIGHTS
from lit_compress.quantization.clustering.codebook_convert import to_codebooks
from lit_compress.quantization.convert import to_integers
from lit_compress.quantization.fake_weights import FAKE_WEIGHTS
from lit_compress.quantization.inputs import INPUT_QUANTIZERS
from lit_compress.quantization.shrunk import shrink_to_integers

_PREFIX = "student."
_ROUNDED = {FAKE_WEIGHTS, INPUT_QUANTIZERS, CLUSTERED_WEIGHTS}


def student_from_checkpoint(student: PreTrainedModel, path: str | Path, round_to: int = 1) -> PreTrainedModel:
    """Return a copy of the student with the weights of a Lightning checkpoint, as it would be shipped.

    Args:
        student: The student of the module that wrote the checkpoint.
        path: The checkpoint.
        round_to: See ``deployable``.

    Returns:
        The copy; see ``deployable``.

    Raises:
        ValueError: The checkpoint does not hold this student.
    """
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    weights = {k[len(_PREFIX) :]: v for k, v in state.items() if k.startswith(_PREFIX)}
    model = copy.deepcopy(student).cpu()
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if missing or unexpected:
        raise ValueError(
            f"Expected the weights of this student in {path} but {len(missing)} are missing and "
            f"{len(unexpected)} are not of it (first: {[*missing, *unexpected][0]}); the checkpoint is of "
            "another model."
        )
    return _shipped(model, round_to)


def kept_checkpoints(trainer: pl.Trainer) -> list[Path]:
    """Return the checkpoints that a fit has kept for their quality, the best one first.

    ``last.ckpt`` is there to resume from; it counts only where nothing else was kept.

    Args:
        trainer: After its fit.

    Returns:
        Existing files, each once.
    """
    callbacks: list[Any] = [c for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)]
    best = [path for callback in callbacks for path in (callback.best_model_path, *_ranked(callback))]
    last = [callback.last_model_path for callback in callbacks]
    for candidates in (best, last):
        found = dict.fromkeys(Path(path) for path in candidates if path and Path(path).is_file())
        if found:
            return list(found)
    return []


def _ranked(callback: ModelCheckpoint) -> list[str]:
    scores = callback.best_k_models
    return sorted(scores, key=lambda path: float(scores[path]), reverse=callback.mode == "max")


def deployable(student: nn.Module, round_to: int = 1) -> PreTrainedModel:
    """Return a copy of a student as it would be shipped: what was pruned is removed, nothing of ours is left.

    Args:
        student: A student, pruned or not; not changed.
        round_to: Keep a multiple of this many neurons per block; see ``shrink``.

    Returns:
        The copy, in eval mode on the CPU.
    """
    return _shipped(copy.deepcopy(student).cpu(), round_to)


def _shipped(model: Any, round_to: int) -> PreTrainedModel:
    done = {name for name, _ in transforms_of(model)}
    if done & _ROUNDED:
        return _in_few_bits(model, done, round_to)
    if done == {WEIGHT_MASKS} and all(mask.block == (1, 1) for _, mask in masks_of(model)):
        # Zeros in an ordinary model, which stock transformers loads.
        bake(model)
        return model.eval()
    return shrink(model, round_to=round_to) if done else model.eval()


def _in_few_bits(model: Any, done: set[str], round_to: int) -> PreTrainedModel:
    if done - {WEIGHT_MASKS, *_ROUNDED, *SHAPES}:
        if CLUSTERED_WEIGHTS in done:
            raise ValueError(
                "Expected clustering alone or with masks on single weights but units of the student were closed too; "
                "prune in a first fit, and cluster its folder in a second one."
            )
        return shrink_to_integers(model, round_to)
    bake(model)
    to_integers(model)
    to_codebooks(model)
    return model.eval()
