"""What was done to the structure of a model, as data: names and arguments that can be done again.

Every transform is a function that changes a model in place and takes plain JSON arguments. A model remembers the
transforms that shape its present state dict; checkpoints and model folders store them; and with them a fresh
model of the same configuration gets the structure into which the weights fit.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from typing import Any

from torch import nn

#: Where each transform is, by the name under which it is stored. Imported when it is needed.
TRANSFORMS: dict[str, str] = {
    "fixed_gates": "lit_compress.pruning.fixed_gates:apply_fixed_gates",
    "weight_masks": "lit_compress.pruning.masks:apply_weight_masks",
    "hard_concrete_gates": "lit_compress.pruning.hard_concrete_gates:apply_hard_concrete_gates",
    "low_rank": "lit_compress.pruning.low_rank:apply_low_rank",
    "shape": "lit_compress.pruning.shape:apply_shape",
    "factorized_embedding": "lit_compress.pruning.factorize_embedding:apply_factorized_embedding",
    "sizes": "lit_compress.models.sizes:apply_sizes",
    "fake_weights": "lit_compress.quantization.fake_weights:apply_fake_weights",
    "input_quantizers": "lit_compress.quantization.inputs:apply_input_quantizers",
    "packed_weights": "lit_compress.quantization.packed:apply_packed_weights",
    "clustered_weights": "lit_compress.quantization.clustering.clustered_weights:apply_clustered_weights",
    "codebook_weights": "lit_compress.quantization.clustering.codebook_weights:apply_codebook_weights",
}
#: Those that a finished model may have: they shape ordinary weights, and model folders record them.
SHAPES = (
    "shape",
    "factorized_embedding",
    "low_rank",
    "sizes",
    "input_quantizers",
    "packed_weights",
    "codebook_weights",
)
#: Those of finished models that round.
ROUNDED = ("input_quantizers", "packed_weights")
_ATTRIBUTE = "_lit_compress_transforms"


def transforms_of(model: nn.Module) -> list[list[Any]]:
    """Return the ``[name, arguments]`` of what shapes the model's state dict, in the order in which it was done."""
    return [list(entry) for entry in getattr(model, _ATTRIBUTE, [])]


def record(model: nn.Module, name: str, arguments: dict[str, Any]) -> bool:
    """Remember a transform; called first by each of them.

    Args:
        model: The model that is about to be changed.
        name: Name in ``TRANSFORMS``.
        arguments: Its arguments, plain JSON data.

    Returns:
        Whether it still has to be done; ``False`` where the model has it already, with these arguments.

    Raises:
        ValueError: The model has it with other arguments.
    """
    done = getattr(model, _ATTRIBUTE, [])
    entry = [name, json.loads(json.dumps(arguments))]
    if entry in done:
        return False
    same = [old for key, old in done if key == name]
    if same and not _may_repeat(same, entry[1]):
        raise ValueError(
            f"Expected {name!r} with the settings that the model or checkpoint has, {same[0]}, but got {entry[1]}; "
            "go on with those settings, or start from a model without it."
        )
    setattr(model, _ATTRIBUTE, [*done, entry])
    return True


def _may_repeat(same: Sequence[dict[str, Any]], arguments: dict[str, Any]) -> bool:
    """The same transform may be there twice for different parts, which ``structures`` or ``part`` names."""
    part = arguments.get("part", arguments.get("structures"))
    return part is not None and all(old.get("part", old.get("structures")) != part for old in same)


def forget(model: nn.Module, name: str) -> None:
    """Remove a transform from what the model remembers: its structure is not there any more."""
    left = [entry for entry in getattr(model, _ATTRIBUTE, []) if entry[0] != name]
    setattr(model, _ATTRIBUTE, left)


def rewrite(model: nn.Module, name: str, arguments: dict[str, Any] | None) -> None:
    """Change what is remembered of a transform, in its place, after the structure was changed further.

    Args:
        model: The model, whose structure has been changed.
        name: Name in ``TRANSFORMS``.
        arguments: What makes the present structure of a full model; ``None`` where nothing of it is left.
    """
    done = getattr(model, _ATTRIBUTE, [])
    entries = [] if arguments is None else [[name, json.loads(json.dumps(arguments))]]
    place = next((index for index, entry in enumerate(done) if entry[0] == name), len(done))
    setattr(model, _ATTRIBUTE, [*done[:place], *entries, *done[place + 1 :]])


def restore(model: nn.Module, transforms: Sequence[Sequence[Any]]) -> None:
    """Give a model the structure that a checkpoint or a model folder records.

    Args:
        model: A model of the same configuration; changed in place. What it has already is not done again.
        transforms: ``[name, arguments]`` in their order.

    Raises:
        ValueError: A name is unknown, or the model has a transform with other arguments.
    """
    unknown = [name for name, _ in transforms if name not in TRANSFORMS]
    if unknown:
        raise ValueError(
            f"Expected transforms that this version knows ({', '.join(TRANSFORMS)}) but got {', '.join(unknown)}; "
            "upgrade with pip install -U lit-compress."
        )
    for name, arguments in transforms:
        module, _, function = TRANSFORMS[name].partition(":")
        getattr(importlib.import_module(module), function)(model, **arguments)
