"""Learn the teacher's hidden states in whichever layers of a shrinking student are nearest to them, as CoFi does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lit_compress.models.architecture import Architecture
from lit_compress.objectives.base import Objective
from lit_compress.objectives.hidden import hidden_mse
from lit_compress.objectives.projection import Projection
from lit_compress.objectives.recorded import need_bind, recorded
from lit_compress.objectives.reduction import check_reduction
from lit_compress.outputs import Capture, Outputs
from lit_compress.schedules import Schedule


def match_layers(distances: Tensor, alive: Sequence[bool] | None = None) -> list[int]:
    """Choose a student block for each teacher block, in the same order (CoFi, arXiv:2204.00408, section 3.2).

    From the last teacher block to the first, each gets the nearest of the student blocks that are alive and lie below
    the one chosen before; where none is left below, it shares that one, as in the published code.

    Args:
        distances: ``(teacher blocks, student blocks)``, both in the order of the layers.
        alive: Whether each student block is still there; all where ``None``.

    Returns:
        The 0-based student block of each teacher block.

    Raises:
        ValueError: No student block is alive, or the sizes do not fit.

    Example:
        >>> import torch
        >>> match_layers(torch.tensor([[9.0, 0.0, 1.0], [9.0, 0.0, 1.0]]))
        [0, 1]
    """
    blocks = distances.shape[1]
    states = [True] * blocks if alive is None else list(alive)
    if len(states) != blocks:
        raise ValueError(f"Expected alive to tell of {blocks} student blocks but got {len(states)} entries.")
    if not any(states):
        raise ValueError(
            "Expected at least one layer of the student with its attention to match but all are closed; lower the "
            "sparsity, or leave attention out of the structures."
        )
    table = distances.tolist()
    chosen: list[int] = []
    for row in reversed(table):
        limit = chosen[-1] if chosen else blocks
        below = [block for block in range(limit) if states[block]]
        chosen.append(min(below, key=lambda block: row[block]) if below else limit)
    return chosen[::-1]


class LayerMatch(Objective):
    """Learn some of the teacher's layers in the student's layers that are nearest to them (arXiv:2204.00408).

    Which layer of the student learns from which one of the teacher is decided anew for each batch, among the layers
    that are still there: ``L0Pruning`` and ``Pruning`` tell through ``set_alive`` whose attention is open. The
    student's states go through one linear map that starts as the identity, lives only while training, and is used for
    matching too. The loss is the mean over the chosen teacher layers of ``MSE(W h_S, h_T)``; the published code
    averages over padding as well, which this does not.

    Args:
        weight: Factor of this term in the sum, or a schedule of it.
        teacher_layers: 0-based teacher blocks whose outputs are learned, ascending. Where left out: four, evenly
            spread and ending with the last ([2, 5, 8, 11] of 12), every second of a teacher with less than 12.
        reduction: ``example`` (mean over each row's tokens, then over rows) or ``token`` (mean over all valid tokens).
    """

    aligned_tokens = True

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        teacher_layers: list[int] | None = None,
        reduction: str = "example",
    ) -> None:
        super().__init__(weight)
        check_reduction(reduction, ("example", "token"))
        if teacher_layers is not None and (
            not teacher_layers or list(teacher_layers) != sorted(set(teacher_layers))
        ):
            raise ValueError(
                f"Expected teacher_layers to be ascending 0-based blocks, each once, but got {teacher_layers}."
            )
        self.teacher_layers, self.reduction = teacher_layers, reduction
        self.blocks: list[int] = []
        self.student_blocks = 0
        self.projection: Projection | None = None
        self.alive: list[bool] | None = None

    def bind(self, student: Architecture, teacher: Architecture) -> None:
        """Choose the teacher's layers and create the linear map, unless it is there already.

        Raises:
            ValueError: The teacher has no such layer.
        """
        self.blocks = (
            _spread(teacher.num_layers) if self.teacher_layers is None else list(self.teacher_layers)
        )
        wrong = [block for block in self.blocks if not 0 <= block < teacher.num_layers]
        if wrong:
            raise ValueError(
                f"Expected teacher_layers in 0..{teacher.num_layers - 1} (the teacher has {teacher.num_layers} layers, "
                f"counted from 0) but got {wrong}; correct the list."
            )
        self.student_blocks = student.num_layers
        shape = (student.hidden_size, teacher.hidden_size)
        if self.projection is None or (self.projection.in_features, self.projection.out_features) != shape:
            self.projection = Projection(*shape)

    def set_alive(self, alive: Sequence[bool]) -> None:
        """Tell which blocks of the student are still there.

        Args:
            alive: One entry per block.
        """
        self.alive = list(alive)

    @property
    def student_capture(self) -> Capture:
        """The outputs of all student blocks."""
        return Capture(hidden_states=frozenset(range(1, self.student_blocks + 1)))

    @property
    def teacher_capture(self) -> Capture:
        """The outputs of the chosen teacher blocks."""
        return Capture(hidden_states=frozenset(block + 1 for block in self.blocks))

    def forward(self, student: Outputs, teacher: Outputs, batch: Mapping[str, Any]) -> Tensor:
        """Return the mean over the chosen teacher layers."""
        need_bind(self, self.projection is not None)
        taught = [recorded(teacher.hidden_states, b + 1, "hidden states of the teacher") for b in self.blocks]
        learning = [
            recorded(student.hidden_states, b + 1, "hidden states of the student")
            for b in range(self.student_blocks)
        ]
        chosen = match_layers(self._distances(learning, taught, student.mask), self.alive)
        losses = [
            self._distance(learning[block], target, student.mask)
            for block, target in zip(chosen, taught, strict=True)
        ]
        return torch.stack(losses).mean()

    @torch.no_grad()
    def _distances(self, learning: list[Tensor], taught: list[Tensor], mask: Tensor | None) -> Tensor:
        """Return ``(teacher blocks, student blocks)``; closed blocks are infinitely far, and cost nothing."""
        table = torch.full((len(taught), len(learning)), float("inf"), device=taught[0].device)
        for row, target in enumerate(taught):
            for block, states in enumerate(learning):
                if self.alive is None or self.alive[block]:
                    table[row, block] = self._distance(states, target, mask)
        return table

    def _distance(self, states: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
        return hidden_mse(states, target, mask, reduction=self.reduction, projection=self.projection)


def _spread(layers: int) -> list[int]:
    """Return every third block of 12, every second of fewer, four of more; the last one is among them."""
    return list(range(layers - 1, -1, -max(2, layers // 4)))[::-1]
