"""An artefact on real texts: loaded in its runtime, in a clean process, beside the original in another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lit_compress.benchmark.artefacts import Artefact
from lit_compress.benchmark.process import WorkerError, WorkerProcess
from lit_compress.benchmark.protocol import BASELINE_RUNTIME
from lit_compress.benchmark.runtimes.base import Batch
from lit_compress.export.parity import ParityError, relative_error

Floats = npt.NDArray[np.float32]

# A batch of long texts in a slow runtime takes seconds; compiling a shape takes longer.
_TIMEOUT = 300.0
# Texts per batch, in turns: single texts, and padding of every extent.
_SIZES = (1, 2, 8, 32)


@dataclass(frozen=True)
class Agreement:
    """How near an artefact is to the original on real texts.

    Args:
        texts: How many were read.
        error: Root mean square difference of the logits, relative to the size of the logits.
        same_label: Share of the texts that get the same label; ``None`` where the model has one output only.
        quality: The metric of the artefact on these texts.
        wanted: The metric of the original on them.
    """

    texts: int
    error: float
    same_label: float | None
    quality: float
    wanted: float

    def to_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        same = None if self.same_label is None else round(self.same_label, 4)
        return {
            "texts": self.texts,
            "error": float(f"{self.error:.3g}"),
            "same_label": same,
            "quality": round(self.quality, 4),
            "quality_of_original": round(self.wanted, 4),
        }


def agreement(
    artefact: Artefact,
    runtime: str,
    rows: Sequence[dict[str, Any]],
    score: Callable[[Floats], float],
    pad_token_id: int,
    threads: int,
) -> Agreement:
    """Compare an artefact with the original in eager float32, text by text.

    Args:
        artefact: What the runtime opens.
        runtime: Its name.
        rows: Tokenised texts without padding, with ``input_ids`` and, for pairs, ``token_type_ids``.
        score: Returns the metric of their logits.
        pad_token_id: What shorter texts of a batch are filled up with.
        threads: CPU threads.

    Returns:
        Error and agreement over all texts.

    Raises:
        ParityError: A process failed, or a logit is missing or no number.
    """
    batches = _batches(rows, pad_token_id)
    original = Artefact(artefact.folder, artefact.folder, 0, artefact.facts)
    wanted = _logits(original, BASELINE_RUNTIME, batches, threads)
    got = _logits(artefact, runtime, batches, threads)
    if got.shape != wanted.shape or not np.isfinite(got).all():
        raise ParityError(
            f"Expected finite logits of shape {wanted.shape} from {runtime} but got {got.shape} with "
            f"{int((~np.isfinite(got)).sum())} that are no numbers; this model cannot be exported that way."
        )
    same = float(np.mean(got.argmax(1) == wanted.argmax(1))) if wanted.shape[1] > 1 else None
    return Agreement(len(rows), relative_error(got, wanted), same, score(got), score(wanted))


def _batches(rows: Sequence[dict[str, Any]], pad_token_id: int) -> list[Batch]:
    batches: list[Batch] = []
    start = 0
    while start < len(rows):
        size = _SIZES[len(batches) % len(_SIZES)]
        batches.append(_padded(rows[start : start + size], pad_token_id))
        start += size
    return batches


def _padded(rows: Sequence[dict[str, Any]], pad_token_id: int) -> Batch:
    width = max(len(row["input_ids"]) for row in rows)
    fill = {"input_ids": pad_token_id, "token_type_ids": 0}
    batch = {
        name: np.asarray([row[name] + [value] * (width - len(row[name])) for row in rows], dtype=np.int64)
        for name, value in fill.items()
        if name in rows[0]
    }
    mask = [[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows]
    return {**batch, "attention_mask": np.asarray(mask, dtype=np.int64)}


def _logits(artefact: Artefact, runtime: str, batches: Sequence[Batch], threads: int) -> Floats:
    found = []
    try:
        with WorkerProcess("cpu", threads) as worker:
            worker.request(
                "load",
                _TIMEOUT,
                folder=str(artefact.folder),
                artefact=str(artefact.path),
                runtime=runtime,
                device="cpu",
                threads=threads,
                vocab_size=artefact.facts["vocab_size"],
                pad_token_id=artefact.facts["pad_token_id"],
            )
            for batch in batches:
                plain = {name: array.tolist() for name, array in batch.items()}
                found.append(worker.request("predict", _TIMEOUT, batch=plain)["logits"])
    except WorkerError as error:
        raise ParityError(
            f"Expected {artefact.folder} to run in {runtime} but {error}; nothing was kept."
        ) from error
    return np.concatenate([np.asarray(logits, dtype=np.float32) for logits in found])
