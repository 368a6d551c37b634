"""How a verb is declared: its help is the first line of its function."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any


def add_verb(
    parsers: Any, name: str, function: Callable[..., None], **options: Any
) -> argparse.ArgumentParser:
    """Add a verb to its program or to another verb.

    Args:
        parsers: What ``add_subparsers`` returned.
        name: The verb.
        function: What it calls with its options.
        **options: For argparse.

    Returns:
        The parser of the verb, for its options.
    """
    text = (function.__doc__ or "").splitlines()[0]
    parser: argparse.ArgumentParser = parsers.add_parser(name, help=text, description=text, **options)
    parser.set_defaults(function=function)
    return parser
