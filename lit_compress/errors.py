"""Turns the parser's nested messages into one paragraph with the nearest valid name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_PATTERNS = (
    # (pattern, group of the wrong word, what kind of word is meant)
    (re.compile(r"Option '([\w.]+)' is not accepted"), "key"),
    (re.compile(r"Key '([\w.]+)' is not expected"), "key"),
    (re.compile(r"Group '([\w.]+)' does not accept nested key '([\w.]+)'"), "key"),
    (re.compile(r"[Uu]nrecognized arguments: --([\w.]+)"), "key"),
    (re.compile(r"No action for key \"?'?([\w.]+)"), "key"),
    (re.compile(r"Expected a dot import path string: (\w+)"), "class"),
    (re.compile(r"Import path (\w+) does not correspond"), "class"),
)


def explain(message: str, keys: Iterable[str], classes: Iterable[str]) -> str:
    """Return a suggestion for the wrong word in a parser message, or an empty string.

    Args:
        message: What the parser said.
        keys: Full names of the accepted options, such as ``model.init_args.teacher``.
        classes: Names of the classes that may be written as a ``class_path``.
    """
    for pattern, kind in _PATTERNS:
        found = pattern.search(message)
        if not found:
            continue
        word = found.groups()[-1].split(".")[-1]
        names = set(classes) if kind == "class" else {k.split(".")[-1] for k in keys}
        near = difflib.get_close_matches(word, sorted(names), n=1, cutoff=0.6)
        if near and near[0] != word:
            return f"Did you mean '{near[0]}' instead of '{word}'?"
    return ""
