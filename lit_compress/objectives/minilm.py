"""Learn the self-attention of one teacher block: MiniLM and MiniLMv2."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lit_compress.models.architecture import Architecture
from lit_compress.objectives.base import Objective
from lit_compress.objectives.recorded import need_bind, recorded
from lit_compress.objectives.reduction import check_reduction
from lit_compress.objectives.relations import distribution_kl, relation_kl
from lit_compress.outputs import Capture, Outputs
from lit_compress.schedules import Schedule

RELATIONS = ("queries", "keys", "values")


class _OneBlock(Objective):
    """What both versions share: the student's last block learns from one teacher block."""

    aligned_tokens = True

    def __init__(self, weight: float | Schedule, teacher_layer: int | None, reduction: str) -> None:
        super().__init__(weight)
        check_reduction(reduction, ("example", "token"))
        self.teacher_layer, self.reduction = teacher_layer, reduction
        self.pair: tuple[int, int] | None = None

    def bind(self, student: Architecture, teacher: Architecture) -> None:
        """Find the two blocks.

        Raises:
            ValueError: The teacher has no such block.
        """
        block = teacher.num_layers - 1 if self.teacher_layer is None else self.teacher_layer
        if not 0 <= block < teacher.num_layers:
            raise ValueError(
                f"Expected teacher_layer in 0..{teacher.num_layers - 1} (the teacher has "
                f"{teacher.num_layers} layers, counted from 0) but got {block}; leave it out for the last "
                "one."
            )
        self.pair = (student.num_layers - 1, block)

    def _blocks(self) -> tuple[int, int]:
        need_bind(self, self.pair is not None)
        return self.pair or (0, 0)


class MiniLMRelations(_OneBlock):
    """Learn the relations among queries, keys and values of one block (MiniLMv2, arXiv:2012.15828).

    For X in queries, keys and values: ``R = softmax(XXᵀ/√d_r)`` per relation head, the loss is the sum over X
    of the mean ``KL(R_T ‖ R_S)`` over heads and tokens. Width and head count of the models may differ. The
    student's last block learns.

    Args:
        weight: Factor of this term in the sum, or a schedule of it.
        relation_heads: Number of parts that the concatenated heads are split into; must divide both widths.
            Default: the teacher's head count. The paper takes 48 for base and 64 for large teachers.
        teacher_layer: 0-based teacher block; default the last. The paper takes an upper middle one for large
            teachers (20 of 24).
        relations: Some of ``queries``, ``keys`` and ``values``; default all three.
        reduction: ``example`` (default: mean over each row's tokens, then over rows; the paper's) or
            ``token`` (mean over all valid tokens).
    """

    def __init__(
        self,
        weight: float | Schedule = 1.0,
        relation_heads: int | None = None,
        teacher_layer: int | None = None,
        relations: list[str] | None = None,
        reduction: str = "example",
    ) -> None:
        super().__init__(weight, teacher_layer, reduction)
        self.relations = list(RELATIONS) if relations is None else relations
        unknown = [name for name in self.relations if name not in RELATIONS]
        if unknown or not self.relations or len(set(self.relations)) < len(self.relations):
            raise ValueError(
                f"Expected relations as a list of some of {', '.join(RELATIONS)}, each once, but got "
                f"{self.relations}."
            )
        if relation_heads is not None and relation_heads < 1:
            raise ValueError(f"Expected relation_heads >= 1 but got {relation_heads}.")
        self.relation_heads = relation_heads
        self._heads = relation_heads or 0

    def bind(self, student: Architecture, teacher: Architecture) -> None:
        """Find the two blocks and settle the number of relation heads.

        Raises:
            ValueError: The teacher has no such block, or a width cannot be split.
        """
        super().bind(student, teacher)
        widths = (student.num_heads * student.head_dim, teacher.num_heads * teacher.head_dim)
        heads = self.relation_heads or teacher.num_heads
        if any(width % heads for width in widths):
            common = math.gcd(*widths)
            divisors = [number for number in range(1, common + 1) if common % number == 0]
            raise ValueError(
                f"Expected relation_heads to divide the attention widths {widths[0]} (student) and "
                f"{widths[1]} (teacher) but got {heads}; set relation_heads to one of {divisors}."
            )
        self._heads = heads

    def _capture(self, block: int) -> Capture:
        return Capture(**{name: frozenset({block}) for name in self.relations})

    @property
    def student_capture(self) -> Capture:
        """The chosen vectors of the student's last block."""
        return self._capture(self.pair[0]) if self.pair else Capture()

    @property
    def teacher_capture(self) -> Capture:
        """The chosen vectors of the teacher's block."""
        return self._capture(self.pair[1]) if self.pair else Capture()

    def forward(self, student: Outputs, teacher: Outputs, batch: Mapping[str, Any]) -> Tensor:
        """Return the sum over the relations."""
        student_block, teacher_block = self._blocks()
        losses = [
            relation_kl(
                recorded(getattr(student, name), student_block, f"{name} of the student"),
                recorded(getattr(teacher, name), teacher_block, f"{name} of the teacher"),
                student.mask,
                relation_heads=self._heads,
                reduction=self.reduction,
            )
            for name in self.relations
        ]
        return sum(losses[1:], losses[0])


