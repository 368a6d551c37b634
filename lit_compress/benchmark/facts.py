"""What a loaded model tells about itself: shape, parameters, multiply-accumulates."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from lit_compress.export.parity import max_length
from lit_compress.models.anatomy import FAMILIES, dissect
from lit_compress.pruning.summary import kept_units
from lit_compress.quantization.stored import stored_of

#: Tokens of the one text whose multiply-accumulates are counted.
MACS_LENGTH = 128


def model_facts(model: PreTrainedModel) -> dict[str, Any]:
    """Return the facts of a model that do not depend on its runtime, ready for JSON.

    Args:
        model: A text classifier in eval mode.

    Returns:
        ``params``, ``nonzero_params``, ``macs``, ``shape``, ``vocab_size``, ``pad_token_id``, ``max_positions``
        and ``num_labels``. The shape of a model whose blocks are alike has ``per_layer``, that of one from which
        heads or neurons were cut ``heads`` (flags per layer) and ``neurons`` (``[kept, of]`` per layer).

    Raises:
        ValueError: The model does not read texts.
    """
    if model.main_input_name != "input_ids":
        raise ValueError(
            f"Expected a model that reads texts but got {type(model).__name__}, which reads {model.main_input_name}; "
            "give a text classifier."
        )
    config = model.config
    weights = [*model.parameters(), *(stored.values for _, stored in stored_of(model))]
    return {
        "params": sum(weight.numel() for weight in weights),
        "nonzero_params": sum(int(torch.count_nonzero(weight)) for weight in weights),
        "macs": _macs(model),
        "shape": {
            "family": config.model_type,
            "layers": getattr(config, "num_hidden_layers", None),
            "hidden": getattr(config, "hidden_size", None),
            "vocab": config.vocab_size,
            **_inside(model),
        },
        "vocab_size": config.vocab_size,
        "pad_token_id": config.pad_token_id,
        "max_positions": max_length(model),
        "num_labels": config.num_labels,
    }


def _inside(model: PreTrainedModel) -> dict[str, Any]:
    """Return what is inside the blocks; nothing for families without an adapter."""
    if model.config.model_type not in FAMILIES:
        return {}
    kept = kept_units(model)
    if kept:
        return kept
    sizes = {
        (
            sum(attention.heads for attention in block.attentions),
            block.feed_forward and block.feed_forward.neurons,
        )
        for block in dissect(model).blocks
    }
    if len(sizes) != 1:
        return {}
    heads, neurons = sizes.pop()
    return {"per_layer": {"heads": heads, "neurons": neurons or 0}}


def _macs(model: PreTrainedModel) -> dict[str, int] | None:
    """Return the multiply-accumulates of one text, those of matrix products, as is usual.

    ``None`` where the model cannot read a text of that length.
    """
    longest = max_length(model)
    if longest is not None and longest < MACS_LENGTH:
        return None
    ids = torch.full((1, MACS_LENGTH), ((model.config.pad_token_id or 0) + 1) % model.config.vocab_size)
    counter = FlopCounterMode(display=False)
    # The counter follows outputs that want gradients, as does the bias that is left of an attention without heads.
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    before = model.config._attn_implementation
    # Plain matrix products: the counter does not know every fused attention.
    model.set_attn_implementation("eager")
    try:
        for parameter in learning:
            parameter.requires_grad_(False)
        with torch.inference_mode(), counter:
            model(input_ids=ids, attention_mask=torch.ones_like(ids))
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)
        model.set_attn_implementation(before)
    return {"length": MACS_LENGTH, "count": counter.get_total_flops() // 2}
