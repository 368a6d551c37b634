"""Turns the parser's nested messages into one paragraph with the nearest valid name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

import yaml

_WRONG_KEY = (
    re.compile(r"Option '([\w.]+)' is not accepted"),
    re.compile(r"does not accept (?:nested key|option) '([\w.]+)'"),
    re.compile(r"Key '([\w.]+)' is not expected"),
    re.compile(r"[Uu]nrecognized arguments: --([\w.]+)"),
)
_WRONG_CLASS = (
    re.compile(r"Expected a dot import path string: (\w+)"),
    re.compile(r"Import path (\w+) does not correspond"),
)
_NO_RECIPE = re.compile(r"arguments are required: \w+\.(data|model)")
_UNION = re.compile(
    r"(?P<head>Parser key \"[\w.]+\"):.*Subtypes: \[(?P<types>.*?)\]\n.*Given value: (?P<value>.*)", re.DOTALL
)
_ABSTRACT = re.compile(
    r"(?P<head>Parser key \"[\w.]+\"):.*Expected an instantiatable class, but [\w.]*\b(?P<base>\w+) is abstract",
    re.DOTALL,
)
_CLASS = re.compile(r"<class '(?:[\w]+\.)*(\w+)'>")


def tidy(message: str) -> str:
    """Return a parser message as one paragraph; a dump of all subtypes becomes expected and got."""
    abstract = _ABSTRACT.search(message)
    if abstract is not None:
        return (
            f"{abstract['head']}: expected the class of the {abstract['base']} before its arguments but got only "
            "arguments; correct the name, or give its class_path first."
        )
    union = _UNION.search(message)
    if union is None:
        text = " ".join(message.split()).rstrip(".")
        advice = (
            "; give a recipe with --config, see lit-compress recipes ls" if _NO_RECIPE.search(text) else ""
        )
        return f"{text}{advice}."
    names = ["null" if name == "NoneType" else name for name in _CLASS.findall(union["types"])]
    return f"{union['head']}: expected {' or '.join(names)} but got {' '.join(union['value'].split())}."


def suggestion(message: str, sections: Iterable[str], keys: Iterable[str], classes: Iterable[str]) -> str:
    """Return ``Did you mean …?`` for the wrong word in a parser message, or an empty string.

    Args:
        message: What the parser said.
        sections: Names of the top level; they are what the first of several words most likely means.
        keys: Names of the accepted options; only the part behind the last dot counts.
        classes: Names of the classes that may be written as a ``class_path``.
    """
    known = {key.split(".")[-1] for key in keys} | set(sections)
    for pattern in _WRONG_KEY:
        for found in pattern.finditer(message):
            # A wrong group, such as modell.x, is the first part that is not a known name.
            parts = found[1].split(".")
            word = next((part for part in parts if part not in known), parts[-1])
            first = set(sections) if word == parts[0] and len(parts) > 1 else set()
            hint = _nearest(word, first) or _nearest(word, known)
            if hint:
                return hint
    wrong = [word for pattern in _WRONG_CLASS for word in pattern.findall(message)]
    return _nearest(wrong[0], set(classes)) if wrong else ""


def _nearest(word: str, names: set[str]) -> str:
    near = difflib.get_close_matches(word, sorted(names), n=1, cutoff=0.6)
    return f"Did you mean '{near[0]}' instead of '{word}'?" if near else ""


def check_yaml(
    files: Iterable[str], what: str = "recipe file", fix: str = "see lit-compress recipes ls"
) -> None:
    """Refuse files that are missing or not YAML, by name: the parser does not say which one it was.

    Args:
        files: The files.
        what: What each of them is meant to be.
        fix: What to do where one is missing.

    Raises:
        ValueError: A file cannot be read; the message names it, and the line.
    """
    for file in files:
        path = Path(file)
        if not path.is_file():
            raise ValueError(f"Expected a {what} at {file} but there is none; {fix}.")
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(
                f"Expected YAML in {file} but it does not parse: {error}; correct that line."
            ) from error
        if not isinstance(content, dict):
            raise ValueError(f"Expected keys such as model, data and trainer in {file} but it holds none.")
