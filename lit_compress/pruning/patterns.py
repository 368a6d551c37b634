"""From the settings of a callback to the pattern that they mean."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lit_compress.pruning.groups import STRUCTURES
from lit_compress.pruning.pattern import Pattern
from lit_compress.pruning.unit_pattern import Units
from lit_compress.pruning.weight_patterns import NofM, Weights


def pattern_of(
    structure: str | Sequence[str],
    scope: str,
    block: Sequence[int] | None,
    include: Sequence[str],
    exclude: Sequence[str],
    at_least: int | None,
) -> Pattern:
    """Return the pattern of the settings of ``Pruning``.

    Raises:
        ValueError: The settings do not fit together.
    """
    if scope not in ("global", "local"):
        raise ValueError(f"Expected scope global or local but got {scope!r}.")
    names = [structure] if isinstance(structure, str) else list(structure)
    structured = all(name in STRUCTURES for name in names) and bool(names)
    if block is not None and (names != ["block"] or len(block) != 2):
        raise ValueError(
            f"Expected block=[outputs, inputs] with structure=block but got block={list(block)} and "
            f"structure={structure}; leave one of them out."
        )
    if structured:
        if include:
            raise ValueError(
                f"Expected no include for {', '.join(names)}, of which all units are taken, but got {list(include)}; "
                "leave it out, or use exclude."
            )
        return Units(names, scope, 1 if at_least is None else at_least, exclude)
    if at_least is not None:
        raise ValueError(
            f"Expected no keep_at_least for structure={structure} but got {at_least}; it is for heads and other units."
        )
    return _weights(names, structure, scope, block, include, exclude)


def _weights(
    names: Sequence[str],
    structure: str | Sequence[str],
    scope: str,
    block: Sequence[int] | None,
    include: Sequence[str],
    exclude: Sequence[str],
) -> Pattern:
    part = "/".join([*names, *(str(size) for size in block or ()), *(f"+{name}" for name in include)])
    part += "".join(f"/-{name}" for name in exclude)
    ratio = re.fullmatch(r"(\d+):(\d+)", names[0]) if len(names) == 1 else None
    if names == ["weight"]:
        return Weights(scope, (1, 1), include, exclude, part)
    if names == ["block"] and block is not None:
        return Weights(scope, (block[0], block[1]), include, exclude, part)
    if ratio is not None:
        return NofM(int(ratio[1]), int(ratio[2]), include, exclude, part)
    raise ValueError(
        "Expected structure to be weight, block (with block: [outputs, inputs]), n:m such as '2:4' in quotes, or a "
        f"list of {', '.join(STRUCTURES)}, but got {structure!r}."
    )
