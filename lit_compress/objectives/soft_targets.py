"""Learn the teacher's class probabilities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from lit_compress.models.architecture import Architecture
from lit_compress.objectives.base import Objective
from lit_compress.objectives.precision import in_float32
from lit_compress.objectives.preset import resolve_options
from lit_compress.objectives.recorded import logits_of
from lit_compress.outputs import Outputs
from lit_compress.schedules import Schedule, resolve

KINDS = ("kl", "cross_entropy")
REDUCTIONS = ("batchmean", "mean")
_DEFAULTS = {"temperature": 2.0, "kind": "kl", "t_squared": True, "reduction": "batchmean"}
_PRESETS = {
    "paper": {"kind": "cross_entropy", "t_squared": True, "reduction": "batchmean"},
    "reference": {"kind": "kl", "t_squared": True, "reduction": "batchmean"},
    "pkd": {"kind": "kl", "t_squared": True, "reduction": "mean"},
    "tinybert": {"kind": "cross_entropy", "t_squared": False, "reduction": "mean", "temperature": 1.0},
}


@in_float32
def soft_targets(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 2.0,
    kind: str = "kl",
    t_squared: bool = True,
    reduction: str = "batchmean",
) -> Tensor:
    """Compare class probabilities softened by a temperature (Hinton et al., arXiv:1503.02531, section 2).

    ``p = softmax(z/T)``; ``kl`` is ``Σ p_T (log p_T − log p_S)``, ``cross_entropy`` is ``−Σ p_T log p_S``.
    Both have the same gradient for the student.

    Args:
        student: Logits, ``(batch, classes)``.
        teacher: Logits, ``(batch, classes)``.
        temperature: T, above 0.
        kind: ``"kl"`` or ``"cross_entropy"``.
        t_squared: Multiply by T², which keeps the size of the gradient when T changes.
        reduction: ``"batchmean"`` sums over classes and averages over rows; ``"mean"`` averages over both, so
            it is smaller by the number of classes.

    Returns:
        A scalar.

    Raises:
        ValueError: An option is unknown, or the shapes differ.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[1.0, 2.0, 3.0]])
        >>> soft_targets(logits, logits).item()
        0.0
    """
    _check(temperature, kind, reduction)
    if student.shape != teacher.shape:
        raise ValueError(
            f"Expected logits of the same shape but got {tuple(student.shape)} from the student and "
            f"{tuple(teacher.shape)} from the teacher; both need the same labels."
        )
    log_student = F.log_softmax(student / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher / temperature, dim=-1)
    probabilities = log_teacher.exp()
    terms = probabilities * (log_teacher - log_student if kind == "kl" else -log_student)
    loss = terms.mean() if reduction == "mean" else terms.sum(-1).mean()
    return loss * temperature**2 if t_squared else loss


def _check(temperature: float, kind: str, reduction: str) -> None:
    if temperature <= 0:
        raise ValueError(
            f"Expected temperature > 0 but got {temperature}; 1 leaves the probabilities as they are."
        )
    if kind not in KINDS:
        raise ValueError(f"Expected kind to be one of {', '.join(KINDS)} but got {kind!r}.")
    if reduction not in REDUCTIONS:
        raise ValueError(f"Expected reduction to be one of {', '.join(REDUCTIONS)} but got {reduction!r}.")


class SoftTargets(Objective):
    """Learn the teacher's class probabilities (Hinton et al., arXiv:1503.02531).

    The same name means different numbers in different code; a preset fixes the options of one of them:

    ============= ============= ============================== ===== ===
    preset        kind          reduction                      T²    T
    ============= ============= ============================== ===== ===
    ``paper``     cross_entropy batchmean                      yes   any
    ``reference`` kl            batchmean (DistilBERT's code)  yes   any
    ``pkd``       kl            mean (PKD's code, ÷ classes)   yes   any
    ``tinybert``  cross_entropy mean (TinyBERT's, ÷ classes)   no    1
    ============= ============= ============================== ===== ===

    Args:
        weight: Factor of this term in the sum, or a schedule of it.
        temperature: Softens the probabilities; a number or a schedule. Default 2.
        kind: ``kl`` (default) or ``cross_entropy``; same gradient, different logged value.
        t_squared: Multiply by the squared temperature. Default true.
        reduction: ``batchmean`` (default: sum over classes, mean over rows) or ``mean`` (over both).
        preset: ``paper``, ``reference``, ``pkd`` or ``tinybert``; excludes options that contradict it.
    """

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        temperature: float | Schedule | None = None,
        kind: str | None = None,
        t_squared: bool | None = None,
        reduction: str | None = None,
        preset: str | None = None,
    ) -> None:
        super().__init__(weight)
        given = {"temperature": temperature, "kind": kind, "t_squared": t_squared, "reduction": reduction}
        options = resolve_options("SoftTargets", preset, _PRESETS, _DEFAULTS, given)
        self.temperature: float | Schedule = options["temperature"]
        self.kind: str = options["kind"]
        self.t_squared: bool = options["t_squared"]
        self.reduction: str = options["reduction"]
        _check(resolve(self.temperature, None), self.kind, self.reduction)

    def bind(self, student: Architecture, teacher: Architecture) -> None:
        """Check that both models have the same classes, at least two.

        Raises:
            ValueError: They have not.
        """
        if student.num_labels != teacher.num_labels:
            raise ValueError(
                f"Expected a student with the teacher's {teacher.num_labels} labels but got "
                f"{student.num_labels}; fine-tune the teacher on the same task."
            )
        if student.num_labels == 1:
            raise ValueError(
                "Expected at least 2 labels for SoftTargets but got 1: the softmax of one logit is always 1; "
                "use LogitMSE for regression."
            )

    def forward(self, student: Outputs, teacher: Outputs, batch: Mapping[str, Any]) -> Tensor:
        """Return the loss at the current temperature."""
        return soft_targets(
            logits_of(student, "student"),
            logits_of(teacher, "teacher"),
            temperature=resolve(self.temperature, self.progress),
            kind=self.kind,
            t_squared=self.t_squared,
            reduction=self.reduction,
        )
