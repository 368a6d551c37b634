"""The places whose units are ranked and closed: masked matrices and gated groups, seen alike."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from lit_compress.pruning.gates import FixedGate
from lit_compress.pruning.groups import Group, Slot
from lit_compress.pruning.masks import Masked, block_sums, original


class Site(ABC):
    """Units of one place.

    Args:
        name: Unique name of the place.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    @abstractmethod
    def open(self) -> Tensor:
        """Which units are open, as booleans of any shape."""

    @abstractmethod
    def close(self, open_units: Tensor) -> None:
        """Set which units are open, booleans of the same shape."""

    @abstractmethod
    def listen(self, leaf: Tensor | None) -> None:
        """Let a leaf of the same shape get the gradient of the loss with respect to the gates; ``None``: no more."""

    @abstractmethod
    def magnitude(self) -> Tensor:
        """Return how large each unit is, closed or not: ``|w|`` of a weight, the sum of squares of a larger unit."""

    @abstractmethod
    def empty(self) -> Tensor:
        """Return which units do nothing by their own weights, whatever their gates."""

    @abstractmethod
    def reference(self) -> Tensor:
        """Return a tensor of the type and on the device that scores have."""

    def new_scores(self) -> Tensor:
        """Return zeros for a score per unit, at least in float32."""
        like = self.reference()
        dtype = torch.promote_types(like.dtype, torch.float32)
        return torch.zeros(self.open.shape, dtype=dtype, device=like.device)


class MaskSite(Site):
    """A masked matrix.

    Args:
        name: Name of the matrix below the model.
        module: The module that has it.
        tensor: Its name in the module.
        mask: Its mask.
    """

    def __init__(self, name: str, module: nn.Module, tensor: str, mask: Masked) -> None:
        super().__init__(name)
        self.module, self.tensor, self.mask = module, tensor, mask

    @property
    def open(self) -> Tensor:
        """See ``Site.open``."""
        return self.mask.keep

    def reference(self) -> Tensor:
        """See ``Site.reference``."""
        return original(self.module, self.tensor)

    def close(self, open_units: Tensor) -> None:
        """See ``Site.close``."""
        self.mask.keep.copy_(open_units.view_as(self.mask.keep))

    def listen(self, leaf: Tensor | None) -> None:
        """See ``Site.listen``."""
        self.mask.listener = None if leaf is None else (leaf,)

    def magnitude(self) -> Tensor:
        """See ``Site.magnitude``."""
        weight = original(self.module, self.tensor).detach()
        single = self.mask.block == (1, 1)
        return weight.abs() if single else block_sums(weight.square(), self.mask.block)

    def empty(self) -> Tensor:
        """See ``Site.empty``."""
        return self.magnitude() == 0


class GateSite(Site):
    """A group with gates of 0 and 1.

    Args:
        model: The model.
        group: The group.
        gate: Its gates.
    """

    def __init__(self, model: nn.Module, group: Group, gate: FixedGate) -> None:
        super().__init__(group.name)
        self.model, self.group, self.gate = model, group, gate

    @property
    def open(self) -> Tensor:
        """See ``Site.open``."""
        return self.gate.open != 0

    def reference(self) -> Tensor:
        """See ``Site.reference``."""
        return self.gate.open

    def close(self, open_units: Tensor) -> None:
        """See ``Site.close``."""
        self.gate.open.copy_(open_units)

    def listen(self, leaf: Tensor | None) -> None:
        """See ``Site.listen``."""
        self.gate.listener = None if leaf is None else (leaf,)

    def magnitude(self) -> Tensor:
        """See ``Site.magnitude``."""
        return torch.stack([self._squares(slot) for slot in self.group.cut]).sum(0)

    def _squares(self, slot: Slot) -> Tensor:
        tensor = original(self.model.get_submodule(slot.module), slot.tensor).detach().movedim(slot.axis, 0)
        pieces = tensor[slot.start : slot.start + self.group.units * slot.width]
        return pieces.reshape(self.group.units, -1).square().sum(1)

    def empty(self) -> Tensor:
        """See ``Site.empty``."""
        if not self.group.gated:
            return torch.zeros_like(self.open)
        return torch.stack([self._squares(slot) for slot in self.group.gated]).sum(0) == 0
