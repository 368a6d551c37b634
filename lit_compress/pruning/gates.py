"""Gates: vectors of one number per unit that multiply the tensors of their group.

The multiplication is a parametrization of the weights, not a hook on the activations. So a gated model computes
exactly what the model with the gates folded into its weights computes, whatever the family, the attention kernel
or the precision; removing it leaves an ordinary module with ordinary names; and it costs a pass over the weights,
not over the activations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_compress.models.anatomy import dissect
from lit_compress.models.hooks import remove_hooks
from lit_compress.models.parametrized import register
from lit_compress.pruning.folding import fold
from lit_compress.pruning.groups import Group, Slot
from lit_compress.pruning.switches import add_switch, keep_norm, release_norm, remove_switches

#: Name under which the gates are registered in the model that they switch.
GATES = "gates"


class Gate(nn.Module, ABC):
    """The gates of one group.

    ``draw`` is called once at the start of each forward pass of the model; every tensor of the group then
    multiplies with the same numbers.

    Args:
        units: Number of units.
    """

    def __init__(self, units: int) -> None:
        super().__init__()
        self.units = units
        self.drawn: Tensor | None = None

    @abstractmethod
    def values(self) -> Tensor:
        """Return the gates ``(units,)`` for this moment: random ones in training where the method says so."""

    @abstractmethod
    def decided(self) -> Tensor:
        """Return the gates ``(units,)`` of evaluation, without randomness; closed units are exactly 0."""

    def open_probability(self) -> Tensor:
        """Return the probability ``(units,)`` that each unit is open; differentiable where the gates are."""
        return (self.decided() != 0).float()

    def current(self) -> Tensor:
        """Return the gates of this forward pass, those of evaluation where there is none."""
        return self.decided() if self.drawn is None else self.drawn

    def hold(self, values: Tensor | None) -> None:
        """Keep the gates of this forward pass.

        Args:
            values: ``(units,)``; ``None`` when it is over.
        """
        # Past torch, which would register gates that are parameters themselves a second time.
        vars(self)["drawn"] = values

    def train(self, mode: bool = True) -> Gate:
        """Let go of what was drawn: a part of the model may be called next, and gates of training are random."""
        self.hold(None)
        return super().train(mode)

    def forward(self) -> Tensor:
        """Return the gates of this forward pass."""
        return self.current()

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what was drawn: it belongs to a graph, which deep copies refuse."""
        return {**vars(self), "drawn": None}


