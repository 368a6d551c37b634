"""Builds HTML in which everything is escaped that is not a tag of ours."""

from __future__ import annotations

import html
import json
from typing import Any

_VOID = ("input", "link", "meta")


class Html(str):
    """Text that is HTML already."""


def tag(name: str, /, *children: str, **attributes: Any) -> Html:
    """Return an element.

    Args:
        name: Of the element.
        *children: Text, which is escaped, and :class:`Html`, which is not.
        **attributes: Their values are escaped. ``class_`` is written class, ``data_id`` data-id; those that
            are ``None`` or ``False`` are left out, those that are ``True`` have no value.

    Returns:
        The element.
    """
    words = [name]
    for key, value in attributes.items():
        if value is not None and value is not False:
            written = key.rstrip("_").replace("_", "-")
            words.append(written if value is True else f'{written}="{html.escape(str(value))}"')
    if name in _VOID:
        return Html(f"<{' '.join(words)}>")
    return Html(f"<{' '.join(words)}>{join(*children)}</{name}>")


def join(*children: str) -> Html:
    """Return children one after the other; text is escaped."""
    return Html("".join(child if isinstance(child, Html) else html.escape(child) for child in children))


def script_data(name: str, data: Any) -> Html:
    """Return data for scripts: JSON in an element of its own, in which nothing can end the element."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    safe = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Html(f'<script type="application/json" id="{html.escape(name)}">{safe}</script>')


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, such as ``1 row`` or ``2 rows``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
