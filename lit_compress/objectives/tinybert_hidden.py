"""Learn the teacher's hidden states, as TinyBERT does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from lit_compress.models.architecture import Architecture
from lit_compress.objectives.base import Objective
from lit_compress.objectives.layer_map import Pairs, as_pairs, block_pairs, check_name, hidden_pairs
from lit_compress.objectives.precision import in_float32
from lit_compress.objectives.preset import resolve_options
from lit_compress.objectives.projection import PROJECTIONS, Projection, check_projection
from lit_compress.objectives.recorded import recorded, same_tokens
from lit_compress.objectives.reduction import check_reduction, masked_mean
from lit_compress.objectives.schedule import Schedule
from lit_compress.outputs import Capture, Outputs


@in_float32
def hidden_mse(
    student: Tensor,
    teacher: Tensor,
    mask: Tensor | None = None,
    reduction: str = "example",
    projection: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Compare hidden states by ``MSE(W h_S, h_T)`` (TinyBERT, arXiv:1909.10351, equations 8 and 9).

    Args:
        student: ``(batch, length, student_width)``.
        teacher: ``(batch, length, teacher_width)``.
        mask: ``(batch, length)``, true on real tokens.
        reduction: ``"example"``, ``"token"`` or ``"padded"``; see ``reduction.REDUCTIONS``.
        projection: W; ``None`` where the widths are equal.

    Returns:
        A scalar: the mean over features, then over tokens and rows as ``reduction`` says.

    Raises:
        ValueError: The shapes do not fit.

    Example:
        >>> import torch
        >>> hidden_mse(torch.zeros(1, 2, 4), torch.full((1, 2, 4), 3.0)).item()
        9.0
    """
    check_reduction(reduction)
    same_tokens(student, teacher, "hidden states")
    projected = student if projection is None else projection(student)
    if projected.shape != teacher.shape:
        raise ValueError(
            f"Expected hidden states of equal width but got {projected.shape[-1]} and {teacher.shape[-1]}; "
            "use a projection from the student's width to the teacher's."
        )
    distance = (projected - teacher).square().mean(-1)
    if reduction == "padded":
        return distance.mean()
    return masked_mean(distance, mask, reduction)


class TinyBERTHidden(Objective):
    """Learn the teacher's hidden states through a linear map (TinyBERT, arXiv:1909.10351, equation 8).

    The loss is the sum over the mapped layers of the mean squared error; the map W lives only while training.
    ``paper`` is one W for all layers without the embeddings (add ``TinyBERTEmbedding``) and means over all
    valid tokens. ``reference`` is the published code: one W for embeddings and layers, means over padding
    too.

    With ``projection="none"`` and a written-out layer map it works in a plain loop without ``bind``.

    Args:
        weight: Factor of this term in the sum, or a schedule of it.
        layer_map: ``uniform`` (default), ``skip``, ``last``, or pairs of 0-based blocks, whose outputs are
            compared.
        projection: ``shared`` (default: one W), ``separate`` (one per layer) or ``none`` (equal widths only).
            At equal widths W starts as the identity.
        embeddings: Compare the embedding outputs too, with the shared W. Default false.
        reduction: ``example`` (default), ``token`` or ``padded``.
        preset: ``paper`` or ``reference``; excludes options that contradict it.
    """

    aligned_tokens = True

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        layer_map: str | list[list[int]] = "uniform",
        projection: str | None = None,
        embeddings: bool | None = None,
        reduction: str | None = None,
        preset: str | None = None,
    ) -> None:
        super().__init__(weight)
        options = resolve_options(
            "TinyBERTHidden",
            preset,
            {
                "paper": {"projection": "shared", "embeddings": False, "reduction": "token"},
                "reference": {"projection": "shared", "embeddings": True, "reduction": "padded"},
            },
            {"projection": "shared", "embeddings": False, "reduction": "example"},
            {"projection": projection, "embeddings": embeddings, "reduction": reduction},
        )
        self.layer_map, self.embeddings = layer_map, options["embeddings"]
        self.projection: str = options["projection"]
        self.reduction: str = options["reduction"]
        check_reduction(self.reduction)
        if self.projection not in PROJECTIONS:
            raise ValueError(
                f"Expected projection to be one of {', '.join(PROJECTIONS)} but got {self.projection!r}."
            )
        self.projections = nn.ModuleList()
        self.pairs: Pairs = []
        if isinstance(layer_map, str):
            check_name(layer_map)
        else:
            self.pairs = self._hidden(as_pairs(layer_map))

    def _hidden(self, pairs: Pairs) -> Pairs:
        return ([(0, 0)] if self.embeddings else []) + hidden_pairs(pairs)

    def bind(self, student: Architecture, teacher: Architecture) -> None:
        """Resolve the layer map and create the projections, unless they are there already.

        Raises:
            ValueError: The layer map or the widths do not fit.
        """
        check_projection("TinyBERTHidden", self.projection, student.hidden_size, teacher.hidden_size)
        self.pairs = self._hidden(block_pairs(self.layer_map, student.num_layers, teacher.num_layers))
        count = {"shared": 1, "separate": len(self.pairs), "none": 0}[self.projection]
        shape = (student.hidden_size, teacher.hidden_size)
        if [(layer.in_features, layer.out_features) for layer in self.projections] != [shape] * count:
            self.projections = nn.ModuleList(Projection(*shape) for _ in range(count))

    @property
    def student_capture(self) -> Capture:
        """The student's mapped hidden states."""
        return Capture(hidden_states=frozenset(student for student, _ in self.pairs))

    @property
    def teacher_capture(self) -> Capture:
        """The teacher's mapped hidden states."""
        return Capture(hidden_states=frozenset(teacher for _, teacher in self.pairs))

    def forward(self, student: Outputs, teacher: Outputs, batch: Mapping[str, Any]) -> Tensor:
        """Return the sum over the mapped layers."""
        if not self.pairs or (self.projection != "none" and not self.projections):
            raise ValueError(
                "Expected TinyBERTHidden to know both models but got a forward before bind; call "
                "bind(student, teacher)."
            )
        losses = []
        for position, (student_index, teacher_index) in enumerate(self.pairs):
            losses.append(
                hidden_mse(
                    recorded(student.hidden_states, student_index, "hidden states of the student"),
                    recorded(teacher.hidden_states, teacher_index, "hidden states of the teacher"),
                    student.mask,
                    reduction=self.reduction,
                    projection=self._projection(position),
                )
            )
        return sum(losses[1:], losses[0])

    def _projection(self, position: int) -> nn.Module | None:
        if self.projection == "none":
            return None
        return self.projections[position if self.projection == "separate" else 0]
