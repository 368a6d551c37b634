"""Taking everything of ours out of a model, with what it did to the weights."""

from __future__ import annotations

from torch import Tensor, nn

from lit_compress.models.transforms import forget
from lit_compress.pruning.folding import fold
from lit_compress.pruning.gates import remove_gates
from lit_compress.pruning.masks import Masked, MaskedBias

#: Transforms that leave nothing behind but changed weights.
_FOLDED = ("fixed_gates", "weight_masks", "hard_concrete_gates")


def bake(model: nn.Module) -> dict[str, Tensor]:
    """Fold gates and masks into the weights; the state dict has its original names again.

    Args:
        model: Changed in place.

    Returns:
        The gates of evaluation by the name of their group; empty where there were none.
    """
    fold(model, (Masked, MaskedBias))
    gates = remove_gates(model)
    for name in _FOLDED:
        forget(model, name)
    return gates
