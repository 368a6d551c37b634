"""Time as the cost of a model: a table of milliseconds against what is kept, measured once for a machine."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lit_compress.models.anatomy import dissect
from lit_compress.pruning.groups import STRUCTURES, Group
from lit_compress.pruning.latency_setting import Setting
from lit_compress.pruning.target import Target

#: Parts of the model that have curves over the hidden size: those outside the blocks, and what a block costs besides
#: its attentions and its feed-forward network.
CONSTANT, LAYER = "constant", "layer"
_DEFAULT = Setting()
# Ends the names of the curves of the last block, where they are its own.
_LAST = " of the last block"


@dataclass(frozen=True)
class Curve:
    """A piecewise-linear function of the number of kept units.

    Args:
        units: Numbers of units, increasing.
        values: Milliseconds, or factors, at these numbers.
    """

    units: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check the points."""
        steps = zip(self.units, self.units[1:], strict=False)
        if len(self.units) < 2 or len(self.units) != len(self.values) or any(a >= b for a, b in steps):
            raise ValueError(
                f"Expected two or more increasing numbers of units, each with a value, but got {self.units} and "
                f"{self.values}; measure the table again."
            )

    def __call__(self, kept: Tensor) -> Tensor:
        """Return the values at some numbers of units; beyond the ends the last segment's end counts.

        Args:
            kept: Any shape; the gradient is the slope of the segment.
        """
        units = torch.tensor(self.units, dtype=kept.dtype, device=kept.device)
        values = torch.tensor(self.values, dtype=kept.dtype, device=kept.device)
        kept = kept.clamp(self.units[0], self.units[-1])
        at = torch.searchsorted(units[1:-1], kept.detach().contiguous(), right=True)
        slope = (values[1:] - values[:-1]) / (units[1:] - units[:-1])
        return values[at] + slope[at] * (kept - units[at])


@dataclass(frozen=True)
class Part:
    """An attention or a feed-forward network, and the gates that decide what it costs.

    Args:
        kind: Name of its curve.
        units: Number of its units.
        inside: Name of the group of its heads or neurons.
        whole: Name of its own group.
        layer: Name of the group of its block.
    """

    kind: str
    units: int
    inside: str
    whole: str
    layer: str


