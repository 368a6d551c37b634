"""The figures of a model that objectives, layer maps and students have to agree on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from lit_compress.models.anatomy import dissect

#: Where the blocks are, below the base model. ALBERT is the exception: it calls few modules many times.
_BLOCKS = {
    "bert": "encoder.layer",
    "roberta": "encoder.layer",
    "xlm-roberta": "encoder.layer",
    "electra": "encoder.layer",
    "distilbert": "transformer.layer",
    "vit": "layers",
    "deit": "layers",
}


@dataclass(frozen=True)
class Architecture:
    """Shape of a transformer encoder.

    Args:
        family: ``model_type`` of the configuration, such as ``"bert"``.
        num_layers: Number of blocks.
        hidden_size: Width of the hidden states.
        num_heads: Attention heads per block; where blocks differ, those of the block with the fewest.
        head_dim: Width of one head, which pruning does not change.
        vocab_size: Rows of the word embedding; ``None`` for models without one.
        num_labels: Outputs of the task head.
    """

    family: str
    num_layers: int
    hidden_size: int
    num_heads: int
    head_dim: int
    vocab_size: int | None
    num_labels: int


def describe(model: PreTrainedModel) -> Architecture:
    """Read the architecture of a model, from its modules where pruning made them differ from the configuration.

    Args:
        model: A transformer encoder of a supported family, with or without a task head.

    Returns:
        Its shape.

    Raises:
        ValueError: The family is not supported.
    """
    config = model.config
    block_list(model)  # refuses families whose layers cannot be named
    anatomy = dissect(model)
    attentions = [attention for block in anatomy.blocks for attention in block.attentions]
    fewest = min(sum(attention.heads for attention in block.attentions) for block in anatomy.blocks)
    said = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Architecture(
        family=config.model_type,
        num_layers=config.num_hidden_layers,
        hidden_size=anatomy.stream.size,
        num_heads=fewest,
        head_dim=attentions[0].head_width if attentions else said,
        vocab_size=getattr(config, "vocab_size", None),
        num_labels=int(config.num_labels or 0),
    )


def block_list(model: PreTrainedModel) -> nn.ModuleList:
    """Return the encoder blocks in the order in which they run.

    For every family but ALBERT this is the list that the model itself iterates, so assigning to it changes
    the model. ALBERT calls shared modules several times; its list is a new one with one entry per call.

    Args:
        model: A transformer encoder of a supported family, with or without a task head.

    Returns:
        One module per block.

    Raises:
        ValueError: The family is not supported.
    """
    family = model.config.model_type
    if family == "albert":
        return _albert_calls(model)
    if family not in _BLOCKS:
        raise ValueError(
            f"Expected a model of one of the families {', '.join(sorted([*_BLOCKS, 'albert']))} but got "
            f"{family!r} ({type(model).__name__}); use one of these, or an objective that needs only logits."
        )
    blocks = model.base_model.get_submodule(_BLOCKS[family])
    if not isinstance(blocks, nn.ModuleList):
        raise ValueError(
            f"Expected the blocks of {type(model).__name__} in a ModuleList at {_BLOCKS[family]!r} but got "
            f"{type(blocks).__name__}; use a transformers version within the range of pyproject.toml."
        )
    return blocks


def _albert_calls(model: PreTrainedModel) -> nn.ModuleList:
    config = model.config
    groups = model.base_model.get_submodule("encoder.albert_layer_groups")
    per_group = config.num_hidden_layers / config.num_hidden_groups
    calls: list[nn.Module] = []
    for layer in range(config.num_hidden_layers):
        calls.extend(groups[int(layer / per_group)].albert_layers)  # type: ignore[index]
    return nn.ModuleList(calls)
