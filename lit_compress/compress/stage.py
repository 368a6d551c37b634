"""Stages: commands of this library, each a process of its own, finished ones remembered."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lit_compress.benchmark.results import append_rows
from lit_compress.files import read_json_lines

FILE_NAME = "stages.jsonl"
# Interrupted or terminated: as a status of its own, and by the signal itself.
_INTERRUPTED = (130, 143, -2, -15)


@dataclass(frozen=True)
class Stage:
    """One command.

    Args:
        name: Of the stage, unique in its plan.
        why: What it is for, for the user.
        words: Words of the command after ``lit-compress``.
    """

    name: str
    why: str
    words: tuple[str, ...]

    @property
    def command(self) -> str:
        """The command line, to be copied."""
        return shlex.join(["lit-compress", *self.words])


def run_stages(stages: Sequence[Stage], out: Path) -> None:
    """Run stages one after the other; those that are finished are not run again.

    A fit that was stopped goes on from its last checkpoint, any other stage begins anew.

    Args:
        stages: In their order.
        out: Folder that remembers which are finished.

    Raises:
        ValueError: A stage failed; it has told why.
        KeyboardInterrupt: Interrupted; the stage has kept what it keeps.
    """
    done = {row["command"] for row in read_json_lines(out / FILE_NAME)}
    for number, stage in enumerate(stages):
        head = f"Stage {number + 1} of {len(stages)}, {stage.name}"
        if stage.command in done:
            print(f"{head}: finished before", flush=True)
            continue
        print(f"{head}: {stage.why}\n  {stage.command}", flush=True)
        started = time.monotonic()
        code = run_process([sys.executable, "-m", "lit_compress", *stage.words])
        if code in _INTERRUPTED:
            raise KeyboardInterrupt
        if code:
            raise ValueError(
                f"Expected the stage {stage.name} to finish but it ended with status {code}, see above; what is "
                f"finished stays in {out}: mend the cause and give the same command again."
            )
        row = {"stage": stage.name, "command": stage.command, "seconds": round(time.monotonic() - started, 1)}
        append_rows(out / FILE_NAME, [row])


def run_process(words: Sequence[str]) -> int:
    """Run a process and return its status; an interruption is handed on to it, and its end is waited for.

    A fit that is interrupted writes a checkpoint, which takes longer than the shell or Python would wait. Being
    terminated is an interruption too. To be called in the main thread.

    Args:
        words: The program and its arguments.
    """
    # In a session of its own the key reaches this process alone, and the other one gets it once.
    process = subprocess.Popen(words, start_new_session=True, preexec_fn=_hear_interruptions)
    before = signal.signal(signal.SIGTERM, lambda number, frame: process.send_signal(signal.SIGINT))
    try:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                process.send_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, before)


def _hear_interruptions() -> None:
    # Shells let what runs in the background ignore them, and so would everything that it starts.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
