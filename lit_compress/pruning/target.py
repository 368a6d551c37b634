"""How much is to be removed: a sparsity, or a speed-up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor
from transformers import PreTrainedModel

from lit_compress.benchmark.protocol import BASELINE_RUNTIME
from lit_compress.pruning.counting import WeightCount
from lit_compress.pruning.groups import Group
from lit_compress.pruning.latency_setting import Setting


@dataclass(frozen=True)
class Target:
    """What pruning aims at: give ``sparsity`` or ``speedup``.

    Args:
        sparsity: Share of the weights of the encoder blocks to remove, in (0, 1).
        speedup: How many times faster the whole model is to be, above 1, by a table of latencies measured on
            this machine.
        device: Device of the speed-up: ``cpu`` or ``cuda``.
        batch: Texts at once for the speed-up.
        length: Tokens per text for the speed-up.
        runtime: Runtime of the speed-up, as ``lit-compress benchmark --runtimes`` names it. What computes with integers
            is measured with 8 bits everywhere. Parts cost other shares of the time there than in torch: a head that is
            alone in its attention costs two in torch and little more than one in ONNX Runtime; and the neurons of the
            last block cost a sixth of those of others (25 tokens, ONNX Runtime), because exports compute one token
            there. Models of every size are exported for it once, which takes less than a minute for ONNX Runtime and
            several for LiteRT.
    """

    sparsity: float | None = None
    speedup: float | None = None
    device: str = "cpu"
    batch: int = 1
    length: int = 64
    runtime: str = BASELINE_RUNTIME

    def __post_init__(self) -> None:
        """Check the numbers."""
        if (self.sparsity is None) == (self.speedup is None):
            raise ValueError(
                f"Expected target to have a sparsity or a speedup but got sparsity={self.sparsity} and "
                f"speedup={self.speedup}; give one of them."
            )
        if self.sparsity is not None and not 0.0 < self.sparsity < 1.0:
            raise ValueError(
                f"Expected target.sparsity between 0 and 1 (share removed) but got {self.sparsity}."
            )
        if self.speedup is not None and self.speedup <= 1.0:
            raise ValueError(f"Expected target.speedup above 1 but got {self.speedup}.")
        if self.runtime != BASELINE_RUNTIME:
            from lit_compress.pruning.latency_runtime import check_runtime

            check_runtime(self.runtime, self.device)

    @property
    def removed(self) -> float:
        """Share of the cost (weights or time) that is to go."""
        if self.sparsity is not None:
            return self.sparsity
        assert self.speedup is not None
        return 1.0 - 1.0 / self.speedup

    @property
    def setting(self) -> Setting:
        """What a speed-up is measured with."""
        return Setting(self.device, self.batch, self.length, runtime=self.runtime)


class Cost(Protocol):
    """What a target is counted in."""

    def removed(self, gates: Mapping[str, Tensor]) -> Tensor:
        """Return the share of the cost that is gone, a differentiable scalar.

        Args:
            gates: 0 and 1, or probabilities, ``(units,)`` by the name of the group; a group that is not there is
                open.
        """


def cost_of(
    target: Target,
    model: PreTrainedModel,
    groups: Sequence[Group],
    known: Mapping[str, Any] | None = None,
) -> Cost:
    """Return what a target is counted in.

    Args:
        target: The target.
        model: The model, with or without gates.
        groups: Every group that can be closed.
        known: Record of a table of latencies from a checkpoint; see ``LatencyTable.of``.
    """
    if target.sparsity is not None:
        return WeightCount(model, groups)
    from lit_compress.pruning.latency import LatencyTable

    return LatencyTable.of(model, groups, target.setting, known)
