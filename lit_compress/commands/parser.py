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


def names(text: str) -> list[str]:
    """Return the names of a list with commas between, as argparse's ``type``."""
    return [name.strip() for name in text.split(",")]


def add_quality(verb: argparse.ArgumentParser) -> None:
    """Declare the quality that a verb has to keep.

    Args:
        verb: Its parser.
    """
    verb.add_argument(
        "--quality", type=float, required=True, metavar="SHARE", help="share of its own quality to keep"
    )


def add_session(verb: argparse.ArgumentParser) -> None:
    """Declare how long a verb measures, and on how many threads.

    Args:
        verb: Its parser.
    """
    verb.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: 1)")
    verb.add_argument("--rounds", type=int, metavar="N", help="most rounds of a measurement that count")
    verb.add_argument("--max-seconds", type=float, metavar="S", help="budget of a measurement")


def add_calibration(verb: argparse.ArgumentParser) -> None:
    """Declare the texts that a verb calibrates a finished model with.

    Args:
        verb: Its parser.
    """
    verb.add_argument(
        "--data",
        metavar="FILE",
        help="YAML file with a data section (default: config.yaml of the folder's run); for a language model, a text",
    )
    verb.add_argument(
        "--length", type=int, metavar="N", help="tokens per block of such a text (default: 128)"
    )
    verb.add_argument(
        "--texts", type=int, metavar="N", help="training texts to calibrate with (default: 128)"
    )
    verb.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="draw these texts at random (default: spread over all lengths)",
    )


def add_parts(verb: argparse.ArgumentParser, of: str, included: str) -> None:
    """Declare which modules a verb changes, and which it leaves.

    Args:
        verb: Its parser.
        of: What is chosen among, such as ``modules``.
        included: What happens to those that are included, with the default.
    """
    for name, what in (("include", included), ("exclude", "to leave as they are")):
        verb.add_argument(f"--{name}", nargs="+", metavar="PART", help=f"parts of the names of {of} {what}")
