"""What is measured and how: the candidates and the protocol, both plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from lit_compress.benchmark.devices import clock_name

DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Candidate:
    """A model to measure.

    Args:
        name: Name in the table; unique among the models that are measured together.
        folder: Model folder, hub name or ``package:NAME``.
        method: How the model was made, for the table.
        lengths: Token lengths of the protocol's texts under this model's own tokenizer, one per text;
            ``None`` where it shares the tokenizer that ``Protocol.lengths`` was counted with.
    """

    name: str
    folder: str
    method: str = "–"
    lengths: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Protocol:
    """How models are measured.

    One round times every text alone (latency at batch 1) and then all texts as one padded batch
    (throughput). The models take turns within a round, in random order, so that a change of the
    machine's speed hits all of them alike.

    Args:
        lengths: Token lengths of the texts of a round, see :func:`typical_rows`.
        threads: CPU threads of each model. One thread is the steadiest on a shared machine, because
            its processor time can be counted instead of the wall time.
        rounds: Rounds that count.
        warmup: Rounds that run first and are thrown away.
        max_seconds: Budget per device in seconds; no further round is begun when it is spent, but
            at least ``min_rounds`` are measured.
        min_rounds: Rounds that are measured whatever they cost.
        timeout: Seconds after which a model that does not answer counts as hanging.
        devices: ``"cpu"`` and ``"cuda"``; ``None`` takes the GPU too where there is one.
        seed: Seed of the random token ids and of the order of turns.

    Raises:
        ValueError: A setting that cannot be measured with.
    """

    lengths: tuple[int, ...]
    threads: int = 1
    rounds: int = 10
    warmup: int = 1
    max_seconds: float = 30.0
    min_rounds: int = 3
    timeout: float = 120.0
    devices: tuple[str, ...] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
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
        unknown = set(self.devices or ()) - set(DEVICES)
        if unknown:
            raise ValueError(
                f"Expected devices among {', '.join(DEVICES)} but got {', '.join(sorted(unknown))}."
            )

    def to_dict(self) -> dict[str, object]:
        """Return what a row of the results has to say about the protocol."""
        kept = ("lengths", "threads", "rounds", "warmup", "max_seconds", "seed")
        described = {key: value for key, value in asdict(self).items() if key in kept}
        clock = clock_name(self.threads)
        return {**described, "lengths": list(self.lengths), "batch": len(self.lengths), "clock": clock}


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
