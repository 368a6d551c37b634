"""Masks on single weights and on blocks of weights, as parametrizations: what is masked is exactly zero.

The optimizer may move a masked weight, and a later decision may bring it back as it then is; what the model
computes with, what is baked and what is shipped is zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lit_compress.models.anatomy.family import projection_axes
from lit_compress.models.parametrized import register, step_on, steps_of
from lit_compress.models.transforms import record

#: Name of the transform.
WEIGHT_MASKS = "weight_masks"


class Masked(nn.Module):
    """Parametrization of a matrix: sets closed weights, or closed blocks of weights, to zero.

    Args:
        shape: Shape of the matrix ``(rows, columns)``, as it is stored.
        block: Height and width of a block; each has to divide its axis.

    Raises:
        ValueError: The blocks do not fill the matrix.
    """

    keep: Tensor

    def __init__(self, shape: Sequence[int], block: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        rows, columns = shape
        if rows % block[0] or columns % block[1]:
            raise ValueError(
                f"Expected blocks that fill a matrix of {rows} x {columns} but got block={list(block)}; take divisors "
                "of its sizes, or leave the matrix out with exclude."
            )
        self.block = block
        self.register_buffer("keep", torch.ones(rows // block[0], columns // block[1], dtype=torch.bool))
        #: Leaf ``keep.shape`` that gets the gradient with respect to the gates; in a tuple, so that it is no
        #: parameter of the model.
        self.listener: tuple[Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to the fit: a copy of the model does not learn scores."""
        return {**self.__dict__, "listener": None}

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight ``(rows, columns)`` with zeros where it is closed."""
        if self.listener is not None and self.training and torch.is_grad_enabled():
            return _StraightThrough.apply(weight, self.listener[0], self.keep, self.block)
        return masked(weight, self.keep, self.block)

    def expanded(self) -> Tensor:
        """Return which weights are kept, as booleans of the shape of the matrix."""
        rows, columns = self.block
        return self.keep.repeat_interleave(rows, 0).repeat_interleave(columns, 1)


class MaskedBias(nn.Module):
    """Parametrization of a bias: an output that is left without any weight loses its bias too.

    So a row of zeros computes zero, and the neuron or head can be cut out.

    Args:
        weight: The parametrization of the matrix, which belongs to another tensor.
        axis: Axis of the inputs of the matrix.
    """

    def __init__(self, weight: Masked, axis: int) -> None:
        super().__init__()
        self._weight = (weight,)
        self.axis = axis

    def forward(self, bias: Tensor) -> Tensor:
        """Return the bias ``(outputs,)`` with zeros where no weight is left."""
        return bias * self.expanded()

    def expanded(self) -> Tensor:
        """Return which outputs have a weight left, as booleans ``(outputs,)``."""
        weight = self._weight[0]
        return weight.keep.any(self.axis).repeat_interleave(weight.block[1 - self.axis])


class _StraightThrough(torch.autograd.Function):
    """Masks a matrix, and hands the gradient with respect to the gates, ``dW' * W``, to a leaf of scores."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scores: Tensor, keep: Tensor, block: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(weight, keep)
        ctx.block, ctx.dtype = block, scores.dtype
        return masked(weight, keep, block)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, keep = ctx.saved_tensors
        to_weight = masked(gradients[0], keep, ctx.block) if ctx.needs_input_grad[0] else None
        return to_weight, block_sums(gradients[0] * weight, ctx.block).to(ctx.dtype), None, None


def masked(weight: Tensor, keep: Tensor, block: tuple[int, int] = (1, 1)) -> Tensor:
    """Return a matrix with zeros in the blocks that are not kept.

    Args:
        weight: ``(rows, columns)``.
        keep: Booleans ``(rows / height, columns / width)``.
        block: Height and width of a block.
    """
    # The same bits as numbers: products with booleans take four times as long on a CPU.
    factor = keep.view(torch.uint8)
    if block == (1, 1):
        return weight * factor
    return (_tiles(weight, block) * factor[:, None, :, None]).view(weight.shape)


