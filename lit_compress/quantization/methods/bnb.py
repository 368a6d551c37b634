"""The formats of bitsandbytes: stock transformers loads such folders, where bitsandbytes is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel

from lit_compress.quantization.formats.bnb import to_bitsandbytes
from lit_compress.quantization.samples import Samples

Tell = Callable[[str, float], None]
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def nf4(
    model: PreTrainedModel,
    samples: Samples,
    tell: Tell,
    *,
    compute: str = "fp32",
    include: list[str] | None = None,
    exclude: list[str] | None = None,
) -> dict[str, Any]:
    """Four bits at the quantiles of a normal distribution (arXiv:2305.14314).

    Args:
        model: Changed in place.
        samples: Not read.
        tell: Not told anything: it is done at once.
        compute: Type of what is not rounded, embeddings included, and of what is computed: ``fp32`` or ``bf16``.
        include: Parts of the names of projections to round; all where ``None``.
        exclude: Parts of the names of those to leave as they are.

    Returns:
        What was done, for the manifest.

    Raises:
        ValueError: A setting cannot be used, or does not fit the model.
    """
    return _round("nf4", model, compute, include, exclude)


def fp4(
    model: PreTrainedModel,
    samples: Samples,
    tell: Tell,
    *,
    compute: str = "fp32",
    include: list[str] | None = None,
    exclude: list[str] | None = None,
) -> dict[str, Any]:
    """Four bits as a floating-point number; see :func:`nf4`, which is nearer for most weights."""
    return _round("fp4", model, compute, include, exclude)


def llm_int8(
    model: PreTrainedModel,
    samples: Samples,
    tell: Tell,
    *,
    compute: str = "fp32",
    include: list[str] | None = None,
    exclude: list[str] | None = None,
) -> dict[str, Any]:
    """Eight bits for weights and inputs, without large inputs (LLM.int8, arXiv:2208.07339); see :func:`nf4`."""
    return _round("llm_int8", model, compute, include, exclude)


def _round(
    kind: str, model: PreTrainedModel, compute: str, include: list[str] | None, exclude: list[str] | None
) -> dict[str, Any]:
    if compute not in _TYPES:
        raise ValueError(f"Expected compute to be one of {', '.join(_TYPES)} but got {compute!r}.")
    kept = to_bitsandbytes(model, kind, _TYPES[compute], include, exclude or [])
    for name, why in kept.items():
        print(f"{name} stays as it is: it has {why}.")
    print("The embeddings stay as they are: bitsandbytes cannot save its own.")
    return {"compute": compute, "kept": kept}
