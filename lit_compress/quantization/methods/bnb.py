"""The formats of bitsandbytes: stock transformers loads such folders, where bitsandbytes is installed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel

from lit_compress.quantization.formats.bnb import to_bitsandbytes
from lit_compress.quantization.samples import Samples

_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def bitsandbytes(
    kind: str,
    model: PreTrainedModel,
    samples: Samples,
    tell: Callable[[str, float], None],
    *,
    compute: str = "fp32",
    include: list[str] | None = None,
    exclude: list[str] | None = None,
) -> dict[str, Any]:
    """Replace projections by layers of bitsandbytes.

    Args:
        kind: ``nf4``, four bits at the quantiles of a normal distribution (arXiv:2305.14314); ``fp4``, four bits as a
            floating-point number, which ``nf4`` is nearer than for most weights; ``llm_int8``, eight bits for weights
            and inputs, without large inputs (LLM.int8, arXiv:2208.07339).
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
    if compute not in _TYPES:
        raise ValueError(f"Expected compute to be one of {', '.join(_TYPES)} but got {compute!r}.")
    kept = to_bitsandbytes(model, kind, _TYPES[compute], include, exclude or [])
    for name, why in kept.items():
        print(f"{name} stays as it is: it has {why}.")
    print("The embeddings stay as they are: bitsandbytes cannot save its own.")
    return {"compute": compute, "kept": kept}


nf4 = partial(bitsandbytes, "nf4")
fp4 = partial(bitsandbytes, "fp4")
llm_int8 = partial(bitsandbytes, "llm_int8")
