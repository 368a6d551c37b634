"""A model of some size in the runtime that it is meant for, ready to be timed."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lit_compress.benchmark.protocol import BASELINE_RUNTIME
from lit_compress.benchmark.runtimes import runtime
from lit_compress.export.parity import only_timed
from lit_compress.models.checkpoint import save_folder
from lit_compress.quantization.post_training import quantize_model
from lit_compress.quantization.scheme import Scheme

#: 8 bits, one scale per output.
ROWS = Scheme(8, True, "channel")
_STDERR = 2


def check_runtime(name: str, device: str) -> None:
    """Refuse a runtime that no model without data can be timed in.

    Args:
        name: Its name.
        device: Where it is to run.

    Raises:
        ValueError: There is none of that name, it needs texts to be calibrated with, or runs elsewhere.
    """
    way = runtime(name)
    if way.calibrated:
        raise ValueError(
            f"Expected target.runtime to need no texts but {name} is calibrated with some; use "
            f"{name.removesuffix('-static')}, which computes a model that is trained with rounding in the same way."
        )
    if device not in way.devices:
        raise ValueError(
            f"Expected a target.runtime for {device} but {name} runs on {', '.join(way.devices)}; change "
            "target.device or target.runtime."
        )


def forward_pass(
    model: PreTrainedModel, inputs: Mapping[str, Tensor], name: str, threads: int
) -> Callable[[], Any]:
    """Return one forward pass of a model in a runtime, which is exported for it first.

    Where the runtime computes with integers, the model is rounded to 8 bits before, with fixed ranges: what takes time
    does not depend on their values.

    Args:
        model: A model without gates; not changed. For other runtimes than eager torch a text classifier.
        inputs: What it reads.
        name: Name of the runtime, see :func:`check_runtime`.
        threads: CPU threads of the runtime; those of torch are set already.

    Raises:
        ValueError: The runtime cannot compute the model.
        ImportError: A library is missing.
    """
    if name == BASELINE_RUNTIME:
        return partial(run_once, model, inputs)
    way = runtime(name)
    way.check()
    # Exporters draw random numbers to compare with; a fit must not depend on whether a table was cached.
    with tempfile.TemporaryDirectory(prefix="lit-compress-") as root, torch.random.fork_rng(devices=[]):
        small = copy.deepcopy(model)
        if way.rounded:
            to_integers(small, inputs)
        folder, target = Path(root) / "model", Path(root) / "artefact"
        target.mkdir()
        with _silent(), only_timed():
            save_folder(folder, small, None, {})
            way.build(folder, target)
            session = way.open(folder, target if any(target.iterdir()) else folder, "cpu", threads)
        batch = {key: value.cpu().numpy() for key, value in inputs.items()}
        call = partial(session.run, session.inputs(batch))
        call()  # what is loaded on first use is loaded before the files go
    return call


@torch.inference_mode()
def run_once(model: nn.Module, inputs: Mapping[str, Tensor]) -> None:
    """Run a model once, as it is deployed: without gradients, without a cache of keys."""
    model(**inputs)


def to_integers(
    model: PreTrainedModel, inputs: Mapping[str, Tensor], weights: Scheme = ROWS, words: Scheme = ROWS
) -> None:
    """Round a model as a fit with rounding does: activations of 8 bits with fixed ranges.

    Args:
        model: Changed in place.
        inputs: What ranges are taken from.
        weights: How projections are rounded.
        words: How embeddings are.
    """
    activations = Scheme(8, False, "tensor")
    quantize_model(model, weights, words, activations, ranges="min_max", batches=[dict(inputs)])


@contextmanager
def _silent() -> Iterator[None]:
    """Silence what the exporters' C++ writes about every model; errors are exceptions."""
    kept = os.dup(_STDERR)
    try:
        with Path(os.devnull).open("w") as nothing:
            os.dup2(nothing.fileno(), _STDERR)
        yield
    finally:
        os.dup2(kept, _STDERR)
        os.close(kept)
