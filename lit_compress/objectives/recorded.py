"""Read recorded tensors, with an error that says what is missing."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from lit_compress.outputs import Outputs


def logits_of(outputs: Outputs, owner: str) -> Tensor:
    """Return the logits of a model.

    Args:
        outputs: What ``run_model`` returned.
        owner: ``"student"`` or ``"teacher"``, for the message.

    Returns:
        ``(batch, num_labels)``.

    Raises:
        ValueError: There are none.
    """
    if outputs.logits is None:
        raise ValueError(f"Expected logits from the {owner} but got none; give it a model with a task head.")
    return outputs.logits


def recorded(tensors: Mapping[int, Tensor], index: int, what: str) -> Tensor:
    """Return one recorded tensor.

    Args:
        tensors: A field of ``Outputs``.
        index: Its key.
        what: Name of the field and its owner, for the message.

    Returns:
        The tensor.

    Raises:
        ValueError: It was not recorded.
    """
    if index not in tensors:
        raise ValueError(
            f"Expected {what} of index {index} but got only {sorted(tensors)}; call prepare_capture and "
            "run_model with the student_capture and teacher_capture of this objective."
        )
    return tensors[index]


def same_tokens(student: Tensor, teacher: Tensor, what: str) -> None:
    """Refuse to compare tensors of a different batch or length.

    Args:
        student: ``(batch, length, ...)``.
        teacher: ``(batch, length, ...)``.
        what: Name of the tensors, for the message.

    Raises:
        ValueError: Their first two sizes differ.
    """
    if student.shape[:2] != teacher.shape[:2]:
        raise ValueError(
            f"Expected {what} over the same tokens but got (batch, length) {tuple(student.shape[:2])} from "
            f"the student and {tuple(teacher.shape[:2])} from the teacher; give both models the same "
            "tokenizer and inputs."
        )


def need_bind(objective: nn.Module, bound: bool) -> None:
    """Refuse a forward pass of an objective that does not know the models yet.

    Args:
        objective: Named in the message.
        bound: Whether it knows what it needs.

    Raises:
        ValueError: It does not.
    """
    if not bound:
        raise ValueError(
            f"Expected {type(objective).__name__} to know both models but got a forward before bind; call "
            "bind(describe(student), describe(teacher)) first."
        )
