"""Pruning by learned gates: L0 regularisation, FLOP and CoFi."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Adam, Optimizer
from transformers import PreTrainedModel

from lit_compress.callbacks.transform import TransformCallback, model_of, own_group, rounding_for
from lit_compress.pruning.compressed_size import compressed_size
from lit_compress.pruning.counting import WeightCount
from lit_compress.pruning.gates import Gates, gates_of
from lit_compress.pruning.groups import Group
from lit_compress.pruning.hard_concrete import BETA
from lit_compress.pruning.hard_concrete_gates import (
    HardConcreteGate,
    apply_hard_concrete_gates,
    check_evaluation,
    multipliers_of,
    start_of,
)
from lit_compress.pruning.latency import record_of, speedup_figures
from lit_compress.pruning.low_rank import apply_low_rank, check_rank, default_ranks
from lit_compress.pruning.settle import TOLERANCE, settle
from lit_compress.pruning.target import Cost, Target, cost_of
from lit_compress.schedules import Linear, Progress, Schedule

_STRUCTURES = ("head", "neuron", "attention", "feed_forward", "hidden", "rank")
# Share of units that the start expects to be dropped: CoFi's 0.5 for neurons is too much for a short fit.
_DROP = {"neuron": 0.5}
_DROP_ELSE = 0.01


class L0Pruning(TransformCallback):
    """Learn which units a model needs, by gates that are drawn from a hard concrete distribution.

    ======================  ========================================================================================
    Louizos, 1712.01312     ``structures: [head, neuron]`` with a ``penalty``
    FLOP, 1910.04732        ``structures: [rank]`` (factorised) or ``[neuron, head]``, a ``target``, ``beta: 1.0``,
                            ``evaluation: expected``
    CoFi, 2204.00408        ``structures: [head, neuron, attention, feed_forward, hidden]``, a ``target``,
                            ``evaluation: expected``, with ``LayerMatch`` and ``SoftTargets`` in ``Distillation``
    ======================  ========================================================================================

    With a ``penalty`` the loss gets ``penalty`` times the expected share of the encoder's weights that is kept. It is
    per share, not per weight: a rate per weight of the paper, times the number of weights, is this ``penalty`` (and
    a rate of its code, which is divided by the number of training examples N, times the number of weights, by N).

    With a ``target`` the loss gets ``l1 (s - t) + l2 (s - t)²``, where s is the expected share that is removed, t
    grows along ``ramp`` up to the target, and the multipliers ascend. At ``freeze_at`` the gates are decided for good:
    units are closed or opened in the order of their locations until the target is met, and the rest of the fit trains
    what will be shipped, without randomness.

    Gates and multipliers have an Adam of their own without weight decay, at constant rates. Random gates come from a
    generator of the callback, which is in the checkpoint.

    Args:
        structures: What to prune: some of ``head``, ``neuron``, ``attention``, ``feed_forward``, ``hidden``; or
            ``rank`` alone, which factorises all projections of the blocks. Heads and neurons where left out.
        target: What to reach; give this or ``penalty``.
        penalty: Weight of the expected share of weights kept, a positive number; give this or ``target``.
        ramp: Share of the target as a schedule from 0 to 1; linear over the first 30 % of the fit where left out.
        freeze_at: Fraction of the fit at which the gates are decided; ``null`` never decides them, and then the
            target is met only as well as the gates of evaluation happen to.
        gate_lr: Learning rate of the gates.
        multiplier_lr: Learning rate of the multipliers.
        drop: Share of units that the start expects to be dropped, ``d`` in ``log_alpha = log((1 - d) / d)``, for all
            structures; 0.5 for neurons and 0.01 for the others where left out.
        beta: Temperature of the distribution: 2/3 in the paper and in CoFi, 1 in FLOP.
        evaluation: Gates of evaluation: ``threshold`` (paper) or ``expected`` (code of FLOP and CoFi: closes as many
            units as are expected to be closed).
        low_rank: With ``rank``, where the factors start: ``full`` (computes what the model does, with more weights)
            or ``equal`` (as many weights, as FLOP; the model loses quality at once).
        part: Name of these gates; give another one where a recipe lists the callback twice.
        round_to: Ship a multiple of this many neurons per block; those that are too many are zeros. 1 for a sparsity,
            16 for a speed-up, which odd numbers miss in batches: ``docs/bench_speedup_target.md``.
    """

    def __init__(
        self,
        structures: list[str] | None = None,
        target: Target | None = None,
        penalty: float | None = None,
        ramp: Schedule | None = None,
        freeze_at: float | None = 0.7,
        gate_lr: float = 0.1,
        multiplier_lr: float = 0.1,
        drop: float | None = None,
        beta: float = BETA,
        evaluation: str = "threshold",
        low_rank: str = "full",
        part: str = "l0",
        round_to: int | None = None,
    ) -> None:
        super().__init__()
        self.structures = ["head", "neuron"] if structures is None else list(structures)
        _check_structures(self.structures, target)
        _check_aim(target, penalty, freeze_at)
        _check_numbers(gate_lr, multiplier_lr, beta)
        check_evaluation(evaluation)
        check_rank(low_rank)
        self.target, self.rate, self.freeze_at = target, penalty, freeze_at
        self.ramp = ramp or Linear(0.0, 1.0, 0.0, 0.3)
        self.gate_lr, self.multiplier_lr = gate_lr, multiplier_lr
        self.starts = {
            name: start_of(_DROP.get(name, _DROP_ELSE) if drop is None else drop) for name in self.structures
        }
        self.beta, self.evaluation, self.low_rank, self.part = beta, evaluation, low_rank, part
        self.round_to = rounding_for(round_to, self.structures, target)
        self.generator: torch.Generator | None = None
        self._generator_state: Tensor | None = None
        self._known_table: dict[str, Any] | None = None
        self._asked = 0.0
        self._cost: Cost | None = None
        self._weights: WeightCount | None = None
        self._term: Tensor | None = None
        self._decided = False

    @property
    def state_key(self) -> str:
        """Name of the state in checkpoints, one per set of gates."""
        return f"L0Pruning({self.part})"

    # -- structure -----------------------------------------------------------------------------------

    def restructure(self, model: nn.Module) -> None:
        """Factorise the projections for ``rank``; see ``TransformCallback.restructure``."""
        if "rank" in self.structures:
            apply_low_rank(model, default_ranks(model, self.low_rank))  # type: ignore[arg-type]

    def apply(self, model: nn.Module) -> None:
        """Put the gates on the model; see ``TransformCallback.apply``."""
        self.restructure(model)
        apply_hard_concrete_gates(
            model,
            self.structures,
            self.starts,
            self.beta,
            self.evaluation,
            multipliers=self.target is not None,
            part=self.part,
        )

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Apply the transform; what an earlier validation loaded is not where this fit goes on from."""
        self._known_table, self._generator_state = None, None
        super().setup(trainer, pl_module, stage)

    def _count(self, model: PreTrainedModel) -> None:
        groups = self._gates(model).groups
        self._weights = WeightCount(model, groups)
        self._cost = self._weights
        if self.target is None:
            return
        self._cost = cost_of(self.target, model, groups, self._known_table)
        closed = {}
        for group, gate in zip(self._own(model), self._own_gates(model), strict=True):
            closed[group.name] = torch.zeros(group.units)
            closed[group.name][: int(gate.keep_one)] = 1.0
        most = float(self._cost.removed(closed))
        if self.target.removed > most:
            asked = f"sparsity={self.target.sparsity}"
            if self.target.speedup is not None:
                asked, most = f"speedup={self.target.speedup}", 1.0 / (1.0 - most)
            raise ValueError(
                f"Expected a target that closing all of {', '.join(self.structures)} reaches, which is {most:.3f}, but "
                f"got {asked}; lower the target or add structures."
            )

    # -- training ------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the target, give the gates their random numbers; see ``TransformCallback.on_fit_start``."""
        self._count(model_of(pl_module))  # type: ignore[arg-type]
        super().on_fit_start(trainer, pl_module)
        # The same in all processes: they share the weights, so they had better share the gates.
        self.generator = torch.Generator().manual_seed(torch.initial_seed())
        if self._generator_state is not None:
            self.generator.set_state(self._generator_state)
            self._generator_state = None
        gates = self._own_gates(model_of(pl_module))
        for gate in gates:
            gate.generator = self.generator
        # Asked once per fit: it waits for the device. A checkpoint, or an earlier fit, may have decided them.
        self._decided = all(bool((gate.settled >= 0).all()) for gate in gates)

    def move(self, model: nn.Module, progress: Progress) -> None:
        """Move the target; decide the gates when it is time."""
        if self.target is not None:
            self._asked = self.target.removed * self.ramp.value(progress)
        if self.settled(progress) and self.freeze_at is not None and not self._decided:
            self._settle(model)  # type: ignore[arg-type]

    def settled(self, progress: Progress) -> bool:
        """Return whether the gates are decided; see ``TransformCallback.settled``."""
        return self.freeze_at is None or progress.fraction >= self.freeze_at

    def _settle(self, model: PreTrainedModel) -> None:
        cost, removed = None, 0.0
        if self.target is not None:
            removed = self.target.removed
            # A sparsity is that of the shipped model, where two factors are one matrix as soon as that is smaller.
            cost = self._measure(model) if self.target.speedup is None else self._cost
        self._decided = True
        missed = settle(self._gates(model), self._own(model), cost, removed)
        if abs(missed) > TOLERANCE:
            rank_zero_warn(
                f"{', '.join(self.structures)} cannot be cut finely enough for the target: {removed - missed:.4f} of "
                f"the cost is removed instead of {removed:.4f}."
            )

    def penalty(self, model: nn.Module) -> Tensor | None:
        """Return the term of the loss; nothing once the gates are decided."""
        self._term = None
        multipliers = None if self.target is None else multipliers_of(model, self.part)
        if self._decided:
            # Processes that share gradients wait for those of all parameters.
            return None if multipliers is None else 0.0 * (multipliers.lambda_1 + multipliers.lambda_2)
        assert self._cost is not None
        expected = self._cost.removed(self._gates(model).open_probability())
        if multipliers is None:
            assert self.rate is not None
            term = self.rate * (1.0 - expected)
        else:
            term = multipliers(expected, self._asked)
        self._term = term.detach()
        return term

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the term of the loss."""
        if self._term is not None:
            pl_module.log("train/sparsity_penalty", self._term)

    def own_optimizer(self, model: nn.Module) -> Optimizer:
        """Return Adam over gates and multipliers; see ``TransformCallback.own_optimizer``."""
        groups = [own_group([gate.log_alpha for gate in self._own_gates(model)], self.gate_lr)]
        if self.target is not None:
            multipliers = list(multipliers_of(model, self.part).parameters())
            groups.append(own_group(multipliers, self.multiplier_lr, maximize=True))
        return Adam(groups)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Train the gates until they are decided; see ``TransformCallback.on_before_optimizer_step``."""
        if not self._decided:
            super().on_before_optimizer_step(trainer, pl_module, optimizer)

    def after_own_step(self, model: nn.Module) -> None:
        """Bring the locations back into their range, as the published code of the paper does."""
        for gate in self._own_gates(model):
            gate.clamp_()

    # -- figures and state ---------------------------------------------------------------------------

    def figures(self, model: Any) -> dict[str, float]:
        """Return sparsity and size as they are and as they are expected, target and multipliers."""
        gates = self._gates(model)
        if self._weights is None:
            self._weights = WeightCount(model, gates.groups)
        measure = self._measure(model)
        rest = _rest(model, self._weights)
        with torch.no_grad():
            decided, open_probability = gates.decided(), gates.open_probability()
            now = {name: (gate != 0).float() for name, gate in decided.items()}
            figures = {
                "compress/sparsity": float(measure.removed(now)),
                "compress/params": float(compressed_size(model)[1])
                if measure is self._weights
                else rest + float(measure.kept(now)),
                "compress/expected_sparsity": float(self._weights.removed(open_probability)),
                "compress/expected_params": rest + float(self._weights.kept(open_probability)),
            }
            if self.target is None:
                return figures
            if self.target.speedup is None:
                figures["compress/target_sparsity"] = self._asked
            elif self._cost is not None:  # no table of latencies is made for a validation alone
                figures["compress/target_speedup"] = 1.0 / (1.0 - self._asked)
                figures["compress/expected_speedup"] = 1.0 / float(1.0 - self._cost.removed(open_probability))
                figures |= speedup_figures(self._cost, self.target, now)
            multipliers = multipliers_of(model, self.part)
            figures["compress/lambda_1"] = float(multipliers.lambda_1)
            figures["compress/lambda_2"] = float(multipliers.lambda_2)
        return figures

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the optimizer and of the source of random numbers, and the table of latencies."""
        state = {**super().state_dict(), **record_of(self._cost)}
        return state if self.generator is None else {**state, "generator": self.generator.get_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states until the fit starts."""
        super().load_state_dict(state_dict)
        self._generator_state = state_dict.get("generator")
        self._known_table = state_dict.get("latency")

    # -- the gates -----------------------------------------------------------------------------------

    def _gates(self, model: nn.Module) -> Gates:
        gates = gates_of(model)
        assert gates is not None
        return gates

    def _own(self, model: nn.Module) -> list[Group]:
        return [group for group in self._gates(model).groups if group.structure in self.structures]

    def _own_gates(self, model: nn.Module) -> list[HardConcreteGate]:
        gates = self._gates(model)
        return [gates.of(group) for group in self._own(model)]  # type: ignore[misc]

    def _measure(self, model: PreTrainedModel) -> WeightCount:
        if "rank" not in self.structures and self._weights is not None:
            return self._weights
        return WeightCount(model, self._gates(model).groups, merged=True)


