"""The command line of ``lit-compress auto``."""

from __future__ import annotations

import argparse
from typing import Any

from lit_compress.commands.parser import add_quality, add_session, add_verb, names


def auto(**options: Any) -> None:
    """Try every way of running a model, and keep the best one under your wishes."""
    from lit_compress.auto.command import auto_command

    auto_command(**options)


_AUTO_EXAMPLES = """\
examples:
  lit-compress auto runs/x/model --quality 0.98
      the fastest way of running the model that keeps 98 % of its quality on the validation texts of its run:
      table over all ways, and the export of the winner, in runs/x/model-auto
  lit-compress auto small --quality 0.99 --minimise size --max-latency-ms 10 --data recipes/my.yaml
      the smallest file that keeps 99 % and answers the median text within 10 ms

Stopped, the same command goes on where it was. The test split is never looked at: judge the winner on it once.
"""


def add_auto(verbs: Any) -> None:
    """Declare the command line."""
    verb = add_verb(
        verbs,
        "auto",
        auto,
        argument_default=argparse.SUPPRESS,
        epilog=_AUTO_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument("folder", metavar="FOLDER", help="model folder, as in <run>/model")
    add_quality(verb)
    verb.add_argument("--minimise", metavar="WHAT", help="latency (default), size, memory")
    for name, what in (
        ("size-mb", "megabytes of the files that are loaded"),
        ("latency-ms", "milliseconds of the median text, or of a batch"),
        ("memory-mb", "megabytes of memory"),
    ):
        verb.add_argument(f"--max-{name}", type=float, metavar="X", help=f"most {what}")
    verb.add_argument("--batch", type=int, metavar="N", help="texts at once (default: 1)")
    verb.add_argument(
        "--task",
        metavar="NAME",
        help="text-classification or text-regression (default: as the labels of the data say)",
    )
    verb.add_argument(
        "--data",
        metavar="YAML",
        help="file with a data section (default: config.yaml of the folder's run, or what it was rounded with)",
    )
    verb.add_argument("--split", help="split to judge on (default: validation)")
    verb.add_argument(
        "--runtimes",
        type=names,
        metavar="NAME,NAME",
        help="ways to try (default: all that are installed)",
    )
    add_session(verb)
    verb.add_argument(
        "--out", metavar="DIR", help="judgements, rows and the export (default: FOLDER-auto beside it)"
    )
