"""ALBERT: few layers, each of which is called several times."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from lit_compress.models.anatomy.base import Anatomy, Attention, Axis, Block, FeedForward, Stream, Stretch
from lit_compress.models.anatomy.configs import write_sizes
from lit_compress.models.anatomy.family import Constant, Family, UniformShape, constant_of, replace
from lit_compress.models.anatomy.heads import base_path, readers_of, width_of


class Albert(Family):
    """Adapter of ALBERT.

    A block is a layer as it is stored. What is cut out of it is missing in all its calls, and no call can be
    dropped alone, so there is no list of blocks.
    """

    square_heads = (("pooler", "classifier"),)

    def dissect(self, model: PreTrainedModel) -> Anatomy:
        """Return the anatomy; see ``Family.dissect``."""
        names = dict(model.named_modules())
        base = base_path(model)
        groups: Any = names[f"{base}encoder.albert_layer_groups"]
        paths = [
            f"{base}encoder.albert_layer_groups.{group}.albert_layers.{index}"
            for group, layers in enumerate(groups)
            for index in range(len(layers.albert_layers))
        ]
        blocks = tuple(_block(names, path) for path in paths)
        return Anatomy(
            family=model.config.model_type,
            blocks=blocks,
            stream=_stream(model, base, blocks),
            word_embedding=f"{base}embeddings.word_embeddings",
        )

    def resize_hidden(self, model: PreTrainedModel, size: int) -> None:
        """Set the width; see ``Family.resize_hidden``."""
        module: Any
        for module in model.modules():
            if hasattr(module, "hidden_size") and hasattr(module, "query"):
                module.hidden_size = size

    def write_config(self, config: PreTrainedConfig, shape: UniformShape) -> None:
        """Write the shape; ``shape.layers`` counts the calls. See ``Family.write_config``."""
        write_sizes(config, shape)

    def empty_attention(self, model: PreTrainedModel, attention: Attention) -> None:
        """Replace the heads; the norm behind them is in the same module."""
        core: Any = model.get_submodule(attention.module)
        constant = constant_of(model, attention.output)
        replace(model, attention.module, NormedConstant(constant, core.output_dropout, core.LayerNorm))

    def empty_feed_forward(self, model: PreTrainedModel, feed_forward: FeedForward) -> None:
        """Replace the neurons; both projections are in the layer itself."""
        replace(model, feed_forward.output, constant_of(model, feed_forward.output))
        replace(model, feed_forward.module, nn.Identity())


class NormedConstant(nn.Module):
    """ALBERT's attention without heads: bias, dropout, residual connection and norm.

    Args:
        dense: What is left of the output projection.
        output_dropout: The dropout behind it.
        norm: The norm behind that.
    """

    def __init__(self, dense: Constant, output_dropout: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.dense = dense
        self.output_dropout = output_dropout
        self.LayerNorm = norm

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        """Return the normalised states, and no attention weights."""
        return self.LayerNorm(hidden_states + self.output_dropout(self.dense(hidden_states))), None


def _block(names: dict[str, Any], path: str) -> Block:
    core = names[f"{path}.attention"]
    attentions = () if isinstance(core, NormedConstant) else (_attention(core, f"{path}.attention"),)
    emptied = isinstance(names[f"{path}.ffn_output"], Constant)
    return Block(path, attentions, None if emptied else _feed_forward(names, path))


def _attention(core: Any, path: str) -> Attention:
    width = core.attention_head_size
    return Attention(
        module=path,
        heads=core.query.out_features // width,
        inputs=tuple(Stretch(f"{path}.{name}", 0, width) for name in ("query", "key", "value")),
        output=f"{path}.dense",
        head_width=width,
    )


def _feed_forward(names: dict[str, Any], path: str) -> FeedForward:
    neurons = names[f"{path}.ffn"].out_features
    return FeedForward(f"{path}.ffn", neurons, (f"{path}.ffn",), f"{path}.ffn_output")


def _stream(model: PreTrainedModel, base: str, blocks: tuple[Block, ...]) -> Stream:
    names = ("attention.LayerNorm", "full_layer_layer_norm")
    norms = tuple(f"{block.path}.{name}" for block in blocks for name in names)
    # The embeddings and their norm have a width of their own; nothing normalises what this projection writes.
    projection = f"{base}encoder.embedding_hidden_mapping_in"
    readers, unknown = readers_of(model, [f"{base}pooler"], ["classifier", "qa_outputs"])
    return Stream(
        size=width_of(model, norms[0]),
        norms=norms,
        sources=(Axis(projection, "weight", 0), Axis(projection, "bias", 0)),
        readers=readers,
        post_norm=True,
        unknown=unknown,
    )
