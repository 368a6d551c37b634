"""The verbs after a fit: plain functions and their command lines."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def report(
    runs: list[str], out: str = "report", wandb_workspace: str | None = None, dry_run: bool = False
) -> None:
    """Print the results table over runs and write it as a page, with plots, Markdown and CSV.

    Args:
        runs: Run folders, or folders above them; every results.jsonl below is read.
        out: Folder for index.html, table.md, table.csv and the plots.
        wandb_workspace: ENTITY/PROJECT; publish the W&B dashboard there instead of writing the report.
        dry_run: Write the specification of that dashboard into out instead of publishing it.
    """
    if dry_run and wandb_workspace is None:
        raise ValueError(
            "Expected --wandb-workspace ENTITY/PROJECT with --dry-run but got none; --dry-run is for the W&B dashboard."
        )
    if wandb_workspace is not None:
        from lit_compress.dashboard.publish import dashboard

        place = dashboard(runs, wandb_workspace, out if dry_run else None)
        print(f"W&B dashboard: {place}")
        return
    from lit_compress.report.command import report as write_report

    write_report([Path(run) for run in runs], Path(out))


def benchmark(**options: Any) -> None:
    """Measure model folders beside a baseline, each in a clean process, in interleaved rounds."""
    from lit_compress.benchmark.command import benchmark_folders

    benchmark_folders(**options)


def shrink(**options: Any) -> None:
    """Remove what was pruned from a model, and write the folder of the smaller one."""
    from lit_compress.pruning.command import shrink_command

    shrink_command(**options)


def export(**options: Any) -> None:
    """Turn a model folder into a checked folder for another runtime."""
    from lit_compress.export.command import export_folder

    export_folder(**options)


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
        "--out", default="report", help="folder for index.html, the tables and the plots (%(default)s)"
    )
    verb.add_argument(
        "--wandb-workspace",
        metavar="ENTITY/PROJECT",
        help="publish the W&B dashboard over these runs there instead of writing the report",
    )
    verb.add_argument(
        "--dry-run",
        action="store_true",
        help="write the specification of the W&B dashboard into --out; needs neither a key nor the network",
    )

    _add_benchmark(verbs)
    _add_shrink(verbs)
    _add_export(verbs)

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


def _add_benchmark(verbs: Any) -> None:
    # Options that are not given are not handed on: each default is written where it is used.
    verb = _add(verbs, "benchmark", benchmark, argument_default=argparse.SUPPRESS)
    verb.add_argument("folders", nargs="+", metavar="FOLDER", help="model folder, as in <run>/model")
    verb.add_argument(
        "--against", metavar="MODEL", help="baseline: model folder, hub name or package:NAME; the teacher"
    )
    verb.add_argument(
        "--runtimes",
        type=lambda text: [name.strip() for name in text.split(",")],
        metavar="NAME,NAME",
        help="torch-fp32 (default), torch-bf16, torch-compile, onnx-fp32, onnx-int8",
    )
    verb.add_argument(
        "--data", metavar="YAML", help="file with a data section (default: config.yaml of the folders' runs)"
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


_SHRINK_EXAMPLES = """\
examples:
  lit-compress shrink runs/x --out small
      the best checkpoint of a run without its closed heads, neurons and layers: computes what the masked model does,
      blocks may differ in size, load it with lit_compress.load("small")
  lit-compress shrink runs/x --out small --neurons 512 --layers 4
      one size for all blocks, the strongest units stay: stock AutoModel...from_pretrained loads it too; fine-tune it
      (student: Pretrained, name: small) where units that did something had to go
  lit-compress shrink runs/x/model --out small --vocabulary-from texts.txt --min-count 5
      a model folder with the word pieces that texts use; the tokenizer is shrunk to match
  lit-compress shrink resnet --out small --sparsity 0.5
      a convolution net without half of its weights: prune, then fine-tune
"""


def _add_shrink(verbs: Any) -> None:
    verb = _add(
        verbs,
        "shrink",
        shrink,
        argument_default=argparse.SUPPRESS,
        epilog=_SHRINK_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument(
        "source", metavar="RUN_OR_FOLDER", help="run folder, model folder, hub name or package:NAME"
    )
    verb.add_argument("--out", required=True, metavar="DIR", help="the new model folder")
    for name, what in (
        ("heads", "heads of every block (key-value heads where queries share them)"),
        ("neurons", "neurons of every feed-forward network"),
        ("layers", "blocks; those that write with the smallest weights go"),
        ("hidden", "hidden dimensions"),
    ):
        verb.add_argument(f"--{name}", type=int, metavar="N", help=what)
    verb.add_argument(
        "--round-to",
        type=int,
        metavar="N",
        help="keep a multiple of N neurons where blocks differ (default: 1)",
    )
    verb.add_argument(
        "--vocabulary-from",
        metavar="FILE",
        help="keep only word pieces of these texts: one per line, or a YAML file with a data section",
    )
    verb.add_argument(
        "--min-count", type=int, metavar="N", help="occurrences from which on a piece stays (default: 1)"
    )
    verb.add_argument("--ckpt", metavar="best|last|FILE", help="checkpoint of a run folder (default: best)")
    nets = verb.add_argument_group("convolution nets", 'pip install "lit-compress[convnets]"')
    nets.add_argument("--sparsity", type=float, metavar="S", help="share of the weights to remove, 0 to 1")
    nets.add_argument(
        "--importance",
        metavar="NAME",
        help="magnitude (default), batch_norm, lamp, fpgm, random: how channels are ranked",
    )
    nets.add_argument("--image-size", type=int, metavar="N", help="pixels (default: what the folder says)")


_EXPORT_EXAMPLES = """\
formats and precisions (the first is the default):
{formats}

examples:
  lit-compress export runs/x/model --format onnx --precision int8
      runs/x/model-onnx-int8: the ONNX file, its tokenizer, infer.py that needs onnxruntime only, and a row
      of results.jsonl beside the original
  lit-compress export small --format openvino --data recipes/my.yaml --out small-openvino
      compared on the texts of that data section, since "small" lies in no run
"""


def _add_export(verbs: Any) -> None:
    from lit_compress.export.formats import FORMATS

    formats = "\n".join(f"  {name:<12} {', '.join(precisions)}" for name, precisions in FORMATS.items())
    verb = _add(
        verbs,
        "export",
        export,
        argument_default=argparse.SUPPRESS,
        epilog=_EXPORT_EXAMPLES.format(formats=formats),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument("folder", metavar="FOLDER", help="model folder, as in <run>/model")
    verb.add_argument("--format", required=True, metavar="NAME", help="one of those below")
    verb.add_argument("--precision", metavar="NAME", help="one of the format's (default: its first)")
    verb.add_argument(
        "--out", metavar="DIR", help="the new folder (default: FOLDER-FORMAT-PRECISION beside the model)"
    )
    verb.add_argument(
        "--data", metavar="YAML", help="file with a data section (default: config.yaml of the folder's run)"
    )
    verb.add_argument("--split", help="split whose texts are compared (default: validation)")
    verb.add_argument(
        "--least-same",
        type=float,
        metavar="SHARE",
        help="share of real texts that must get the original's label (default: 0.95)",
    )
    verb.add_argument(
        "--no-benchmark",
        action="store_false",
        dest="benchmark",
        help="do not measure it beside the original",
    )


def _add(parsers: Any, name: str, function: Callable[..., None], **options: Any) -> argparse.ArgumentParser:
    text = (function.__doc__ or "").splitlines()[0]
    parser: argparse.ArgumentParser = parsers.add_parser(name, help=text, description=text, **options)
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
