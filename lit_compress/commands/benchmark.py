"""The command line of ``lit-compress benchmark``."""

from __future__ import annotations

import argparse
from typing import Any

from lit_compress.benchmark.runtimes import RUNTIMES
from lit_compress.commands.parser import add_verb, names


def benchmark(**options: Any) -> None:
    """Measure model folders beside a baseline, each in a clean process, in interleaved rounds."""
    from lit_compress.benchmark.command import benchmark_folders

    benchmark_folders(**options)


def add_benchmark(verbs: Any) -> None:
    """Declare the command line."""
    # Options that are not given are not handed on: each default is written where it is used.
    verb = add_verb(verbs, "benchmark", benchmark, argument_default=argparse.SUPPRESS)
    verb.add_argument("folders", nargs="+", metavar="FOLDER", help="model folder, as in <run>/model")
    verb.add_argument(
        "--against", metavar="MODEL", help="baseline: model folder, hub name or package:NAME; the teacher"
    )
    verb.add_argument(
        "--runtimes",
        type=names,
        metavar="NAME,NAME",
        help=f"torch-fp32 (default), {', '.join(RUNTIMES[1:])}",
    )
    verb.add_argument(
        "--data",
        metavar="YAML",
        help="file with a data section (default: config.yaml of the folders' runs, or what they were rounded with)",
    )
    verb.add_argument("--split", help="split for text lengths and quality (default: validation)")
    verb.add_argument("--threads", type=int, nargs="+", metavar="N", help="CPU threads (default: 1)")
    verb.add_argument(
        "--out", metavar="FILE", help="results.jsonl to append to; what it holds is not measured again"
    )
    verb.add_argument("--rounds", type=int, metavar="N", help="most rounds that count")
    verb.add_argument("--max-seconds", type=float, metavar="S", help="budget of a session per device")
    verb.add_argument(
        "--fixed-batches",
        type=int,
        nargs="+",
        metavar="N",
        help="throughput at fixed lengths too (default: none)",
    )
    verb.add_argument(
        "--memory-limit-mb", type=float, metavar="MB", help="end a model that takes more (default: its share)"
    )
