"""What is trained with rounding becomes what is stored as integers."""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import Tensor, nn

from lit_compress.models.hooks import remove_hooks
from lit_compress.models.transforms import forget
from lit_compress.pruning.folding import fold
from lit_compress.quantization.clustering.codebook_weights import CODEBOOK_WEIGHTS
from lit_compress.quantization.fake_weights import (
    FAKE_WEIGHTS,
    FakeWeight,
    before_rounding,
    fake_weights_of,
    round_rows,
)
from lit_compress.quantization.grid import Grid
from lit_compress.quantization.inputs import fix_ranges, input_quantizers_of
from lit_compress.quantization.packed import PACKED_WEIGHTS, apply_packed_weights, packed_of
from lit_compress.quantization.stage import OBSERVE
from lit_compress.quantization.stored import stored_of


def refuse_unfinished(model: nn.Module) -> None:
    """Refuse a model whose rounding has not begun.

    Args:
        model: A model that is trained with rounding.

    Raises:
        ValueError: Something is not rounded yet, or has no range.
    """
    unfinished = [name for name, fake in fake_weights_of(model) if not fake.rounds]
    unfinished += [name for name, quantizer in input_quantizers_of(model) if not quantizer.rounds]
    if unfinished:
        raise ValueError(
            f"Expected a model that was trained with rounding but {unfinished[0]} is not rounded yet; let the fit go "
            "on beyond quantize_at, or take the checkpoint at its end."
        )
    for name, quantizer in input_quantizers_of(model):
        if quantizer.observer is not None and not quantizer.observer.has_seen:
            raise ValueError(
                f"Expected {name} to have read finite values in training, which its range is taken from, but it never "
                "ran, or read infinities or NaN only; leave it out with exclude, or train in more than half precision."
            )


def to_integers(model: nn.Module) -> None:
    """Store the matrices that training rounds as integers, and fix the ranges of activations.

    Masks and gates must have been folded before. What the model computes stays the same, bit by bit.

    Args:
        model: Changed in place.

    Raises:
        ValueError: Rounding has not begun: the fit was not finished.
    """
    refuse_unfinished(model)
    found = dict(fake_weights_of(model))
    stores: dict[str, tuple[Tensor, Grid]] = {}
    for name, fake in found.items():
        weight = before_rounding(model, name).clone()
        stores[name] = weight, fake.grid(weight)
    schemes = {name: asdict(fake.scheme) for name, fake in found.items()}
    remove_fake_weights(model)
    if schemes:
        apply_packed_weights(model, schemes)
    with torch.no_grad():
        for name, packed in packed_of(model):
            if name in stores:
                packed.fill(*stores[name])
    fix_ranges(model)


def remove_fake_weights(model: nn.Module) -> None:
    """Leave every matrix as it is before it is rounded, in place."""
    for name, fake in list(fake_weights_of(model)):
        fake.set_stage(OBSERVE)
        remove_hooks(model.get_submodule(name.rpartition(".")[0]), lambda hook: hook is round_rows)
    fold(model, FakeWeight)
    forget(model, FAKE_WEIGHTS)


def to_floats(model: nn.Module) -> None:
    """Make the matrices that are stored in another form parameters again, with the values that they have.

    Args:
        model: Changed in place.
    """
    for _, stored in list(stored_of(model)):
        stored.give_back()
    forget(model, PACKED_WEIGHTS)
    forget(model, CODEBOOK_WEIGHTS)