class FixedGate(Gate):
    """Gates of 0 and 1 that somebody else sets: scores and a schedule, or the user.

    Args:
        units: Number of units.
    """

    open: Tensor

    def __init__(self, units: int) -> None:
        super().__init__(units)
        self.register_buffer("open", torch.ones(units))
        #: Leaf ``(units,)`` that gets the gradient with respect to the gates; in a tuple, so that it is no
        #: parameter of the model.
        self.listener: tuple[Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to the fit: a copy of the model does not learn scores."""
        return {**super().__getstate__(), "listener": None}

    def values(self) -> Tensor:
        """Return the gates; see ``Gate.values``."""
        if self.listener is None:
            return self.open
        # Nothing is added, but the gradient reaches the leaf.
        return self.open + (self.listener[0] - self.listener[0].detach()).to(self.open.dtype)

    def decided(self) -> Tensor:
        """Return the gates; see ``Gate.decided``."""
        return self.open


class Gates(nn.ModuleDict):
    """All gates of a model, by the position of their group; registered in the model as ``gates``.

    Args:
        groups: The groups.
        make: Makes the gates of a group.
    """

    def __init__(self, groups: Sequence[Group], make: Callable[[Group], Gate]) -> None:
        super().__init__()
        self.groups = list(groups)
        for group in groups:
            self[_key(group)] = make(group)

    def of(self, group: Group) -> Gate:
        """Return the gates of a group."""
        return self[_key(group)]  # type: ignore[return-value]

    def pairs(self) -> Iterator[tuple[Group, Gate]]:
        """Yield every group with its gates."""
        return ((group, self.of(group)) for group in self.groups)

    def decided(self) -> dict[str, Tensor]:
        """Return the gates of evaluation by the name of their group, detached."""
        return {group.name: gate.decided().detach() for group, gate in self.pairs()}

    def open_probability(self) -> dict[str, Tensor]:
        """Return the probability that each unit is open, by the name of its group."""
        return {group.name: gate.open_probability() for group, gate in self.pairs()}


def _key(group: Group) -> str:
    # Names of modules must not hold dots.
    return group.name.replace(".", "/")


class Gated(nn.Module):
    """Parametrization of one tensor: multiplies the stretches that belong to a group with its gates.

    Args:
        gate: The gates; they belong to the model, not to this parametrization.
        slots: Stretches of the tensor.
    """

    def __init__(self, gate: Gate, slots: Sequence[Slot]) -> None:
        super().__init__()
        # In a tuple, so that the gates are registered, saved and moved once, where they belong.
        self._gate = (gate,)
        self.slots = list(slots)

    def forward(self, tensor: Tensor) -> Tensor:
        """Return the tensor with closed units set to zero."""
        gate = self._gate[0].current()
        for slot in self.slots:
            factor = spread(gate, slot, tensor.shape)
            tensor = tensor * factor.to(tensor.dtype)
        return tensor


def spread(values: Tensor, slot: Slot, shape: Sequence[int]) -> Tensor:
    """Return one number per unit as a factor that multiplies a tensor: 1 where no unit lies.

    Args:
        values: ``(units,)``.
        slot: Where the units lie in the tensor.
        shape: Shape of the tensor.

    Returns:
        A tensor that has the length of the tensor along the slot's axis and 1 along the others.
    """
    factor = values.repeat_interleave(slot.width) if slot.width > 1 else values
    rest = shape[slot.axis] - slot.start - len(factor)
    if slot.start or rest:
        factor = torch.cat([factor.new_ones(slot.start), factor, factor.new_ones(rest)])
    return factor.view([-1 if axis == slot.axis else 1 for axis in range(len(shape))])


def gates_of(model: nn.Module) -> Gates | None:
    """Return the gates of a model, ``None`` where it has none."""
    found = getattr(model, GATES, None)
    return found if isinstance(found, Gates) else None


def install_gates(model: nn.Module, groups: Sequence[Group], make: Callable[[Group], Gate]) -> Gates:
    """Put gates on the units of some groups.

    Args:
        model: The model; changed in place. Gates that it already has stay, and new groups are added to them.
        groups: The groups to switch.
        make: Makes the gates of a group.

    Returns:
        All gates of the model.

    Raises:
        ValueError: A group has gates already.
    """
    present = gates_of(model)
    taken = {group.name for group in present.groups} if present is not None else set()
    double = [group.name for group in groups if group.name in taken]
    if double:
        raise ValueError(
            f"Expected units without gates but {double[0]} has some already; give each structure to one callback."
        )
    added = Gates(groups, make).train(model.training)
    if present is None:
        present = added
        model.add_module(GATES, present)
        model.register_forward_pre_hook(_draw)
        model.register_forward_hook(_let_go, always_call=True)
    else:
        present.groups += added.groups
        present.update(dict(added.items()))
    for group in groups:
        _connect(model, group, present.of(group))
    return present


def _draw(model: nn.Module, inputs: Any) -> None:
    """Draw the gates of a forward pass: what was drawn for the last one belongs to a graph that is gone."""
    gates = gates_of(model)
    if gates is not None:
        for _, gate in gates.pairs():
            gate.hold(gate.values() if gate.training else gate.decided())


def _let_go(model: nn.Module, inputs: Any, output: Any) -> None:
    """Forget the gates of evaluation: the locations may move before a part of the model is called on its own.

    Those of training stay, because a backward pass with recomputed activations needs them again.
    """
    gates = gates_of(model)
    if gates is not None:
        for _, gate in gates.pairs():
            if not gate.training:
                gate.hold(None)


def _connect(model: nn.Module, group: Group, gate: Gate) -> None:
    if group.structure == "layer":
        add_switch(model.get_submodule(group.name.removesuffix(".layer")), gate)
    slots: dict[tuple[str, str], list[Slot]] = {}
    for slot in group.gated:
        slots.setdefault((slot.module, slot.tensor), []).append(slot)
    for (module, tensor), places in slots.items():
        register(model.get_submodule(module), tensor, Gated(gate, places))
    if group.structure == "hidden":
        for path in dissect(model).stream.norms:  # type: ignore[arg-type]
            keep_norm(model.get_submodule(path), gate)


def remove_gates(model: nn.Module) -> dict[str, Tensor]:
    """Fold the gates into the weights and take everything of ours out again.

    Whole layers that were closed by a switch, and norms over a part of the hidden dimensions, cannot be said by
    weights: cut the model with ``lit_compress.pruning.shrink``, which calls this.

    Args:
        model: A model with or without gates; changed in place.

    Returns:
        The gates of evaluation by the name of their group; empty where the model had none.
    """
    gates = gates_of(model)
    if gates is None:
        return {}
    decided = gates.decided()
    for _, gate in gates.pairs():
        gate.hold(gate.decided().detach())
    fold(model, Gated)
    for module in model.modules():
        remove_switches(module)
        release_norm(module)
    remove_hooks(model, lambda hook: hook in (_draw, _let_go))
    delattr(model, GATES)
    return decided
