"""Patterns of weights: single ones, blocks, and n of m."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_compress.models.anatomy import dissect
from lit_compress.pruning.counting import encoder_matrices
from lit_compress.pruning.masks import apply_weight_masks, input_axis, mask_on
from lit_compress.pruning.pattern import Pattern, matching
from lit_compress.pruning.ranking import lowest, share_to_count
from lit_compress.pruning.sites import MaskSite, Site
from lit_compress.pruning.target import Target


class Weights(Pattern):
    """Single weights, or blocks of them, of the matrices inside the blocks.

    Args:
        scope: ``global`` ranks all matrices together, ``local`` removes the same share of each.
        block: Outputs and inputs per block.
        include: Parts of the names of more matrices to prune.
        exclude: Parts of the names of matrices that stay whole.
        part: Name of the masks in the checkpoint.
    """

    def __init__(
        self, scope: str, block: tuple[int, int], include: Sequence[str], exclude: Sequence[str], part: str
    ) -> None:
        super().__init__(scope)
        if min(block) < 1:
            raise ValueError(f"Expected block to have sizes of at least 1 but got {list(block)}.")
        self.block, self.include, self.exclude, self.part = block, include, exclude, part
        self._sizes: dict[str, int] = {}

    def apply(self, model: nn.Module) -> None:
        """Put masks on the matrices; see ``Pattern.apply``."""
        apply_weight_masks(model, self._names(model), self.block, self.part)

    def _names(self, model: Any) -> list[str]:
        inside = encoder_matrices(model, dissect(model))
        others = [name for name in _matrices(model) if name not in inside]
        more = matching(others, self.include, "include")
        dropped = matching([*inside, *more], self.exclude, "exclude")
        names = [name for name in [*inside, *more] if name not in dropped]
        if not names:
            raise ValueError(
                f"Expected matrices to prune but exclude={list(self.exclude)} leaves none of {len(dropped)}; shorten "
                "it."
            )
        return names

    def sites(self, model: nn.Module) -> list[Site]:
        """Return the matrices; see ``Pattern.sites``."""
        found: list[Site] = []
        for name in self._names(model):
            path, _, tensor = name.rpartition(".")
            module = model.get_submodule(path)
            mask = mask_on(module, tensor)
            assert mask is not None
            found.append(MaskSite(name, module, tensor, mask))
        return found

    def prepare(self, model: Any, sites: Sequence[Site], target: Target | None) -> None:
        """Refuse speed-ups and targets out of reach; see ``Pattern.prepare``."""
        self._sizes = {site.name: site.open.numel() for site in sites}
        self.pools = [[name] for name in self._sizes]
        if target is None:
            return
        if target.speedup is not None:
            raise ValueError(
                "Expected target.sparsity, because zeros make no model faster, but got target.speedup; prune head, "
                "neuron and other units that can be cut out."
            )
        for total in self._sizes.values() if self.scope == "local" else [sum(self._sizes.values())]:
            if share_to_count(target.removed, total) >= total:
                raise ValueError(
                    f"Expected target.sparsity of at most {1 - 1 / total:.6g}, which leaves one of {total} units, but "
                    f"got {target.sparsity}; lower it."
                )

    def decide(self, values: Mapping[str, Tensor], removed: float) -> dict[str, Tensor]:
        """Close the lowest ones, exactly as many as the share says; see ``Pattern.decide``."""
        if self.scope == "local":
            return {name: self._one(scores, removed) for name, scores in values.items()}
        flat = self._one(torch.cat([scores.flatten() for scores in values.values()]), removed)
        parts = flat.split([scores.numel() for scores in values.values()])
        return {name: part.view_as(values[name]) for name, part in zip(values, parts, strict=True)}

    def _one(self, scores: Tensor, removed: float) -> Tensor:
        count = share_to_count(removed, scores.numel())
        return ~lowest(scores.flatten(), count).view(scores.shape)

    def gone(self, open_units: Mapping[str, Tensor]) -> float:
        """Return the share of closed weights; see ``Pattern.gone``."""
        left = sum(int(units.count_nonzero()) for units in open_units.values())
        return 1.0 - left / sum(self._sizes.values())


class NofM(Weights):
    """``n`` of ``m`` consecutive inputs of every output are kept, those with the highest scores.

    Sparse tensor cores read 2:4 (Mishra et al. 2021, arXiv:2104.08378). On the way to the target fewer are removed
    from every group of ``m``.

    Args:
        kept: ``n``.
        of: ``m``.
        include: Parts of the names of more matrices to prune.
        exclude: Parts of the names of matrices that stay whole.
        part: Name of the masks in the checkpoint.
    """

    def __init__(self, kept: int, of: int, include: Sequence[str], exclude: Sequence[str], part: str) -> None:
        super().__init__("local", (1, 1), include, exclude, part)
        if not 0 < kept < of:
            raise ValueError(f"Expected structure n:m with 0 < n < m (n kept of m) but got {kept}:{of}.")
        self.kept, self.of = kept, of
        self._axes: dict[str, int] = {}

    def prepare(self, model: Any, sites: Sequence[Site], target: Target | None) -> None:
        """Refuse another target than the pattern has, and rows that it does not fill; see ``Pattern.prepare``."""
        super().prepare(model, sites, target)
        share = 1 - self.kept / self.of
        if target is None or abs(target.removed - share) > 1e-9:
            raise ValueError(
                f"Expected target.sparsity={share:g} for {self.kept}:{self.of}, which keeps {self.kept} of {self.of} "
                f"inputs everywhere, but got {None if target is None else target.sparsity}; set it to {share:g}."
            )
        for site in sites:
            assert isinstance(site, MaskSite)
            self._axes[site.name] = axis = input_axis(site.module)
            if site.open.shape[axis] % self.of:
                raise ValueError(
                    f"Expected a number of inputs that is a multiple of {self.of} but {site.name} has "
                    f"{site.open.shape[axis]}; leave it out with exclude."
                )

    def decide(self, values: Mapping[str, Tensor], removed: float) -> dict[str, Tensor]:
        """Close the lowest ones of every group; see ``Pattern.decide``."""
        count = math.floor(removed * self.of + 1e-9)
        return {name: self._groups(scores, self._axes[name], count) for name, scores in values.items()}

    def _groups(self, scores: Tensor, axis: int, count: int) -> Tensor:
        rows = scores.movedim(axis, -1)
        order = rows.reshape(-1, self.of).argsort(dim=1, stable=True)
        keep = torch.ones_like(order, dtype=torch.bool).scatter_(1, order[:, :count], False)
        return keep.view(rows.shape).movedim(-1, axis)


def _matrices(model: nn.Module) -> list[str]:
    """Return the names of the weights of all projections and embeddings."""
    names = []
    for path, module in model.named_modules():
        try:
            input_axis(module)
        except ValueError:
            continue
        names.append(f"{path}.weight")
    return names
