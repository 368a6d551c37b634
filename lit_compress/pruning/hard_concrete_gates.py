"""Gates that are learned: each is drawn from a hard concrete distribution whose location is a parameter."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_compress.models.transforms import record
from lit_compress.pruning.gates import Gate, gates_of, install_gates
from lit_compress.pruning.groups import Group, find_groups
from lit_compress.pruning.hard_concrete import BETA, deterministic_gates, probability_open, sample_gates
from lit_compress.pruning.lagrangian import Multipliers

#: Range of the locations; the published code of the paper brings them back into it after every step.
LIMIT = math.log(100.0)
#: How gates of evaluation are made: ``threshold`` by equation 13 of arXiv:1712.01312, ``expected`` as the published
#: code of FLOP and CoFi does.
EVALUATIONS = ("threshold", "expected")
# Steepness of the gates of evaluation in the code of FLOP (``hardconcrete.py``) and CoFi.
_STEEPNESS = 0.8
# Nothing is left of a model without hidden dimensions; without rank a matrix would silence what it feeds, and more
# would be gone than is counted.
_KEEP_ONE = ("hidden", "rank")
# The start is spread by this much, so that units that began alike can part.
_SPREAD = 0.01


class HardConcreteGate(Gate):
    """Gates of one group that are drawn anew for every forward pass of training (arXiv:1712.01312).

    Evaluation has no randomness. With ``threshold`` the gate is the stretched sigmoid of the paper (equation 13), with
    ``expected`` the ``round(n - E[L0])`` units of lowest location are closed, so that as many are closed as are
    expected to be, and the others have ``sigmoid(0.8 log_alpha / beta)``.

    Once a gate is settled (see ``settle``), training and evaluation have the same gates, for good.

    Args:
        units: Number of units.
        log_alpha: Location that all units start from, in ``[-log 100, log 100]``.
        beta: Temperature.
        evaluation: ``threshold`` or ``expected``.
        seed: Seed of the small spread of the start.
        keep_one: Whether evaluation keeps the unit of highest location open, whatever its location.
    """

    settled: Tensor

    def __init__(
        self,
        units: int,
        log_alpha: float = 0.0,
        beta: float = BETA,
        evaluation: str = "threshold",
        seed: int = 0,
        keep_one: bool = False,
    ) -> None:
        super().__init__(units)
        check_evaluation(evaluation)
        self.beta, self.evaluation, self.keep_one = beta, evaluation, keep_one
        spread = _SPREAD * torch.randn(units, generator=torch.Generator().manual_seed(seed))
        self.log_alpha = nn.Parameter((log_alpha + spread).clamp(-LIMIT, LIMIT))
        # Below 0 where a unit is not settled yet.
        self.register_buffer("settled", torch.full((units,), -1.0))
        #: Source of the random numbers; torch's global one where ``None``.
        self.generator: torch.Generator | None = None

    def values(self) -> Tensor:
        """Return random gates; see ``Gate.values``."""
        return self._unless_settled(sample_gates(self.log_alpha, self.beta, generator=self.generator))

    def decided(self) -> Tensor:
        """Return the gates of evaluation; see ``Gate.decided``."""
        order = self.log_alpha.argsort().argsort()  # the place of each unit, 0 for the lowest
        if self.evaluation == "threshold":
            free = deterministic_gates(self.log_alpha)
        else:
            closed = torch.round(self.units - self._free_probability().sum())
            free = torch.where(order < closed, 0.0, self.soft())
        if self.keep_one:
            free = torch.where((order == self.units - 1) & (free == 0), self.soft(), free)
        return self._unless_settled(free)

    def soft(self) -> Tensor:
        """Return gates ``(units,)`` that are never 0: ``sigmoid(0.8 log_alpha / beta)``."""
        return torch.sigmoid(_STEEPNESS / self.beta * self.log_alpha)

    def open_probability(self) -> Tensor:
        """Return the probability that each unit is open; see ``Gate.open_probability``."""
        free = self._free_probability()
        return torch.where(self.settled >= 0, (self.settled > 0).to(free.dtype), free)

    def settle(self, values: Tensor) -> None:
        """Fix the gates for the rest of training and for evaluation.

        Args:
            values: ``(units,)`` in [0, 1].
        """
        self.settled.copy_(values.detach())

    @torch.no_grad()
    def clamp_(self) -> None:
        """Bring the locations back into their range."""
        self.log_alpha.clamp_(-LIMIT, LIMIT)

    def _free_probability(self) -> Tensor:
        return probability_open(self.log_alpha, self.beta)

    def _unless_settled(self, free: Tensor) -> Tensor:
        # No branch: it would wait for the device in every step.
        return torch.where(self.settled >= 0, self.settled.to(free.dtype), free)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the source of random numbers: a copy must not draw from that of a fit."""
        return {**super().__getstate__(), "generator": None}


