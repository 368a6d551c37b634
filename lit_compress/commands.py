"""The verbs after a fit: plain functions and their command lines."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def report(runs: list[str], out: str = "report") -> None:
    """Print the results table over runs and write it as Markdown and CSV, with Pareto plots as PNG.

    Args:
        runs: Run folders, or folders above them; every results.jsonl below is read.
        out: Folder for table.md, table.csv and the plots.
    """
    from lit_compress.report.command import report as write_report

    write_report([Path(run) for run in runs], Path(out))


def benchmark(
    folder: str,
    against: str | None = None,
    out: str | None = None,
    threads: int = 1,
    rounds: int = 10,
    max_seconds: float = 30.0,
) -> None:
    """Measure a model folder, and a baseline beside it, each in a clean process, in interleaved rounds.

    Args:
        folder: Model folder, as fit leaves it in <run>/model.
        against: Model folder, hub name or package:NAME of the baseline, usually the teacher.
        out: results.jsonl to append the rows to; only printed where not given.
        threads: CPU threads of each model.
        rounds: Rounds that count.
        max_seconds: Budget per device; no further round is begun when it is spent.
    """
    from lit_compress.benchmark.command import benchmark_folder

    benchmark_folder(folder, against, out, threads, rounds, max_seconds)


def recipes_ls() -> None:
    """List the recipes that come with the library."""
    from rich.console import Console
    from rich.table import Table

    from lit_compress.recipes import list_recipes

    table = Table("recipe", "idea", "paper")
    for recipe in list_recipes():
        table.add_row(recipe.name, recipe.card["idea"], recipe.card["paper"])
    Console().print(table)


def recipes_cp(name: str, target: str) -> None:
    """Copy a recipe to a new file, to make it your own.

    Args:
        name: Name of the recipe, such as distil/pkd_skip.
        target: The new file; an existing one is not touched.
    """
    from lit_compress.recipes import copy_recipe

    print(copy_recipe(name, Path(target)))


def recipes_validate(files: list[str], merge: bool = False) -> None:
    """Check recipe files: every key and class, without touching data or models.

    Args:
        files: YAML files.
        merge: Whether they are one configuration, later files winning.
    """
    from lit_compress.cli import validate_recipes

    for group in [files] if merge else [[file] for file in files]:
        validate_recipes(group)
        print(f"{' + '.join(group)}: valid")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lit-compress")
    verbs = parser.add_subparsers(dest="verb", required=True)

    verb = _add(verbs, "report", report)
    verb.add_argument(
        "runs", nargs="+", help="run folders, or folders above them; every results.jsonl is read"
    )
    verb.add_argument(
        "--out", default="report", help="folder for table.md, table.csv and the plots (%(default)s)"
    )

    verb = _add(verbs, "benchmark", benchmark)
    verb.add_argument("folder", help="model folder, as fit leaves it in <run>/model")
    verb.add_argument(
        "--against", help="baseline: model folder, hub name or package:NAME; usually the teacher"
    )
    verb.add_argument("--out", help="results.jsonl to append the rows to; only printed where not given")
    verb.add_argument("--threads", type=int, default=1, help="CPU threads of each model (%(default)s)")
    verb.add_argument("--rounds", type=int, default=10, help="rounds that count (%(default)s)")
    verb.add_argument("--max-seconds", type=float, default=30.0, help="budget per device (%(default)s)")

    recipes = verbs.add_parser("recipes", help="the recipes that come with the library")
    actions = recipes.add_subparsers(dest="action", required=True)
    _add(actions, "ls", recipes_ls)
    action = _add(actions, "cp", recipes_cp)
    action.add_argument("name", help="name of the recipe, such as distil/pkd_skip")
    action.add_argument("target", help="the new file; an existing one is not touched")
    action = _add(actions, "validate", recipes_validate)
    action.add_argument(
        "files", nargs="+", help="YAML files; several are merged from left to right with --merge"
    )
    action.add_argument("--merge", action="store_true", help="check all files as one merged configuration")
    return parser


def _add(parsers: Any, name: str, function: Callable[..., None]) -> argparse.ArgumentParser:
    text = (function.__doc__ or "").splitlines()[0]
    parser: argparse.ArgumentParser = parsers.add_parser(name, help=text, description=text)
    parser.set_defaults(function=function)
    return parser


def run_verb(verb: str, arguments: Sequence[str]) -> int:
    """Run one verb and turn expected failures into one paragraph.

    Returns:
        Exit status: 0 done, 1 refused, 2 wrong usage.
    """
    options = vars(_parser().parse_args([verb, *arguments]))
    function = options.pop("function")
    for key in ("verb", "action"):
        options.pop(key, None)
    try:
        function(**options)
    except (ValueError, ImportError, OSError) as error:
        print(f"lit-compress {verb}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0
