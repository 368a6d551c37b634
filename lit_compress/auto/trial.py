"""One route on its way through the search, and the file that remembers how far it came."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lit_compress.auto.goal import Shortfall
from lit_compress.benchmark.protocol import Candidate
from lit_compress.benchmark.selection import Row
from lit_compress.files import read_json_lines

#: Judgements, one per line.
FILE_NAME = "quality.jsonl"
PARITY, REFUSED, CRASHED = "parity failed", "cannot express this model", "crashed"
# The same model and libraries fail like this again; a crash may have come from the machine.
_LASTING = (PARITY, REFUSED)


@dataclass
class Trial:
    """A route and what is known about it.

    Args:
        candidate: The model in its runtime.
        depends_on: What decides its quality.
        bytes: Size of the files that it loads.
        facts: Parameters and shape.
        quality: Metric on the split, as :func:`~lit_compress.benchmark.quality.evaluate` returns it.
        failure: Which kind and what happened, where it cannot go on.
        seconds: What building and judging cost.
        shortfalls: What it lacks.
        row: Its measured row.
    """

    candidate: Candidate
    depends_on: dict[str, Any]
    bytes: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    quality: dict[str, Any] | None = None
    failure: tuple[str, str] | None = None
    seconds: float = 0.0
    shortfalls: list[Shortfall] = field(default_factory=list)
    row: Row | None = None

    @property
    def name(self) -> str:
        """Name of the route."""
        return self.candidate.runtime

    @property
    def is_alive(self) -> bool:
        """Whether it lacks nothing so far."""
        return self.failure is None and not self.shortfalls

    @property
    def is_judged(self) -> bool:
        """Whether its quality is known, or that it has none."""
        return self.quality is not None or self.failure is not None

    def kept(self, original: Trial) -> float:
        """Return the share of the original's quality that it keeps."""
        assert self.quality is not None and original.quality is not None
        return self.quality["value"] / original.quality["value"]

    def to_record(self) -> dict[str, Any]:
        """Return the judgement as one line of :data:`FILE_NAME`, ready for JSON."""
        return {
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "route": self.name,
            "depends_on": self.depends_on,
            "bytes": self.bytes,
            "facts": self.facts,
            "quality": self.quality,
            "failure": self.failure,
            "seconds": round(self.seconds, 1),
        }

    def recall(self, records: list[dict[str, Any]]) -> None:
        """Take over the latest judgement that depends on the same and would come out the same again."""
        for record in reversed(records):
            quality, failure = record["quality"], record["failure"]
            lasting = quality is not None or (failure is not None and failure[0] in _LASTING)
            if lasting and record["depends_on"] == self.depends_on:
                self.bytes, self.facts, self.quality = record["bytes"], record["facts"], quality
                self.failure = None if failure is None else (failure[0], failure[1])
                return


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return the judgements of a file; lines that a kill cut short are not there, and are judged again."""
    return [record for record in read_json_lines(path) if "depends_on" in record]
