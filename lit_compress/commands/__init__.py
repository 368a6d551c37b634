"""The verbs after a fit: one file per verb, with its command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from lit_compress.commands.auto import add_auto
from lit_compress.commands.benchmark import add_benchmark
from lit_compress.commands.compress import add_compress
from lit_compress.commands.export import add_export, in_other_words
from lit_compress.commands.prune import add_prune
from lit_compress.commands.quantize import add_quantize
from lit_compress.commands.recipes import add_recipes
from lit_compress.commands.report import add_report
from lit_compress.commands.sensitivity import add_sensitivity
from lit_compress.commands.shrink import add_shrink


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lit-compress")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for add in (
        add_report,
        add_benchmark,
        add_shrink,
        add_prune,
        add_quantize,
        add_sensitivity,
        add_export,
        add_auto,
        add_compress,
        add_recipes,
    ):
        add(verbs)
    return parser


def run_verb(verb: str, arguments: Sequence[str]) -> int:
    """Run one verb and turn expected failures into one paragraph.

    Returns:
        Exit status: 0 done, 1 refused, 2 wrong usage.
    """
    parser = _parser()
    known, unknown = parser.parse_known_args([verb, *arguments])
    if unknown:
        meant = in_other_words(unknown[0]) if verb == "export" else None
        hint = "" if meant is None else f"; give {meant}"
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    options = vars(known)
    function = options.pop("function")
    for key in ("verb", "action"):
        options.pop(key, None)
    try:
        function(**options)
    except (ValueError, ImportError, OSError) as error:
        print(f"lit-compress {verb}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0
