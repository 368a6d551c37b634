"""What the configurations of transformers can say about the shape of a model, and what they cannot."""

from __future__ import annotations

from transformers import PreTrainedConfig

from lit_compress.models.anatomy.family import UniformShape


def write_sizes(config: PreTrainedConfig, shape: UniformShape, neurons: str = "intermediate_size") -> None:
    """Write a shape whose heads fill the hidden dimensions: the width of a head follows from both.

    Args:
        config: Changed in place.
        shape: The shape.
        neurons: Name of the entry for the neurons.

    Raises:
        ValueError: Heads of the same width do not fill the hidden dimensions any more.
    """
    hidden = check_width(config, shape, config.num_attention_heads)
    # What the entry stands for while it is empty depends on the hidden size.
    inside = getattr(config, neurons) or 4 * config.hidden_size
    config.num_attention_heads = shape.heads or config.num_attention_heads
    config.hidden_size = hidden
    config.num_hidden_layers = shape.layers or config.num_hidden_layers
    setattr(config, neurons, shape.neurons or inside)


def check_width(config: PreTrainedConfig, shape: UniformShape, full_heads: int) -> int:
    """Return the hidden dimensions of a shape, which its heads must fill.

    Args:
        config: The configuration of the full model.
        shape: The shape.
        full_heads: Heads of the full model.

    Raises:
        ValueError: They do not.
    """
    heads, hidden = shape.heads or full_heads, shape.hidden or config.hidden_size
    width = config.hidden_size // full_heads
    if hidden != heads * width:
        raise ValueError(
            f"Expected hidden = heads x {width}, because the configuration of {config.model_type!r} has no width "
            f"of a head of its own, but got hidden={hidden} and heads={heads}; set hidden={heads * width}, keep "
            f"heads={full_heads} and hidden={config.hidden_size}, or leave the uniform shape out."
        )
    return hidden


def write_free_sizes(config: PreTrainedConfig, shape: UniformShape) -> None:
    """Write a shape whose heads have a width of their own, ``head_dim``, whatever the hidden size.

    Where queries share keys and values, ``shape.heads`` counts the key-value heads; as many queries as before read
    each of them.

    Args:
        config: Changed in place.
        shape: The shape.

    Raises:
        ValueError: The configuration class wants the query heads to divide the hidden size, as Llama's does.
    """
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    full = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    heads = (shape.heads or full) * (config.num_attention_heads // full)
    hidden = shape.hidden or config.hidden_size
    if config.model_type == "llama" and hidden % heads:
        raise ValueError(
            f"Expected hidden to be a multiple of the {heads} query heads, because the configuration of 'llama' asks "
            f"for it, but got hidden={hidden}; choose heads that divide it, or leave the uniform shape out."
        )
    config.head_dim, config.num_attention_heads, config.hidden_size = width, heads, hidden
    if hasattr(config, "num_key_value_heads"):
        config.num_key_value_heads = shape.heads or full
    config.num_hidden_layers = shape.layers or config.num_hidden_layers
    config.intermediate_size = shape.neurons or config.intermediate_size
