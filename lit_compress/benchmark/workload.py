"""What a model is asked to run in a round: batches of random tokens with the lengths of real texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lit_compress.benchmark.protocol import Protocol
from lit_compress.benchmark.runtimes.base import Batch

LATENCY = "latency"
# How often a text of a fixed length is timed in a round: short ones oftener, at about the same cost.
_TOKENS_PER_ROUND = 128
_MOST_REPEATS = 4


@dataclass(frozen=True)
class Workload:
    """Batches that are timed one by one, in one turn of a model.

    Args:
        name: ``"latency"``, ``"throughput 8"``, ``"latency 128"`` or ``"throughput 8x128"`` (8 texts of 128).
        batches: Token lengths of the texts of each batch.
    """

    name: str
    batches: tuple[tuple[int, ...], ...]

    @property
    def texts(self) -> int:
        """Number of texts in all batches."""
        return sum(map(len, self.batches))


def round_of(protocol: Protocol, lengths: Sequence[int], max_positions: int | None) -> list[Workload]:
    """Return what one model runs in one round.

    Args:
        protocol: How to measure.
        lengths: Token lengths of the protocol's texts under the model's tokenizer.
        max_positions: Longest text that the model can read; ``None`` where it knows no limit.

    Returns:
        The workloads in their order.
    """
    workloads = [Workload(LATENCY, tuple((length,) for length in lengths))]
    workloads += [
        Workload(throughput(size), (tuple(_spread_evenly(lengths, size)),)) for size in protocol.batches
    ]
    for length in protocol.fixed_lengths:
        if max_positions is not None and length > max_positions:
            continue
        repeats = min(_MOST_REPEATS, max(1, _TOKENS_PER_ROUND // length))
        workloads.append(Workload(fixed_latency(length), ((length,),) * repeats))
        workloads += [
            Workload(throughput(size, length), ((length,) * size,)) for size in protocol.fixed_batches
        ]
    return workloads


def throughput(size: int, length: int | None = None) -> str:
    """Return the name of the workload of a batch, over real lengths where ``length`` is ``None``."""
    return f"throughput {size}" if length is None else f"throughput {size}x{length}"


def fixed_latency(length: int) -> str:
    """Return the name of the workload of single texts of one length."""
    return f"latency {length}"


def _spread_evenly(lengths: Sequence[int], count: int) -> list[int]:
    """Return ``count`` of the lengths, evenly spaced over them; they repeat where there are fewer."""
    places = (np.arange(count) + 0.5) / count * len(lengths)
    return [lengths[int(place)] for place in places]


def token_batch(lengths: Sequence[int], vocab_size: int, pad_token_id: int | None, seed: int) -> Batch:
    """Return one right-padded batch of random tokens.

    Which tokens they are does not change the time of a dense encoder; their number does.

    Args:
        lengths: Token length of each row.
        vocab_size: Token ids are drawn below it.
        pad_token_id: Never drawn, since some models find their positions by it; ``None`` pads with 0.
        seed: Seed of the draw.

    Returns:
        ``input_ids`` and ``attention_mask``, both ``(len(lengths), max(lengths))`` int64.
    """
    pad = pad_token_id or 0
    shape = (len(lengths), max(lengths))
    ids = np.random.default_rng(seed).integers(0, vocab_size, shape, dtype=np.int64)
    ids[ids == pad] = (pad + 1) % vocab_size
    mask = np.arange(shape[1]) < np.asarray(lengths)[:, None]
    return {"input_ids": np.where(mask, ids, pad), "attention_mask": mask.astype(np.int64)}
