"""What few bits and factorised words cost: the whole model as a plan stores it, measured before anything is trained."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from lit_compress.benchmark.measure import measure
from lit_compress.benchmark.protocol import Candidate, Protocol
from lit_compress.benchmark.results import to_row
from lit_compress.compress.planning import Storage
from lit_compress.compress.wish import speedup_of
from lit_compress.export.parity import only_timed
from lit_compress.models.checkpoint import save_folder
from lit_compress.pruning.factorize_embedding import factorize_embedding
from lit_compress.pruning.latency_runtime import to_integers
from lit_compress.pruning.sample_inputs import make_inputs


def as_stored(model: PreTrainedModel, storage: Storage) -> PreTrainedModel:
    """Return a copy of a model in the bits and with the factors of a plan, as a fit would store it.

    Args:
        model: A transformer of a supported family; not changed.
        storage: The bits, and the rank of the word embeddings.
    """
    stored = copy.deepcopy(model).eval()
    if storage.rank is not None:
        factorize_embedding(stored, storage.rank)
    to_integers(stored, make_inputs(stored, batch=4, length=16), storage.weights, storage.words)
    return stored


def speedup_as_stored(
    original: Candidate,
    model: PreTrainedModel,
    tokenizer: Any,
    storage: Storage,
    route: str,
    protocol: Protocol,
    tell: Callable[[str, float], None],
) -> float:
    """Measure how many times faster than the original a model is that nothing is pruned of, as a plan stores it.

    Args:
        original: What the wish refers to.
        model: What the fit begins with, before its words are factorised.
        tokenizer: Its tokenizer.
        storage: The bits, and the rank.
        route: The runtime.
        protocol: How to measure.
        tell: Told what is done, and which share of it.

    Raises:
        ValueError: It could not be measured; the message says why.
    """
    with tempfile.TemporaryDirectory(prefix="lit-compress-") as root:
        folder = save_folder(Path(root) / "stored", as_stored(model, storage), tokenizer, {})
        candidate = Candidate("stored", str(folder), "probe", route)
        with only_timed():
            measured = measure([candidate], original, protocol, progress=tell)
    first, row = (to_row(one, "probe") for one in measured)
    error = first.get("error") or row.get("error")
    if error:
        raise ValueError(
            f"Expected a model with {storage} to be measured in {route} but it could not be: {error}"
        )
    return speedup_of(row)