def _rest(model: nn.Module, weights: WeightCount) -> float:
    """Return how many parameters of the model, without gates, are not counted."""
    gates = gates_of(model)
    own = {id(p) for p in gates.parameters()} if gates is not None else set()
    every = sum(p.numel() for p in model.parameters() if id(p) not in own)
    return float(every - weights.stored)


def _check_structures(structures: list[str], target: Target | None) -> None:
    unknown = [name for name in structures if name not in _STRUCTURES]
    if unknown or not structures or len(set(structures)) < len(structures):
        raise ValueError(
            f"Expected structures to be some of {', '.join(_STRUCTURES)}, each once, but got {structures}; a whole "
            "layer goes with its attention and its feed_forward."
        )
    if "rank" in structures and len(structures) > 1:
        raise ValueError(
            f"Expected structure rank alone, because it cuts through the same matrices, but got {structures}; prune "
            "the others in a fit of their own."
        )
    if "rank" in structures and target is not None and target.speedup is not None:
        raise ValueError(
            f"Expected target.sparsity for structure rank but got target.speedup={target.speedup}; no table of "
            "latencies knows factorised layers."
        )


def _check_aim(target: Target | None, penalty: float | None, freeze_at: float | None) -> None:
    if (target is None) == (penalty is None):
        raise ValueError(
            f"Expected a target or a penalty but got target={target} and penalty={penalty}; give one of them."
        )
    if penalty is not None and penalty <= 0:
        raise ValueError(f"Expected penalty > 0 (weight of the share of weights kept) but got {penalty}.")
    if freeze_at is not None and not 0.0 < freeze_at < 1.0:
        raise ValueError(
            f"Expected freeze_at between 0 and 1 (a fraction of the fit) but got {freeze_at}; write null to leave the "
            "gates undecided."
        )


def _check_numbers(gate_lr: float, multiplier_lr: float, beta: float) -> None:
    for name, value in (("gate_lr", gate_lr), ("multiplier_lr", multiplier_lr), ("beta", beta)):
        if value <= 0:
            raise ValueError(f"Expected {name} > 0 but got {value}.")
