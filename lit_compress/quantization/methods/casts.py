"""All weights in a shorter floating-point type: stock transformers loads such folders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from lit_compress.quantization.samples import Samples
from lit_compress.quantization.stored import refuse_few_bits


def bf16(model: PreTrainedModel, samples: Samples, tell: Callable[[str, float], None]) -> dict[str, Any]:
    """Cast all weights to bfloat16: the range of float32 with 8 bits of precision.

    Raises:
        ValueError: The weights are stored in few bits, and their scales would be cast.
    """
    refuse_few_bits(model)
    nn.Module.to(model, dtype=torch.bfloat16)
    return {}


def fp16(model: PreTrainedModel, samples: Samples, tell: Callable[[str, float], None]) -> dict[str, Any]:
    """Cast all weights to float16: 11 bits of precision up to 65,504.

    Raises:
        ValueError: A weight is larger, or the weights are stored in few bits.
    """
    refuse_few_bits(model)
    largest = torch.finfo(torch.float16).max
    for name, tensor in model.named_parameters():
        if bool((tensor.abs() > largest).any()):
            raise ValueError(
                f"Expected weights up to {largest:,.0f} for float16 but {name} has larger ones; take --method bf16."
            )
    nn.Module.to(model, dtype=torch.float16)
    return {}
