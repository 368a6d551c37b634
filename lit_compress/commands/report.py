"""The command line of ``lit-compress report``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lit_compress.commands.parser import add_verb


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


def add_report(verbs: Any) -> None:
    """Declare the command line."""
    verb = add_verb(verbs, "report", report)
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
