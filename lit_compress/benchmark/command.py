"""``lit-compress benchmark``: measure a model folder after its fit."""

from __future__ import annotations

from pathlib import Path

from lit_compress.benchmark.folders import display_name, recorded_method
from lit_compress.benchmark.measure import measure
from lit_compress.benchmark.protocol import Candidate, Protocol, typical_rows
from lit_compress.benchmark.results import append_rows, to_row
from lit_compress.models.manifest import MANIFEST, read_manifest
from lit_compress.models.names import resolve_model
from lit_compress.report.command import print_groups
from lit_compress.report.groups import group_rows


def benchmark_folder(
    folder: str,
    against: str | None = None,
    out: str | None = None,
    threads: int = 1,
    rounds: int = 10,
    max_seconds: float = 30.0,
) -> None:
    """Measure a model folder, and a baseline beside it, and print the table.

    Args:
        folder: Model folder as fit leaves it; its manifest says how long real texts are.
        against: Model folder, hub name or ``package:NAME`` of the baseline.
        out: Results file to append the rows to; only printed where ``None``.
        threads: CPU threads of each model.
        rounds: Rounds that count.
        max_seconds: Budget per device in seconds; no further round is begun when it is spent.

    Raises:
        ValueError: The folder has no manifest with text lengths.
    """
    source = resolve_model(folder)
    lengths = (read_manifest(source) or {}).get("input_lengths")
    if not lengths:
        raise ValueError(
            f"Expected input_lengths, token counts of real texts, in {Path(source) / MANIFEST} but there "
            "are none; give a model folder that lit-compress fit wrote."
        )
    chosen = tuple(int(lengths[row]) for row in typical_rows(lengths))
    protocol = Protocol(chosen, threads=threads, rounds=rounds, max_seconds=max_seconds)
    candidate = Candidate(display_name(source), source, recorded_method(source, "–"))
    baseline = None
    if against is not None:
        base = resolve_model(against)
        name = display_name(base)
        name = f"{name} (baseline)" if name == candidate.name else name
        baseline = Candidate(name, base, recorded_method(base, "teacher"))
    manifest = read_manifest(source) or {}
    rows = [to_row(m, source, manifest.get("recipe")) for m in measure([candidate], baseline, protocol)]
    if out is not None:
        append_rows(out, rows)
    print_groups(group_rows(rows))
