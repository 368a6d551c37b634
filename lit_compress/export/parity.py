"""Whether an exported model computes what the original computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import PreTrainedModel

from lit_compress.benchmark.runtimes.base import Batch
from lit_compress.benchmark.workload import token_batch

# Token lengths of the texts of each batch: single texts up to the longest that usual encoders read, equal lengths, and
# padding of every extent.
_BATCHES = ((17,), (3,), (1,), (512,), (40, 40), (64, 9, 31), (128, 1, 100, 50, 77, 12, 3, 64))

_ONLY_TIMED: ContextVar[bool] = ContextVar("only_timed", default=False)


@contextmanager
def only_timed() -> Iterator[None]:
    """Let exports pass however far their logits are: of models that are timed and thrown away.

    Models that were cut and rounded without training have logits of next to nothing, which no tolerance is for.
    """
    before = _ONLY_TIMED.set(True)
    try:
        yield
    finally:
        _ONLY_TIMED.reset(before)


def is_only_timed() -> bool:
    """Whether exports pass however far their logits are; see :func:`only_timed`."""
    return _ONLY_TIMED.get()


class ParityError(ValueError):
    """An exported model does not compute what the original computes."""


def check_parity(
    forward: Callable[[Batch], npt.NDArray[np.float32]],
    model: PreTrainedModel,
    tolerance: float,
    what: str,
) -> float:
    """Compare an exported model with the original on batches of several sizes and lengths, with padding.

    The error is the root mean square difference of the logits of the worst batch, relative to the root mean
    square of all logits of the original.

    Args:
        forward: Runs the exported model and returns its logits.
        model: The original in float32, in eval mode.
        tolerance: Largest error that passes.
        what: What was exported, for the message.

    Returns:
        The error.

    Raises:
        ParityError: The error is larger than the tolerance, or a logit is missing or no number.
    """
    longest = max_length(model)
    wanted, got = [], []
    for seed, lengths in enumerate(_BATCHES):
        lengths = tuple(min(length, longest or length) for length in lengths)
        batch = token_batch(lengths, model.config.vocab_size, model.config.pad_token_id, seed)
        wanted.append(reference(model, batch))
        got.append(forward(batch))
        if got[-1].shape != wanted[-1].shape:
            raise ParityError(
                f"Expected logits of shape {wanted[-1].shape} from {what} for texts of {lengths} tokens but "
                f"got {got[-1].shape}; this architecture cannot be exported that way."
            )
    worst, error = worst_batch(got, wanted)
    # Not "error > tolerance": a NaN must not pass.
    if not error <= (np.inf if is_only_timed() else tolerance):
        raise ParityError(
            f"Expected {what} to compute the logits of the original within {tolerance:g} of their size but "
            f"got a difference of {error:.3g} for a batch of texts of {_BATCHES[worst]} tokens; "
            "nothing was kept: use another runtime for this model."
        )
    return error


def worst_batch(
    got: Sequence[npt.NDArray[np.float32]], wanted: Sequence[npt.NDArray[np.float32]]
) -> tuple[int, float]:
    """Return which batch differs most and by how much, relative to all logits: those of one may be next to nothing.

    Args:
        got: Logits of every batch.
        wanted: Those of the original, of the same shapes.
    """
    size = np.concatenate(wanted)
    errors = [relative_error(a, b, size) for a, b in zip(got, wanted, strict=True)]
    worst = int(np.argmax(np.nan_to_num(errors, nan=np.inf)))
    return worst, errors[worst]


def relative_error(
    got: npt.NDArray[np.float32], wanted: npt.NDArray[np.float32], size: npt.NDArray[np.float32] | None = None
) -> float:
    """Return the root mean square difference of logits, relative to their root mean square.

    Args:
        got: Logits of any shape.
        wanted: Those of the original, of the same shape.
        size: Logits that tell the size; ``wanted`` where ``None``.
    """
    # A head that gives nothing but zeros must not divide by zero.
    return _rms(got - wanted) / max(_rms(wanted if size is None else size), float(np.finfo(np.float32).tiny))


def max_length(model: PreTrainedModel) -> int | None:
    """Return the longest text in tokens that a model can read, ``None`` where it knows no limit."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # RoBERTa's positions begin behind the padding id.
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    # XLNet says -1.
    found = getattr(model.config, "max_position_embeddings", None)
    return found if found is not None and found > 0 else None


def _rms(values: npt.NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))


@torch.inference_mode()
def reference(model: PreTrainedModel, batch: Batch) -> npt.NDArray[np.float32]:
    """Return the logits of the original, on the CPU, for a batch."""
    return model(**{name: torch.from_numpy(array) for name, array in batch.items()}).logits.numpy()
