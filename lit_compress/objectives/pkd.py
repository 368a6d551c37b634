"""Patient knowledge distillation: learn intermediate states, mostly those of [CLS]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from lit_compress.models.architecture import Architecture
from lit_compress.objectives.base import Objective
from lit_compress.objectives.layer_map import Pairs, block_pairs, early_pairs, hidden_pairs
from lit_compress.objectives.precision import in_float32
from lit_compress.objectives.preset import resolve_options
from lit_compress.objectives.projection import check_widths
from lit_compress.objectives.recorded import need_bind, recorded, same_tokens
from lit_compress.objectives.reduction import check_reduction, masked_mean
from lit_compress.outputs import Capture, Outputs
from lit_compress.schedules import Schedule

TOKENS = ("cls", "all")
DISTANCES = ("mean", "sum")
_DEFAULTS = {"normalize": True, "distance": "mean"}
_PRESETS = {
    "paper": {"normalize": True, "distance": "sum"},
    "reference": {"normalize": False, "distance": "mean"},
}


@in_float32
def patient_distance(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor | None = None,
    normalize: bool = True,
    distance: str = "mean",
    tokens: str = "cls",
    reduction: str = "example",
) -> Tensor:
    """Compare the states of one layer by ``‖h_S/‖h_S‖ − h_T/‖h_T‖‖²`` (PKD, arXiv:1908.09355, equation 7).

    Args:
        student: ``(batch, length, width)``.
        teacher: ``(batch, length, width)``; another length is allowed with ``tokens="cls"``.
        mask: ``(batch, length)``, true on real tokens; only ``tokens="all"`` needs it.
        normalize: Divide each vector by its length, so that the scale of the states does not matter.
        distance: ``"sum"`` or ``"mean"`` of the squared differences over the features.
        tokens: ``"cls"`` compares position 0 only, ``"all"`` every real token.
        reduction: With ``"all"``: ``"example"`` (mean over each row's tokens, then over rows) or ``"token"``
            (mean over all valid tokens). For position 0 both are the mean over rows.

    Returns:
        A scalar.

    Raises:
        ValueError: An option is unknown or the shapes do not fit.

    Example:
        >>> import torch
        >>> state = torch.tensor([[[3.0, 4.0]]])
        >>> patient_distance(state, 7 * state).item()
        0.0
    """
    _check(distance, tokens, reduction)
    if tokens == "cls":
        student, teacher, mask = student[:, :1], teacher[:, :1], None
    same_tokens(student, teacher, "hidden states")
    if student.shape != teacher.shape:
        raise ValueError(
            f"Expected hidden states of equal width but got {student.shape[-1]} and {teacher.shape[-1]}; use "
            "TinyBERTHidden, which projects, or MiniLMRelations."
        )
    if normalize:
        student, teacher = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
    squares = (student - teacher).square()
    return masked_mean(squares.sum(-1) if distance == "sum" else squares.mean(-1), mask, reduction)


def _check(distance: str, tokens: str, reduction: str) -> None:
    if distance not in DISTANCES:
        raise ValueError(f"Expected distance to be one of {', '.join(DISTANCES)} but got {distance!r}.")
    if tokens not in TOKENS:
        raise ValueError(f"Expected tokens to be one of {', '.join(TOKENS)} but got {tokens!r}.")
    check_reduction(reduction, ("example", "token"))


class PKD(Objective):
    """Patient knowledge distillation (arXiv:1908.09355): intermediate states of [CLS].

    The paper normalises and sums over features and layers; the published code takes the mean over both, and
    normalises only with a flag. The paper's grid for the weight (10 to 1000) belongs to the mean. Both models
    need the same width. A written-out layer map works in a plain loop without ``bind``.

    Args:
        weight: Factor of this term in the sum, or a schedule of it.
        layer_map: ``skip`` (default), ``last``, ``uniform``, or pairs of 0-based blocks (student, teacher)
            whose outputs are compared.
        normalize: Divide each state by its length. Default true.
        distance: ``mean`` (default) or ``sum`` of the squared differences over features and layers.
        tokens: ``cls`` (default) or ``all`` real tokens.
        reduction: With ``tokens: all``, ``example`` (default: mean over each row's tokens, then over rows) or
            ``token`` (mean over all valid tokens).
        preset: ``paper`` (normalised, sum) or ``reference`` (not normalised, mean); excludes options that
            contradict it.
    """

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        layer_map: str | list[list[int]] = "skip",
        normalize: bool | None = None,
        distance: str | None = None,
        tokens: str = "cls",
        reduction: str = "example",
        preset: str | None = None,
    ) -> None:
        super().__init__(weight)
        given = {"normalize": normalize, "distance": distance}
        options = resolve_options("PKD", preset, _PRESETS, _DEFAULTS, given)
        self.normalize: bool = options["normalize"]
        self.distance: str = options["distance"]
        self.tokens, self.reduction, self.layer_map = tokens, reduction, layer_map
        _check(self.distance, tokens, reduction)
        self.aligned_tokens = tokens == "all"
        self.pairs: Pairs = hidden_pairs(early_pairs(layer_map))

    def bind(self, student: Architecture, teacher: Architecture) -> None:
        """Resolve the layer map.

        Raises:
            ValueError: The layer map or the widths do not fit.
        """
        check_widths("PKD", "none", student.hidden_size, teacher.hidden_size)
        self.pairs = hidden_pairs(block_pairs(self.layer_map, student.num_layers, teacher.num_layers))

    @property
    def student_capture(self) -> Capture:
        """The student's mapped hidden states."""
        return Capture(hidden_states=frozenset(student for student, _ in self.pairs))

    @property
    def teacher_capture(self) -> Capture:
        """The teacher's mapped hidden states."""
        return Capture(hidden_states=frozenset(teacher for _, teacher in self.pairs))

    def forward(self, student: Outputs, teacher: Outputs, batch: Mapping[str, Any]) -> Tensor:
        """Return the sum or mean over the mapped layers."""
        need_bind(self, bool(self.pairs))
        losses = [
            patient_distance(
                recorded(student.hidden_states, student_index, "hidden states of the student"),
                recorded(teacher.hidden_states, teacher_index, "hidden states of the teacher"),
                student.mask,
                normalize=self.normalize,
                distance=self.distance,
                tokens=self.tokens,
                reduction=self.reduction,
            )
            for student_index, teacher_index in self.pairs
        ]
        total = sum(losses[1:], losses[0])
        return total / len(losses) if self.distance == "mean" else total
