"""How far quantization-aware training has come: whether ranges are still observed, and whether values are rounded."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

#: Ranges are observed, nothing is rounded; values are rounded and ranges follow; ranges are fixed.
OBSERVE, ROUND, FROZEN = range(3)


class Staged(nn.Module):
    """A quantizer whose stage is a buffer, so that checkpoints have it, and is read from it only when it may be new."""

    stage: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("stage", torch.tensor(OBSERVE, dtype=torch.uint8))
        # A device must not be waited for in every forward pass.
        self._known: int | None = OBSERVE

    def set_stage(self, stage: int) -> None:
        """Go to a stage."""
        if stage != self._current():
            self.stage.fill_(stage)
            self._known = stage

    @property
    def rounds(self) -> bool:
        """Whether values are rounded."""
        return self._current() != OBSERVE

    @property
    def is_frozen(self) -> bool:
        """Whether ranges are fixed."""
        return self._current() == FROZEN

    def _current(self) -> int:
        if self._known is None:
            self._known = int(self.stage)
        return self._known

    def after_load(self) -> None:
        """Read the stage anew: the buffer was filled from outside."""
        self._known = None

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.after_load()
