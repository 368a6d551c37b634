"""Options of an objective that a paper or its code fixes together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Presets = Mapping[str, Mapping[str, Any]]


def resolve_options(
    owner: str, preset: str | None, presets: Presets, defaults: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Merge explicit options, a preset and the defaults.

    Args:
        owner: Name of the objective, for messages.
        preset: Name of a preset, or ``None``.
        presets: Name → the options that it fixes.
        defaults: Every option with its default.
        given: The constructor's values; ``None`` means not given.

    Returns:
        Every option with its value.

    Raises:
        ValueError: The preset is unknown, or an explicit option contradicts it.

    Example:
        >>> resolve_options("Loss", "paper", {"paper": {"t": 1}}, {"t": 2, "k": 3}, {"t": None, "k": 5})
        {'t': 1, 'k': 5}
    """
    explicit = {name: value for name, value in given.items() if value is not None}
    if preset is None:
        return {**defaults, **explicit}
    if preset not in presets:
        raise ValueError(
            f"Expected preset of {owner} to be one of {', '.join(presets)} but got {preset!r}; choose one or "
            "leave it out and set the options."
        )
    fixed = presets[preset]
    for name, value in fixed.items():
        if explicit.get(name, value) != value:
            raise ValueError(
                f"Expected {name}={value!r} with preset={preset!r} of {owner} but got "
                f"{name}={explicit[name]!r}; drop one of the two."
            )
    return {**defaults, **explicit, **fixed}