def block_sums(values: Tensor, block: tuple[int, int]) -> Tensor:
    """Return the sum of each block of a matrix, ``(rows / height, columns / width)``."""
    return values if block == (1, 1) else _tiles(values, block).sum((1, 3))


def _tiles(matrix: Tensor, block: tuple[int, int]) -> Tensor:
    """Return a matrix as ``(rows / height, height, columns / width, width)``."""
    return matrix.reshape(matrix.shape[0] // block[0], block[0], matrix.shape[1] // block[1], block[1])


def apply_weight_masks(
    model: nn.Module, tensors: Sequence[str], block: Sequence[int] = (1, 1), part: str = "weight"
) -> None:
    """Put masks on matrices, with everything open.

    Args:
        model: Changed in place, once.
        tensors: Names of the matrices below the model.
        block: Outputs and inputs per block.
        part: Name of this set of masks, where a model has several.

    Raises:
        ValueError: A matrix has a mask already, is tied to another, or cannot be cut into such blocks.
    """
    arguments = {"tensors": list(tensors), "block": list(block), "part": part}
    if not record(model, WEIGHT_MASKS, arguments):
        return
    refuse_tied(model, tensors)
    for name in tensors:
        path, _, tensor = name.rpartition(".")
        try:
            _mask(model.get_submodule(path), tensor, (block[0], block[1]))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error


def _mask(module: Any, tensor: str, block: tuple[int, int]) -> None:
    if mask_on(module, tensor) is not None:
        raise ValueError(
            "Expected a matrix without a mask but it has one already; give each matrix to one callback with "
            "include and exclude."
        )
    axis = input_axis(module)
    weight = getattr(module, tensor)
    mask = Masked(weight.shape, block if axis == 1 else (block[1], block[0]))
    register(module, tensor, mask.to(weight.device))
    if getattr(module, "bias", None) is not None:
        register(module, "bias", MaskedBias(mask, axis))


def input_axis(module: nn.Module) -> int:
    """Return the axis of a matrix along which its inputs lie; those of an embedding are its columns."""
    return 1 if isinstance(module, nn.Embedding) else projection_axes(module)[0]


def refuse_tied(model: nn.Module, tensors: Sequence[str]) -> None:
    """Refuse tensors that are the same as others: what is done to one of them would have to be done to all.

    Raises:
        ValueError: One of them is tied.
    """
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    for name in tensors:
        same = next((group for group in names.values() if name in group and len(group) > 1), None)
        if same is not None:
            found = [other for other in same if other in tensors]
            raise ValueError(
                f"Expected matrices of their own but {name} is tied to "
                f"{next(other for other in same if other != name)}; leave {' and '.join(found)} out with exclude."
            )


def mask_on(module: nn.Module, tensor: str) -> Masked | None:
    """Return the mask of a tensor, ``None`` where it has none."""
    return step_on(module, tensor, Masked)


def kept_entries(model: nn.Module) -> dict[str, Tensor]:
    """Return which entries of masked matrices and of their biases are kept, as booleans of their shapes, by name."""
    found: dict[str, Tensor] = {}
    for name, mask in masks_of(model):
        found[name] = mask.expanded()
        path = name.rpartition(".")[0]
        bias = step_on(model.get_submodule(path), "bias", MaskedBias)
        if bias is not None:
            found[f"{path}.bias"] = bias.expanded()
    return found


def masks_of(model: nn.Module) -> Iterator[tuple[str, Masked]]:
    """Yield the name of every masked matrix with its mask."""
    return steps_of(model, Masked)


def original(module: nn.Module, tensor: str) -> Tensor:
    """Return a tensor as the optimizer has it, without masks and gates."""
    if parametrize.is_parametrized(module, tensor):
        parametrizations: Any = module.parametrizations
        return parametrizations[tensor].original
    return getattr(module, tensor)
