"""Which teacher blocks a shallower student starts from, and copying them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from transformers import PreTrainedModel

from lit_compress.models.architecture import block_list

#: Blocks of the released DistilBERT, 6 of 12 (arXiv:1910.01108, ``scripts/extract_distilbert.py``).
_DISTILBERT = [0, 2, 4, 7, 9, 11]
_RULES = ("every_other", "first_k", "last_k", "distilbert", "uniform")


def choose_layers(layers: str | Sequence[int], depth: int | None, teacher_depth: int) -> list[int]:
    """Return the 0-based teacher blocks that a student takes over, in order.

    Args:
        layers: An ascending list of 0-based blocks, or one of the rules
            ``every_other`` (0, 2, 4, …), ``first_k`` (0 … k-1), ``last_k`` (n-k … n-1),
            ``distilbert`` (0, 2, 4, 7, 9, 11 of 12; Sanh et al., arXiv:1910.01108) and
            ``uniform`` (block ``r·i + r - 1`` with ``r = n / k``; Jiao et al., TinyBERT, arXiv:1909.10351).
        depth: Blocks of the student, the ``k`` of the rules. Required by ``first_k``, ``last_k`` and
            ``uniform``; elsewhere it may only confirm what the rule gives.
        teacher_depth: Blocks of the teacher, the ``n`` of the rules.

    Returns:
        One teacher block per student block.

    Raises:
        ValueError: The rule is unknown or does not fit the depths.

    Example:
        >>> choose_layers("every_other", None, 6)
        [0, 2, 4]
        >>> choose_layers("uniform", 4, 12)
        [2, 5, 8, 11]
    """
    if isinstance(layers, str):
        chosen = _apply_rule(layers, depth, teacher_depth)
    else:
        chosen = _check_list(list(layers), teacher_depth)
    if depth is not None and depth != len(chosen):
        raise ValueError(
            f"Expected depth {len(chosen)} for layers={layers!r} of a teacher with {teacher_depth} blocks "
            f"but got depth={depth}; leave depth out, or use layers: uniform, first_k, last_k or a list."
        )
    return chosen


def _apply_rule(rule: str, depth: int | None, teacher_depth: int) -> list[int]:
    if rule not in _RULES:
        raise ValueError(
            f"Expected layers to be one of {', '.join(_RULES)} or a list of 0-based blocks but got {rule!r}."
        )
    if rule == "every_other":
        return list(range(0, teacher_depth, 2))
    if rule == "distilbert":
        if teacher_depth != 12 or depth not in (None, 6):
            raise ValueError(
                f"Expected a teacher with 12 blocks and a student with 6 for layers='distilbert' but got "
                f"{teacher_depth} and {depth}; use layers: every_other or a list of blocks."
            )
        return list(_DISTILBERT)
    if depth is None or not 1 <= depth <= teacher_depth:
        raise ValueError(
            f"Expected depth between 1 and {teacher_depth} for layers={rule!r} but got {depth}; "
            "set depth to the number of blocks of the student."
        )
    if rule == "uniform":
        return _uniform(depth, teacher_depth)
    first = 0 if rule == "first_k" else teacher_depth - depth
    return list(range(first, first + depth))


def _uniform(depth: int, teacher_depth: int) -> list[int]:
    if teacher_depth % depth:
        divisors = [k for k in range(1, teacher_depth + 1) if teacher_depth % k == 0]
        raise ValueError(
            f"Expected depth to divide the teacher's {teacher_depth} blocks for layers='uniform' but got "
            f"depth={depth}; use one of {divisors} or a list of blocks."
        )
    step = teacher_depth // depth
    return [step * index + step - 1 for index in range(depth)]


def _check_list(layers: list[int], teacher_depth: int) -> list[int]:
    ascending = all(a < b for a, b in pairwise(layers))
    inside = all(0 <= index < teacher_depth for index in layers)
    if not layers or not ascending or not inside:
        raise ValueError(
            f"Expected an ascending list of 0-based blocks from 0 to {teacher_depth - 1} without repeats "
            f"but got layers={layers}; the first block is 0 and the last one {teacher_depth - 1}."
        )
    return layers


def copy_layers(source: PreTrainedModel, student: PreTrainedModel, layers: list[int]) -> None:
    """Copy blocks, embeddings, pooler and, where the shapes fit, the head into a student of the same family.

    Args:
        source: Model to copy from; not changed.
        student: Model to copy into, with one block per entry of ``layers``.
        layers: 0-based blocks of ``source``, one per block of ``student``.

    Raises:
        ValueError: The families differ, or weights below the head have different shapes.
    """
    if getattr(source.config, "num_hidden_groups", 1) != 1:
        raise ValueError(
            f"Expected an ALBERT with one group of shared weights but got {source.config.num_hidden_groups} "
            "groups, which a subset of layers would mix; use FromConfig or Pretrained for the student."
        )
    blocks, kept = block_list(source), block_list(student)
    for block, index in zip(kept, layers, strict=True):
        block.load_state_dict(blocks[index].state_dict())
    inside = {id(tensor) for tensor in _tensors(kept).values()}
    values = _tensors(source)
    prefix = f"{student.base_model_prefix}."
    with torch.no_grad():
        for name, tensor in _tensors(student).items():
            if id(tensor) in inside:
                continue
            value = values.get(name)
            if value is not None and value.shape == tensor.shape:
                tensor.copy_(value)
            elif name.startswith(prefix):
                found = "nothing" if value is None else f"shape {list(value.shape)}"
                raise ValueError(
                    f"Expected {name} of shape {list(tensor.shape)} in the source of the layers but got "
                    f"{found}; take source and student from the same family and size."
                )


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}