class LatencyTable:
    """Milliseconds of a model under gates, as the sum of its parts.

    An attention with ``k`` kept heads and a feed-forward network with ``k`` kept neurons cost what the table says,
    between its points what lies on the straight line. Runtimes that compute one token in the last block have curves for
    it alone. A block costs something of its own (norms, residual sums),
    which only goes with the whole block. All else is constant: embeddings, pooler, task head, the vocabulary, and,
    where the last block has curves of its own, what its attention costs besides its heads.
    Where hidden dimensions are pruned too, each part is multiplied with a factor that was measured at a few hidden
    sizes; that the factor does not depend on the number of heads and neurons is an approximation.

    Args:
        curves: Curve of each kind of part over its kept units, 0 at 0 units, in milliseconds.
        layer: Milliseconds of a block besides its parts, by the path of its list with ``*`` for its number.
        constant: Milliseconds of all else.
        hidden: Factor over the hidden size of each kind, and of ``constant`` and ``layer``; ``None`` where the
            hidden size was not varied.
        model: The model whose gates are counted.

    Raises:
        ValueError: The model has a part without a curve.
    """

    def __init__(
        self,
        curves: Mapping[str, Curve],
        layer: Mapping[str, float],
        constant: float,
        model: PreTrainedModel,
        hidden: Mapping[str, Curve] | None = None,
    ) -> None:
        self.curves, self.layer, self.constant = dict(curves), dict(layer), constant
        self.hidden = dict(hidden) if hidden is not None else None
        self.parts = parts_of(model, any(kind.endswith(_LAST) for kind in self.curves))
        self.blocks = [block.path for block in dissect(model).blocks]
        missing = {part.kind for part in self.parts} - set(self.curves)
        missing |= {pattern(path) for path in self.blocks} - set(self.layer)
        if missing:
            raise ValueError(
                f"Expected a table of latencies with all parts of the model but {sorted(missing)[0]} is missing; "
                "measure one for this model with LatencyTable.of."
            )
        self.total = float(self.latency_ms({}))
        #: What the table was made of and for, as plain JSON data; ``of`` takes it back as ``known``.
        self.record: dict[str, Any] | None = None

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        groups: Sequence[Group],
        setting: Setting = _DEFAULT,
        known: Mapping[str, Any] | None = None,
    ) -> LatencyTable:
        """Return the table of a model on this machine: from the cache, else measured, which takes up to a minute.

        Args:
            model: A transformer of a supported family, with or without gates; not changed.
            groups: Every group that can be closed.
            setting: What to measure with.
            known: ``record`` of a table, such as that of the checkpoint of a fit; it counts, whatever is in the cache,
                where it is of this machine, model and setting.

        Raises:
            ValueError: A group's time is not known, or the setting cannot be measured with.
        """
        from lit_compress.pruning.latency_cache import measured_or_cached

        _check(groups)
        varied = any(group.structure == "hidden" for group in groups)
        return measured_or_cached(model, varied, setting, known)

    def latency_ms(self, gates: Mapping[str, Tensor]) -> Tensor:
        """Return the milliseconds under gates, differentiable and piecewise linear in the kept units.

        Args:
            gates: 0 and 1, or probabilities, ``(units,)`` by the name of the group; a group that is not there is
                open.
        """
        like = next(iter(gates.values())).sum() if gates else torch.zeros((), dtype=torch.float64)
        factor = self._hidden_factors(gates)
        ms = like.new_tensor(self.constant) * factor.get(CONSTANT, 1.0)
        for path in self.blocks:
            own = _open(gates, f"{path}.layer", like) * self.layer[pattern(path)]
            ms = ms + own * factor.get(LAYER, 1.0)
        for kind, curve in self.curves.items():
            parts = [part for part in self.parts if part.kind == kind]
            if parts:
                kept = torch.stack([_kept(gates, part, like) for part in parts])
                alive = [_open(gates, part.whole, like) * _open(gates, part.layer, like) for part in parts]
                ms = ms + (curve(kept) * torch.stack(alive)).sum() * factor.get(kind, 1.0)
        return ms

    def _hidden_factors(self, gates: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if "hidden" not in gates:
            return {}
        if self.hidden is None:
            raise ValueError(
                "Expected a table of latencies that was measured at several hidden sizes but this one was not; give "
                "the hidden group to LatencyTable.of."
            )
        kept = gates["hidden"].sum()
        return {kind: curve(kept) for kind, curve in self.hidden.items()}

    def removed(self, gates: Mapping[str, Tensor]) -> Tensor:
        """Return the share of the time that is gone; see ``Cost.removed``."""
        return 1.0 - self.latency_ms(gates) / self.total

    def speedup(self, gates: Mapping[str, Tensor]) -> Tensor:
        """Return how many times faster the model is than with all gates open."""
        return self.total / self.latency_ms(gates)


def speedup_figures(cost: Any, target: Target, gates: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the asked speed-up and the one by the table, to be logged; nothing for a target of sparsity.

    Args:
        cost: What ``cost_of`` returned.
        target: The target.
        gates: Gates by the name of their group.
    """
    if target.speedup is None or not isinstance(cost, LatencyTable):
        return {}
    with torch.no_grad():
        found = float(cost.speedup(gates))
    return {"compress/speedup_asked": target.speedup, "compress/speedup_table": found}


def record_of(cost: Any) -> dict[str, Any]:
    """Return ``{"latency": …}`` with the record of a table, for a checkpoint; nothing for another cost."""
    record = cost.record if isinstance(cost, LatencyTable) else None
    return {} if record is None else {"latency": record}


def parts_of(model: PreTrainedModel, last_differs: bool = False) -> list[Part]:
    """Return the attentions and feed-forward networks of a model, block by block.

    Args:
        model: A transformer of a supported family.
        last_differs: Whether those of the last block are of kinds of their own; see ``Runtime.narrow_end``.
    """
    parts = []
    blocks = dissect(model).blocks
    for number, block in enumerate(blocks):
        layer = f"{block.path}.layer"
        end = _LAST if last_differs and number == len(blocks) - 1 else ""
        for attention in block.attentions:
            names = (f"{attention.module}.head", f"{attention.module}.attention")
            parts.append(Part(_kind(names[0], attention.heads) + end, attention.heads, *names, layer))
        if block.feed_forward is not None:
            module, neurons = block.feed_forward.module, block.feed_forward.neurons
            names = (f"{module}.neuron", f"{module}.feed_forward")
            parts.append(Part(_kind(names[0], neurons) + end, neurons, *names, layer))
    return parts


def is_last_attention(part: Part) -> bool:
    """Whether a part is an attention of the last block, and of a kind of its own."""
    return part.kind.endswith(_LAST) and part.inside.endswith(".head")


def pattern(path: str) -> str:
    """Return a path with ``*`` for every number in it: blocks of one list have one pattern."""
    return re.sub(r"(^|\.)\d+(?=\.|$)", r"\1*", path)


def _kind(name: str, units: int) -> str:
    return f"{pattern(name)}/{units}"


def _open(gates: Mapping[str, Tensor], name: str, like: Tensor) -> Tensor:
    return gates[name].reshape(()).to(like) if name in gates else like.new_ones(())


def _kept(gates: Mapping[str, Tensor], part: Part, like: Tensor) -> Tensor:
    return gates[part.inside].sum().to(like) if part.inside in gates else like.new_tensor(float(part.units))


def _check(groups: Sequence[Group]) -> None:
    unknown = sorted({group.structure for group in groups} - set(STRUCTURES))
    if unknown:
        raise ValueError(
            f"Expected structures whose time can be measured ({', '.join(STRUCTURES)}) for target.speedup but got "
            f"{', '.join(unknown)}; give target.sparsity, or other structures."
        )
