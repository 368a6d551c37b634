"""What the benchmark scripts share: records to go on from, and pages that keep what was written by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lit_compress.benchmark.environment import describe_environment, same_environment
from lit_compress.files import read_json_lines

NOTES = "<!-- Written by hand from here on; the script keeps it. -->"
Record = dict[str, Any]


def own_records(path: Path, environment: Callable[[Record], Record]) -> list[Record]:
    """Return the records of a file; those of another machine do not mix with these.

    Args:
        path: The file.
        environment: Returns the environment of a record.

    Raises:
        SystemExit: A record is of another machine, or of other libraries.
    """
    records, here = read_json_lines(path), describe_environment()
    for record in records:
        there = environment(record)
        if not same_environment(there, {**here, "gpu": there["gpu"]}):
            raise SystemExit(
                f"Expected runs of this machine and these libraries in {path} but got others; delete it, or choose "
                "another --runs-dir."
            )
    return records


def own_sessions(path: Path) -> list[Record]:
    """Return the records of a file that hold the ``rows`` of a session; see ``own_records``."""
    return own_records(path, lambda record: record["rows"][0]["environment"])


def machine(sessions: Sequence[Record]) -> str:
    """Return what a page says about the machine and the libraries of some sessions."""
    row = sessions[-1]["rows"][0]
    facts, loads = (
        row["environment"],
        [session["load"] for session in sessions if session["load"] is not None],
    )
    return (
        f"- Machine: {facts['cpu']}, {row['protocol']['threads']} thread, {row['protocol']['clock']}, load "
        f"{min(loads, default=0):.1f}–{max(loads, default=0):.1f} before a session\n"
        f"- Software: torch {facts['torch']}, transformers {facts['transformers']}, lit-compress "
        f"{facts['lit_compress']}"
    )


def write_page(out: Path, parts: Sequence[str]) -> None:
    """Write a page above what was written by hand.

    Args:
        out: The file; its notes stay.
        parts: Blocks of Markdown; empty ones are left out.
    """
    notes = out.read_text(encoding="utf-8").partition(NOTES)[2] if out.is_file() else ""
    blocks = [part.strip() for part in (*parts, NOTES, notes)]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n\n".join(block for block in blocks if block) + "\n", encoding="utf-8")