def apply_hard_concrete_gates(
    model: nn.Module,
    structures: Sequence[str],
    log_alpha: Mapping[str, float],
    beta: float = BETA,
    evaluation: str = "threshold",
    multipliers: bool = False,
    part: str = "l0",
) -> None:
    """Put hard concrete gates on every unit of some structures.

    Args:
        model: A transformer of a supported family; changed in place, once.
        structures: Some of ``lit_compress.pruning.groups.STRUCTURES``.
        log_alpha: Location at the start by structure.
        beta: Temperature.
        evaluation: ``threshold`` or ``expected``, see ``HardConcreteGate``.
        multipliers: Whether the gates also hold the Lagrange multipliers of a target.
        part: Name of these gates, where a model has several sets of them.

    Raises:
        ValueError: A structure is unknown, absent or gated already, or a start is missing.
    """
    structures = list(structures)
    missing = [name for name in structures if name not in log_alpha]
    if missing:
        raise ValueError(f"Expected a start for every structure but got none for {', '.join(missing)}.")
    starts = {name: float(log_alpha[name]) for name in structures}
    arguments: dict[str, Any] = {"structures": structures, "log_alpha": starts, "beta": beta}
    arguments |= {"evaluation": evaluation, "multipliers": multipliers, "part": part}
    if not record(model, "hard_concrete_gates", arguments):
        return

    def make(group: Group) -> Gate:
        # A seed of its own per group: the same start whatever else the model has, and no global random state.
        seed = zlib.crc32(group.name.encode())
        keep_one = group.structure in _KEEP_ONE
        return HardConcreteGate(group.units, starts[group.structure], beta, evaluation, seed, keep_one)

    gates = install_gates(model, find_groups(model, structures), make)  # type: ignore[arg-type]
    if multipliers:
        gates[multipliers_name(part)] = Multipliers()


def check_evaluation(evaluation: str) -> None:
    """Refuse an unknown kind of evaluation.

    Raises:
        ValueError: It is none of ``EVALUATIONS``.
    """
    if evaluation not in EVALUATIONS:
        raise ValueError(f"Expected evaluation to be one of {', '.join(EVALUATIONS)} but got {evaluation!r}.")


def start_of(drop: float) -> float:
    """Return the location ``log((1 - d) / d)`` that gates start from (arXiv:1712.01312, section 4).

    Args:
        drop: Share d of the units that is expected to be dropped, in (0, 1).

    Raises:
        ValueError: It is no share.
    """
    if not 0.0 < drop < 1.0:
        raise ValueError(f"Expected drop between 0 and 1 (a share of the units) but got {drop}.")
    return min(LIMIT, max(-LIMIT, math.log((1.0 - drop) / drop)))


def multipliers_name(part: str) -> str:
    """Return the name of the multipliers of a set of gates among the gates of the model."""
    return f"{part} multipliers"


def multipliers_of(model: nn.Module, part: str) -> Multipliers:
    """Return the Lagrange multipliers of a set of gates."""
    gates = gates_of(model)
    assert gates is not None
    return gates[multipliers_name(part)]  # type: ignore[return-value]
