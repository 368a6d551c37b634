"""The contract of one term of a distillation loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from lit_compress.models.architecture import Architecture
from lit_compress.outputs import Capture, Outputs
from lit_compress.schedules import Progress, Schedule, resolve


class Objective(nn.Module, ABC):
    """One named, weighted term of the training loss.

    Life of an objective: it is constructed from YAML primitives; ``bind`` is called once with both
    architectures, checks that they fit and creates projections; ``student_capture`` and
    ``teacher_capture`` then say what to record; ``advance`` moves its schedules before every step;
    ``forward`` returns a float32 scalar.

    Args:
        weight: Factor of this term in the sum, or a schedule of it. At exactly 0 the term is not computed.
    """

    #: Whether student and teacher positions must be the same tokens (refused with two tokenizers).
    aligned_tokens: bool = False
    #: Whether a teacher is used at all.
    needs_teacher: bool = True

    def __init__(self, weight: float | Schedule = 1.0) -> None:
        super().__init__()
        if not isinstance(weight, Schedule) and weight < 0:
            raise ValueError(f"Expected weight >= 0 but got {weight} for {type(self).__name__}.")
        self.weight = weight
        self.progress: Progress | None = None

    def bind(self, student: Architecture, teacher: Architecture) -> None:
        """Check that the two models fit this objective and create what depends on their sizes.

        Must give the same result when called again (it may be called once per stage).

        Raises:
            ValueError: The models do not fit; the message names what to change.
        """

    @property
    def student_capture(self) -> Capture:
        """What to record of the student; valid after ``bind``."""
        return Capture()

    @property
    def teacher_capture(self) -> Capture:
        """What to record of the teacher; valid after ``bind``."""
        return Capture()

    def advance(self, progress: Progress) -> None:
        """Move the schedules of this objective to the step that is about to run."""
        self.progress = progress

    @property
    def current_weight(self) -> float:
        """The weight at this moment."""
        return resolve(self.weight, self.progress)

    @abstractmethod
    def forward(self, student: Outputs, teacher: Outputs, batch: Mapping[str, Any]) -> Tensor:
        """Return the unweighted loss, a float32 scalar."""
