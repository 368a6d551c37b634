"""Matrices that files hold in another form than the one that they are computed with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lit_compress.models.transforms import ROUNDED, transforms_of
from lit_compress.quantization.fake_weights import output_axis


class Stored(nn.Module, ABC):
    """What files hold of one matrix; its values lie beside it as a buffer that no file holds.

    Args:
        owner: The module of the matrix, whose parameter becomes that buffer.
        tensor: Name of the matrix.
    """

    def __init__(self, owner: nn.Module, tensor: str) -> None:
        super().__init__()
        self.tensor, self.output_axis = tensor, output_axis(owner)
        weight: Tensor = getattr(owner, tensor)
        del owner._parameters[tensor]
        owner.register_buffer(tensor, weight.detach().clone(), persistent=False)
        # In a tuple: it is this module that belongs to the owner.
        self._owner = (owner,)

    @property
    def values(self) -> Tensor:
        """The matrix as it is computed with."""
        found: Tensor = getattr(self._owner[0], self.tensor)
        return found

    @abstractmethod
    def after_load(self) -> None:
        """Compute the values anew: the buffers were filled from outside."""

    def cast_values(self, dtype: torch.dtype) -> None:
        """Compute with another type from now on; what files hold stays as precise as it is."""
        owner = self._owner[0]
        owner._buffers[self.tensor] = self.values.to(dtype)

    def give_back(self) -> None:
        """Make the matrix a parameter again, with the values that it has; this module belongs to nobody then."""
        owner, values = self._owner[0], self.values
        delattr(owner, self.tensor)  # and with it that no file holds it, which exporters would believe
        for name, child in list(owner.named_children()):
            if child is self:
                delattr(owner, name)
        owner.register_parameter(self.tensor, nn.Parameter(values))

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.after_load()


def stored_of(model: nn.Module) -> Iterator[tuple[str, Stored]]:
    """Yield the name of every matrix that files hold in another form, with that form."""
    for name, module in model.named_modules():
        if isinstance(module, Stored):
            path = name.rpartition(".")[0]
            yield (f"{path}.{module.tensor}" if path else module.tensor), module


def refuse_stored(model: nn.Module) -> None:
    """Refuse to train a model whose weights are stored in few bits: only its biases and norms would learn.

    Args:
        model: The student of a fit.

    Raises:
        ValueError: A matrix is not stored as an ordinary parameter.
    """
    names = [name for name, _ in stored_of(model)]
    if names or getattr(model, "is_quantized", False):
        raise ValueError(
            f"Expected a student with weights that can be trained but {names[0] if names else 'the model'} is stored "
            "in few bits; start from the folder that it was made from, which its lit_compress.json or its model card "
            "names."
        )


def refuse_few_bits(
    model: nn.Module,
    wanted: str = "that rounds nothing yet",
    advice: str = "give the model that it was made from",
) -> None:
    """Refuse to change a finished model without training a second time: its weights are no ordinary parameters.

    Args:
        model: The model.
        wanted: What kind of model is expected, for the message.
        advice: What to do, for the message.

    Raises:
        ValueError: Its weights are stored in few bits, or it rounds activations.
    """
    done = [name for name, _ in transforms_of(model) if name in (*ROUNDED, "codebook_weights")]
    if done:
        raise ValueError(f"Expected a model {wanted} but it has {done[0]}; {advice}.")
