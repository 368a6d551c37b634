"""Which teacher layer teaches which student layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Pairs = list[tuple[int, int]]


def uniform(student_layers: int, teacher_layers: int) -> Pairs:
    """Map every student block to the end of an equal share of the teacher (TinyBERT, arXiv:1909.10351).

    With ``r = teacher_layers / student_layers``, block ``i`` learns from block ``r*i + r - 1``.

    Args:
        student_layers: Number of student blocks.
        teacher_layers: Number of teacher blocks, a multiple of ``student_layers``.

    Returns:
        Pairs of 0-based blocks (student, teacher).

    Raises:
        ValueError: The depths do not divide.

    Example:
        >>> uniform(4, 12)
        [(0, 2), (1, 5), (2, 8), (3, 11)]
    """
    ratio = _ratio("uniform", student_layers, teacher_layers)
    return [(block, ratio * (block + 1) - 1) for block in range(student_layers)]


def skip(student_layers: int, teacher_layers: int) -> Pairs:
    """Map as ``uniform`` but for the last student block, which the logits teach (PKD-skip, arXiv:1908.09355).

    Args:
        student_layers: Number of student blocks, at least 2.
        teacher_layers: Number of teacher blocks, a multiple of ``student_layers``.

    Returns:
        Pairs of 0-based blocks (student, teacher).

    Raises:
        ValueError: The depths do not divide, or no pair is left.

    Example:
        >>> skip(6, 12)
        [(0, 1), (1, 3), (2, 5), (3, 7), (4, 9)]
    """
    _need_two("skip", student_layers)
    _ratio("skip", student_layers, teacher_layers)
    return uniform(student_layers, teacher_layers)[:-1]


def last(student_layers: int, teacher_layers: int) -> Pairs:
    """Map to the teacher's last blocks, without the very last (PKD-last, arXiv:1908.09355).

    Args:
        student_layers: Number of student blocks, at least 2.
        teacher_layers: Number of teacher blocks, not fewer.

    Returns:
        Pairs of 0-based blocks (student, teacher).

    Raises:
        ValueError: The student is deeper than the teacher, or no pair is left.

    Example:
        >>> last(3, 12)
        [(0, 9), (1, 10)]
    """
    _need_two("last", student_layers)
    if student_layers > teacher_layers:
        raise ValueError(
            f"Expected a teacher with at least {student_layers} layers for layer_map 'last' but got "
            f"{teacher_layers}; give layer_map as a list of [student block, teacher block] pairs."
        )
    shift = teacher_layers - student_layers
    return [(block, shift + block) for block in range(student_layers - 1)]


def explicit(pairs: Sequence[Sequence[int]], student_layers: int, teacher_layers: int) -> Pairs:
    """Check a layer map that was written out.

    Args:
        pairs: ``[student block, teacher block]``, 0-based.
        student_layers: Number of student blocks.
        teacher_layers: Number of teacher blocks.

    Returns:
        The pairs as tuples.

    Raises:
        ValueError: The map is empty, malformed, repeats a pair or points outside a model.

    Example:
        >>> explicit([[0, 3], [1, 5]], student_layers=2, teacher_layers=6)
        [(0, 3), (1, 5)]
    """
    checked = as_pairs(pairs)
    for name, column, layers in (("student", 0, student_layers), ("teacher", 1, teacher_layers)):
        wrong = [pair[column] for pair in checked if not 0 <= pair[column] < layers]
        if wrong:
            raise ValueError(
                f"Expected {name} blocks 0..{layers - 1} in layer_map ({name} has {layers} layers, counted "
                f"from 0) but got {wrong}; correct the pairs."
            )
    return checked


def as_pairs(pairs: Sequence[Sequence[int]]) -> Pairs:
    """Return a written-out layer map as tuples, checked as far as that goes without the models.

    Args:
        pairs: ``[student block, teacher block]``, 0-based.

    Returns:
        The pairs as tuples.

    Raises:
        ValueError: The map is empty, malformed or repeats a pair.
    """
    if not pairs or not all(isinstance(pair, Sequence) and len(pair) == 2 for pair in pairs):
        raise ValueError(
            f"Expected layer_map as a list of [student block, teacher block] pairs but got {pairs}; write "
            "for example [[0, 1], [1, 3]]."
        )
    checked = [(int(student), int(teacher)) for student, teacher in pairs]
    if len(set(checked)) < len(checked):
        raise ValueError(f"Expected every pair of layer_map once but got {pairs}; drop the repeated pair.")
    return checked


_NAMED: dict[str, Callable[[int, int], Pairs]] = {"uniform": uniform, "skip": skip, "last": last}


def block_pairs(layer_map: str | Sequence[Sequence[int]], student_layers: int, teacher_layers: int) -> Pairs:
    """Resolve a named or written-out layer map for two real depths.

    Args:
        layer_map: ``"uniform"``, ``"skip"``, ``"last"``, or pairs of 0-based blocks.
        student_layers: Number of student blocks.
        teacher_layers: Number of teacher blocks.

    Returns:
        Pairs of 0-based blocks (student, teacher).

    Raises:
        ValueError: Unknown name, or a map that does not fit the depths.
    """
    if not isinstance(layer_map, str):
        return explicit(layer_map, student_layers, teacher_layers)
    _check_name(layer_map)
    return _NAMED[layer_map](student_layers, teacher_layers)


def early_pairs(layer_map: str | Sequence[Sequence[int]]) -> Pairs:
    """Check a layer map as far as that goes without the models.

    Args:
        layer_map: A name, or pairs of 0-based blocks.

    Returns:
        The written-out pairs, or nothing for a name: its pairs depend on the depths.

    Raises:
        ValueError: Unknown name or malformed pairs.

    Example:
        >>> early_pairs("uniform"), early_pairs([[0, 1]])
        ([], [(0, 1)])
    """
    if not isinstance(layer_map, str):
        return as_pairs(layer_map)
    _check_name(layer_map)
    return []


def _check_name(layer_map: str) -> None:
    if layer_map not in _NAMED:
        raise ValueError(
            f"Expected layer_map to be one of {', '.join(_NAMED)} or a list of [student block, teacher "
            f"block] pairs but got {layer_map!r}."
        )


def hidden_pairs(pairs: Pairs) -> Pairs:
    """Turn block pairs into pairs of Hugging Face ``hidden_states`` indices, where 0 is the embedding output.

    Args:
        pairs: Pairs of 0-based blocks.

    Returns:
        Pairs of indices (student, teacher).

    Example:
        >>> hidden_pairs(uniform(4, 12))
        [(1, 3), (2, 6), (3, 9), (4, 12)]
    """
    return [(student + 1, teacher + 1) for student, teacher in pairs]


def _ratio(name: str, student_layers: int, teacher_layers: int) -> int:
    if teacher_layers % student_layers:
        raise ValueError(
            f"Expected the teacher's depth to be a multiple of the student's for layer_map {name!r} but got "
            f"{teacher_layers} and {student_layers} layers; give layer_map as a list of [student block, "
            "teacher block] pairs."
        )
    return teacher_layers // student_layers


def _need_two(name: str, student_layers: int) -> None:
    if student_layers < 2:
        raise ValueError(
            f"Expected a student with at least 2 layers for layer_map {name!r}, which leaves the last one "
            f"out, but got {student_layers}; use 'uniform' or a list of pairs."
        )