class MiniLM(_OneBlock):
    """Learn attention distributions and value relations of one block (MiniLM, arXiv:2002.10957).

    ``KL(A_T ‖ A_S) + KL(VR_T ‖ VR_S)``, each the mean over heads and tokens, with ``A = softmax(QKᵀ/√d)`` and
    ``VR = softmax(VVᵀ/√d)`` of the real heads. Both models need the same number of heads; widths may differ.

    Args:
        weight: Factor of this term in the sum, or a schedule of it.
        teacher_layer: 0-based teacher block; default the last, as in the paper.
        reduction: ``example`` (default: mean over each row's tokens, then over rows; the paper's) or
            ``token`` (mean over all valid tokens).
    """

    def __init__(
        self, weight: float | Schedule = 1.0, teacher_layer: int | None = None, reduction: str = "example"
    ) -> None:
        super().__init__(weight, teacher_layer, reduction)

    def bind(self, student: Architecture, teacher: Architecture) -> None:
        """Find the two blocks.

        Raises:
            ValueError: The teacher has no such block, or the head counts differ.
        """
        super().bind(student, teacher)
        if student.num_heads != teacher.num_heads:
            raise ValueError(
                f"Expected a student with the teacher's {teacher.num_heads} attention heads for MiniLM but "
                f"got {student.num_heads}; use MiniLMRelations, which compares any two head counts."
            )

    @property
    def student_capture(self) -> Capture:
        """Scores and values of the student's last block."""
        return _scores_and_values(self.pair[0]) if self.pair else Capture()

    @property
    def teacher_capture(self) -> Capture:
        """Scores and values of the teacher's block."""
        return _scores_and_values(self.pair[1]) if self.pair else Capture()

    def forward(self, student: Outputs, teacher: Outputs, batch: Mapping[str, Any]) -> Tensor:
        """Return the sum of both divergences."""
        student_block, teacher_block = self._blocks()
        attention = distribution_kl(
            recorded(student.attention_scores, student_block, "attention scores of the student"),
            recorded(teacher.attention_scores, teacher_block, "attention scores of the teacher"),
            student.mask,
            reduction=self.reduction,
        )
        student_values = recorded(student.values, student_block, "values of the student")
        teacher_values = recorded(teacher.values, teacher_block, "values of the teacher")
        heads = student_values.shape[1]
        return attention + relation_kl(
            student_values, teacher_values, student.mask, relation_heads=heads, reduction=self.reduction
        )


def _scores_and_values(block: int) -> Capture:
    return Capture(attention_scores=frozenset({block}), values=frozenset({block}))
