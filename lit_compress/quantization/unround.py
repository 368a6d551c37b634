"""Taking all rounding out of a model: what is left computes with ordinary weights, at ordinary speed."""

from __future__ import annotations

from torch import nn

from lit_compress.models.transforms import forget
from lit_compress.pruning.folding import fold
from lit_compress.quantization.clustering.clustered_weights import (
    CLUSTERED_WEIGHTS,
    ClusteredWeight,
    clustered_weights_of,
)
from lit_compress.quantization.convert import remove_fake_weights, to_floats
from lit_compress.quantization.inputs import INPUT_QUANTIZERS, remove_input_quantizers
from lit_compress.quantization.stage import OBSERVE


def unround(model: nn.Module) -> nn.Module:
    """Let a model round nothing any more, in place.

    Weights that are rounded in training are again what they were before rounding; those that are stored in few bits
    become parameters with the values that they have.

    Args:
        model: A model in training, or a finished one; gates and masks stay.

    Returns:
        The model.
    """
    for _, step in clustered_weights_of(model):
        step.set_stage(OBSERVE)
    fold(model, ClusteredWeight)
    remove_fake_weights(model)
    remove_input_quantizers(model)
    to_floats(model)
    for name in (CLUSTERED_WEIGHTS, INPUT_QUANTIZERS):
        forget(model, name)
    return model
