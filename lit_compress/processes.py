"""Whether several processes train one model together."""

from __future__ import annotations

import torch.distributed as distributed


def train_together() -> bool:
    """Return whether this process is one of a group, whose tensors can be reduced."""
    return distributed.is_available() and distributed.is_initialized()
