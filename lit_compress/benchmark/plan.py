"""Splits a benchmark into sessions, and leaves out what an earlier run has measured already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lit_compress.benchmark.environment import runtime_versions, same_environment
from lit_compress.benchmark.folders import local_folder, weight_fingerprint
from lit_compress.benchmark.protocol import Candidate, Protocol

# More models than these in one session would keep each other waiting, and share the memory.
_SESSION_SIZE = 4


def sessions_of(candidates: Sequence[Candidate]) -> list[list[Candidate]]:
    """Split candidates into sessions of about equal size; the baseline joins each of them."""
    count = -(-len(candidates) // _SESSION_SIZE)
    return [list(candidates[number::count]) for number in range(count)]


def is_measured(
    candidate: Candidate,
    rows: Sequence[dict[str, Any]],
    protocol: Protocol,
    environment: dict[str, Any],
    judged: bool,
) -> bool:
    """Return whether there is a row of the same weights, measured in the same way in the same place.

    The libraries of its runtime are those of now, too; what other runtimes have does not matter.

    Args:
        candidate: The model in its runtime.
        rows: Rows of the results file.
        protocol: How it would be measured now.
        environment: Where it would be measured now.
        judged: Whether its quality would be evaluated now.
    """
    # Reading the weights of many models takes a while.
    weights = weight_fingerprint(local_folder(candidate.folder)) if rows else None
    wanted = {"model": candidate.name, "runtime": candidate.runtime, "weights": weights}
    libraries = runtime_versions(candidate.runtime)
    return any(
        all(row[key] == value for key, value in wanted.items())
        # Rows of earlier releases do not say it.
        and row.get("libraries", {}) == libraries
        and not row["is_baseline"]
        and not row.get("error")
        and row["protocol"] == protocol.to_dict()
        and same_environment(row["environment"], environment)
        and (row["quality"] is not None or not judged)
        for row in rows
    )
