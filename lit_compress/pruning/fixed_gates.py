"""The transform that puts gates of 0 and 1 on a model."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from lit_compress.models.transforms import record
from lit_compress.pruning.gates import FixedGate, install_gates
from lit_compress.pruning.groups import find_groups


def apply_fixed_gates(model: nn.Module, structures: Sequence[str]) -> None:
    """Put an open gate on every unit of some structures.

    Args:
        model: A transformer of a supported family; changed in place, once.
        structures: Some of ``lit_compress.pruning.groups.STRUCTURES``.

    Raises:
        ValueError: A structure is unknown, absent or gated already.
    """
    structures = list(structures)
    if record(model, "fixed_gates", {"structures": structures}):
        install_gates(model, find_groups(model, structures), lambda group: FixedGate(group.units))  # type: ignore[arg-type]
