"""How many weights are left when units are closed, or are expected to be left when gates are random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lit_compress.models.anatomy import Anatomy, dissect
from lit_compress.models.low_rank import LowRankLinear, ends
from lit_compress.pruning.groups import Group, projections, tensor_of


class WeightCount:
    """Counts the weights of the encoder blocks under gates.

    Each tensor keeps the product of what its groups leave of it: the output projection of an attention with half
    of its heads in a model with half of its hidden dimensions keeps a quarter (Xia et al., CoFi,
    arXiv:2204.00408, equation 4). Norms and biases are not counted, embeddings and heads of tasks neither: this is
    the "encoder" whose sparsity papers report.

    Args:
        model: A transformer of a supported family.
        groups: Every group that has gates.
        tensors: Names of the tensors to count instead of the encoder's matrices.
        merged: Count a factorised matrix as one where that is smaller, as the shrunk model has it. Then closing
            one of many dimensions changes nothing: it is for measuring, not for learning.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        groups: Sequence[Group],
        tensors: Sequence[str] | None = None,
        merged: bool = False,
    ) -> None:
        names = encoder_matrices(model, dissect(model)) if tensors is None else tensors
        self._sizes = {name: named_tensor(model, name).numel() for name in names}
        self._factors = _factors(model, self._sizes)
        self._merged = merged
        self._shares: list[tuple[str, str, float]] = []
        for group in groups:
            self._add(model, group)

    def _add(self, model: nn.Module, group: Group) -> None:
        covered: dict[str, float] = {}
        for slot in group.cut:
            if slot.name in self._sizes:
                axis = tensor_of(model, slot).shape[slot.axis]
                covered[slot.name] = covered.get(slot.name, 0.0) + group.units * slot.width / axis
        self._shares += [(name, group.name, share) for name, share in covered.items()]

    @property
    def total(self) -> int:
        """Weights of the full encoder; where a matrix is factorised, those of the matrix."""
        factors = sum(self._sizes[name] for pair in self._factors for name in pair)
        return sum(self._sizes.values()) - factors + sum(self._factors.values())

    @property
    def stored(self) -> int:
        """Weights that the model has as it is now, with both factors of a factorised matrix."""
        return sum(self._sizes.values())

    def kept(self, gates: Mapping[str, Tensor]) -> Tensor:
        """Return the number of weights left.

        Args:
            gates: Probability that each unit is open, or 0 and 1, by the name of the group, shape ``(units,)``; a
                group that is not given is open.

        Returns:
            A scalar, differentiable with respect to the gates.
        """
        left: dict[str, Tensor | float] = dict.fromkeys(self._sizes, 1.0)
        means = {name: gate.float().mean() for name, gate in gates.items()}
        for tensor, group, share in self._shares:
            if group in means:
                left[tensor] = left[tensor] * (1.0 - share + share * means[group])
        device = next((mean.device for mean in means.values()), None)
        counts = {
            name: torch.as_tensor(left[name], device=device) * size for name, size in self._sizes.items()
        }
        if self._merged:
            for (reduce, expand), size in self._factors.items():
                product = counts.pop(reduce) + counts.pop(expand)
                counts[expand] = product.clamp(max=size)
        return torch.stack(list(counts.values())).sum()

    def removed(self, gates: Mapping[str, Tensor]) -> Tensor:
        """Return the share of the weights that is removed, in [0, 1]: the sparsity."""
        return 1.0 - self.kept(gates) / self.total


def _factors(model: nn.Module, names: Mapping[str, int]) -> dict[tuple[str, str], int]:
    """Return the size of the matrix that two counted factors stand for."""
    found = {}
    for path, module in model.named_modules():
        if isinstance(module, LowRankLinear):
            first, second = (f"{end}.weight" for end in ends(module, path))
            if first in names and second in names:
                found[first, second] = module.in_features * module.out_features
    return found


def named_tensor(model: nn.Module, name: str) -> Tensor:
    """Return a tensor by its name, as the model computes with it."""
    module, _, tensor = name.rpartition(".")
    return getattr(model.get_submodule(module), tensor)


def encoder_matrices(model: nn.Module, anatomy: Anatomy) -> list[str]:
    """Return the names of the weight matrices inside the blocks, each once.

    Args:
        model: The model.
        anatomy: Its anatomy.

    Returns:
        Names of parameters (as the model computes with them, whether they are parametrized or not).
    """
    paths = dict.fromkeys(path for block in anatomy.blocks for path in projections(block))
    matrices = dict.fromkeys(end for path in paths for end in ends(model.get_submodule(path), path))
    return [f"{path}.weight" for path in matrices]
