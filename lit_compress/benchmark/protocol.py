"""What is measured and how: the candidates and the protocol, both plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

DEVICES = ("cpu", "cuda")
#: The runtime that every baseline is measured in.
BASELINE_RUNTIME = "torch-fp32"
#: Settings that say how to stop, not what is measured: rows that differ in them alone are comparable.
_UNRECORDED = ("min_rounds", "timeout", "devices", "memory_limit_mb")


def clock_name(threads: int) -> str:
    """Return the clock that a CPU measurement goes by.

    With one thread this is the processor time of the process. On an idle machine it equals the wall time;
    on a shared one it leaves out the time that was given to other processes, which says nothing about the
    model. With several threads their processor times add up to no latency, so the wall time counts.
    """
    return "cpu time" if threads == 1 else "wall time"


@dataclass(frozen=True)
class Candidate:
    """A model in a runtime.

    Args:
        name: Name in the table; unique, together with the runtime, among those that are measured together.
        folder: Model folder, hub name or ``package:NAME``.
        method: How the model was made, for the table.
        runtime: Name of the runtime that it is run in.
        lengths: Token lengths of the protocol's texts under this model's own tokenizer, one per text;
            ``None`` where it shares the tokenizer that ``Protocol.lengths`` was counted with.
        side: ``"teacher"`` reads the teacher's own tokens where the data has them.
    """

    name: str
    folder: str
    method: str = "–"
    runtime: str = BASELINE_RUNTIME
    lengths: tuple[int, ...] | None = None
    side: Literal["student", "teacher"] = "student"

    @property
    def label(self) -> str:
        """Name and runtime, for messages."""
        return f"{self.name} in {self.runtime}"


@dataclass(frozen=True)
class Protocol:
    """How models are measured.

    In one round every model runs every workload: each text alone (latency at batch 1), texts in padded
    batches (throughput), and texts of fixed lengths. The models take turns within a round, in random order,
    so that a change of the machine's speed hits all of them alike.

    Args:
        lengths: Token lengths of the texts of a round, see :func:`typical_rows`.
        batches: Batch sizes at which throughput over these texts is measured.
        fixed_lengths: Text lengths that are measured one by one too; a model that cannot read texts as long
            as that leaves them out.
        fixed_batches: Batch sizes at which throughput at the fixed lengths is measured.
        threads: CPU threads of each model. One thread is the steadiest on a shared machine, because
            its processor time can be counted instead of the wall time.
        rounds: Rounds that count.
        warmup: Most rounds that run first and are thrown away; fewer where the times are stable before.
        max_seconds: Budget per session and device in seconds, warm-up included; no further round is begun
            when it is spent, but at least ``min_rounds`` are measured.
        min_rounds: Rounds that are measured whatever they cost; an interval needs some.
        timeout: Seconds after which a model that does not answer counts as hanging; compiling takes a minute or two.
        devices: ``"cpu"`` and ``"cuda"``; ``None`` takes the GPU too where there is one.
        memory_limit_mb: Resident memory in MB above which a model's process is ended; ``None`` shares most of
            the memory that is available at the start evenly among the models.
        seed: Seed of the random token ids, of the order of turns and of the bootstrap.
        data: What the lengths and the quality come from, for the rows.

    Raises:
        ValueError: A setting that cannot be measured with.
    """

    lengths: tuple[int, ...]
    batches: tuple[int, ...] = (8, 32)
    fixed_lengths: tuple[int, ...] = (32, 128, 384)
    fixed_batches: tuple[int, ...] = ()
    threads: int = 1
    rounds: int = 10
    warmup: int = 6
    max_seconds: float = 20.0
    min_rounds: int = 5
    timeout: float = 300.0
    devices: tuple[str, ...] | None = None
    memory_limit_mb: float | None = None
    seed: int = 0
    data: str | None = None

    def __post_init__(self) -> None:
        # A command line gives lists.
        for name in ("batches", "fixed_lengths", "fixed_batches"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if not self.lengths or min(self.lengths) < 1:
            raise ValueError(
                "Expected at least one text of one token or more to measure with but got lengths "
                f"{list(self.lengths)[:5]}; take them from data, such as datamodule.lengths('validation')."
            )
        for name in ("threads", "rounds", "min_rounds"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"Expected {name} to be at least 1 but got {getattr(self, name)}; "
                    f"correct the benchmark's {name}."
                )
        for name in ("batches", "fixed_lengths", "fixed_batches"):
            if any(value < 1 for value in getattr(self, name)):
                raise ValueError(
                    f"Expected {name} of at least 1 each but got {list(getattr(self, name))}; "
                    f"correct the benchmark's {name}."
                )
        unknown = set(self.devices or ()) - set(DEVICES)
        if unknown:
            raise ValueError(
                f"Expected devices among {', '.join(DEVICES)} but got {', '.join(sorted(unknown))}."
            )

    def to_dict(self) -> dict[str, object]:
        """Return what a row of the results has to say about the protocol."""
        kept = {key: value for key, value in asdict(self).items() if key not in _UNRECORDED}
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in kept.items()}
        return {**plain, "clock": clock_name(self.threads)}


def typical_rows(lengths: Sequence[int], count: int = 32) -> list[int]:
    """Return rows whose lengths stand for the whole distribution.

    The rows sit at ``count`` evenly spaced quantiles, so that their median and their 90th percentile are
    those of the data, without the noise of a random sample.

    Args:
        lengths: Token length of every row.
        count: Rows to return; rows repeat where there are fewer.

    Returns:
        Row numbers, shortest text first.

    Raises:
        ValueError: There are no rows.
    """
    if len(lengths) == 0:
        raise ValueError(
            "Expected the data to have rows to take text lengths from but got none; check its path."
        )
    order = np.argsort(np.asarray(lengths), kind="stable")
    places = (np.arange(count) + 0.5) / count * len(order)
    return [int(order[int(place)]) for place in places]
