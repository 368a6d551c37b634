"""The grids of a finished model, apart from it: for runtimes that compute with integers."""

from __future__ import annotations

import copy
from typing import NamedTuple

from torch import Tensor
from transformers import PreTrainedModel

from lit_compress.models.transforms import forget
from lit_compress.quantization.convert import to_floats
from lit_compress.quantization.grid import Grid, per_channel
from lit_compress.quantization.inputs import INPUT_QUANTIZERS, input_quantizers_of, remove_input_quantizers
from lit_compress.quantization.packed import packed_of
from lit_compress.quantization.scheme import Scheme


class StoredMatrix(NamedTuple):
    """A matrix that is stored as integers.

    Args:
        integers: Whole numbers in int16, of the shape of the matrix.
        grid: Scales and zero points of its rows, see :func:`~lit_compress.quantization.grid.rows_of`.
        scheme: Says what shares a scale.
        output_axis: Axis along which the outputs lie.
    """

    integers: Tensor
    grid: Grid
    scheme: Scheme
    output_axis: int


class StoredInput(NamedTuple):
    """An activation that is rounded.

    Args:
        grid: Its grid with one row; ``None`` where it is found while the model runs.
        scheme: How it is rounded.
    """

    grid: Grid | None
    scheme: Scheme


def take_apart(
    model: PreTrainedModel,
) -> tuple[PreTrainedModel, dict[str, StoredMatrix], dict[str, StoredInput]]:
    """Split a finished model into an ordinary one with the same weights, and its grids.

    Args:
        model: The model; not changed.

    Returns:
        A copy with ordinary weights that rounds nothing; the matrices by name; the rounded inputs by the name of
        the module that reads them.
    """
    # Runtimes know no groups of outputs; a scale for each output says the same.
    matrices = {
        name: StoredMatrix(
            packed.whole_numbers(), *per_channel(packed.grid(), packed.scheme), packed.output_axis
        )
        for name, packed in packed_of(model)
    }
    inputs = {
        name: StoredInput(None if quantizer.observer is None else quantizer.grid(), quantizer.scheme)
        for name, quantizer in input_quantizers_of(model)
    }
    plain = copy.deepcopy(model)
    remove_input_quantizers(plain)
    forget(plain, INPUT_QUANTIZERS)
    to_floats(plain)
    return plain.eval(), matrices, inputs
