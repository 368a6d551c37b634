"""What the joint recipe learns from the teacher's answers, by the kind of labels."""

from __future__ import annotations

#: The softmax of a single score is 1 whatever the score, so that soft targets cannot teach a regression anything.
_REGRESSION = ("--model.task=Regression", "--model.objectives.soft=LogitMSE")


def soft_targets_for(is_regression: bool) -> list[str]:
    """Return the words that fit ``recipes/combine/distil_prune_qat.yaml`` to the labels of the data.

    The recipe is for classes. With scores the objective ``soft`` is the squared distance to the teacher's score
    (:class:`~lit_compress.objectives.LogitMSE`), and the task is a regression.

    Args:
        is_regression: Whether the labels are scores, as ``is_regression`` of the data module says.

    Returns:
        Words to add to ``lit-compress fit``; none for classes.
    """
    return list(_REGRESSION) if is_regression else []
