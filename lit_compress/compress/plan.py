"""The plan: what was asked, what was measured, and what follows from it; written down before anything runs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lit_compress.compress.length import Length
from lit_compress.compress.planning import Figures, Storage
from lit_compress.compress.stage import Stage
from lit_compress.files import write_whole

FILE_NAME = "plan.json"
# Parts of a request whose names in the plan say little.
_TOLD = {"words": "list of words behind --fit"}


@dataclass(frozen=True)
class Start:
    """What the fits begin with.

    Args:
        teacher: Model folder of the teacher, with the tokenizer that the student reads with.
        student: Model folder that the student begins with.
        data: YAML file with the ``data`` section.
        tokens: Of the typical text.
        length: Of a fit that prunes.
        blocks: 0-based blocks that the student begins with; all where ``None``.
    """

    teacher: str
    student: str
    data: str
    tokens: int
    length: Length
    blocks: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Plan:
    """A plan, complete.

    Args:
        request: What was asked for, ready for JSON: another request needs another folder.
        probes: What was measured, ready for JSON.
        figures: What is aimed at.
        stages: Commands before the fits, in their order.
        start: What the fits begin with.
    """

    request: dict[str, Any]
    probes: list[dict[str, Any]]
    figures: Figures
    stages: tuple[Stage, ...]
    start: Start

    def write(self, out: Path) -> None:
        """Write it down, whole or not at all."""
        write_whole(out / FILE_NAME, json.dumps(asdict(self), indent=1) + "\n")


def read_plan(out: Path, request: dict[str, Any]) -> Plan | None:
    """Return the plan of a folder, ``None`` where it has none yet.

    Args:
        out: The folder.
        request: What is asked for now.

    Raises:
        ValueError: The plan is of another request, or damaged.
    """
    path = out / FILE_NAME
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        aim = found["figures"]
        plan = Plan(
            found["request"],
            found["probes"],
            Figures(**{**aim, "storage": Storage(**aim["storage"])}),
            tuple(Stage(stage["name"], stage["why"], tuple(stage["words"])) for stage in found["stages"]),
            _start(found["start"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"Expected the plan of an earlier run in {path} but it cannot be read ({error}); delete it to plan "
            "anew, or choose another folder with --out."
        ) from error
    other = [name for name in request if plan.request.get(name) != request[name]]
    if other:
        raise ValueError(
            f"Expected {path} to be the plan of this command but its {_TOLD.get(other[0], other[0])} is "
            f"{plan.request.get(other[0])!r} and not {request[other[0]]!r}; choose another folder with --out."
        )
    return plan


def _start(found: dict[str, Any]) -> Start:
    blocks = found.get("blocks")
    kept = None if blocks is None else tuple(blocks)
    return Start(**{**found, "length": Length(**found["length"]), "blocks": kept})
