"""DistilBERT: a post-norm encoder with its own names."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from lit_compress.models.anatomy.base import Anatomy, Attention, Block, FeedForward, Stream, Stretch
from lit_compress.models.anatomy.configs import write_sizes
from lit_compress.models.anatomy.family import EmptyAttention, EmptyFeedForward, Family, UniformShape
from lit_compress.models.anatomy.heads import base_path, readers_of, sources_of, width_of


class DistilBert(Family):
    """Adapter of DistilBERT."""

    square_heads = (("pre_classifier", "classifier"),)

    def dissect(self, model: PreTrainedModel) -> Anatomy:
        """Return the anatomy; see ``Family.dissect``."""
        names = dict(model.named_modules())
        base = base_path(model)
        layers: Any = names[f"{base}transformer.layer"]
        blocks = tuple(_block(names, f"{base}transformer.layer.{index}") for index in range(len(layers)))
        return Anatomy(
            family=model.config.model_type,
            blocks=blocks,
            stream=_stream(model, base, blocks),
            block_lists=(f"{base}transformer.layer",),
            word_embedding=f"{base}embeddings.word_embeddings",
        )

    def resize_attention(self, module: nn.Module, heads: int) -> None:
        """Set the number of heads; see ``Family.resize_attention``."""
        core: Any = module
        core.n_heads = heads

    def resize_hidden(self, model: PreTrainedModel, size: int) -> None:
        """Set the width; see ``Family.resize_hidden``."""
        module: Any
        for module in model.modules():
            if hasattr(module, "dim") and hasattr(module, "q_lin"):
                module.dim = size

    def write_config(self, config: PreTrainedConfig, shape: UniformShape) -> None:
        """Write the shape; see ``Family.write_config``."""
        write_sizes(config, shape, "hidden_dim")

    def set_depth(self, model: PreTrainedModel, blocks: str, depth: int) -> None:
        """Write the depth, also where the encoder keeps a copy of it."""
        super().set_depth(model, blocks, depth)
        encoder: Any = model.get_submodule(blocks.rpartition(".")[0])
        encoder.n_layers = depth


def _block(names: dict[str, Any], path: str) -> Block:
    core, inside = names[f"{path}.attention"], names[f"{path}.ffn"]
    attentions = () if isinstance(core, EmptyAttention) else (_attention(core, f"{path}.attention"),)
    emptied = isinstance(inside, EmptyFeedForward)
    return Block(path, attentions, None if emptied else _feed_forward(inside, f"{path}.ffn"))


def _attention(core: Any, path: str) -> Attention:
    width = core.attention_head_size
    return Attention(
        module=path,
        heads=core.q_lin.out_features // width,
        inputs=tuple(Stretch(f"{path}.{name}", 0, width) for name in ("q_lin", "k_lin", "v_lin")),
        output=f"{path}.out_lin",
        head_width=width,
    )


def _feed_forward(inside: Any, path: str) -> FeedForward:
    return FeedForward(path, inside.lin1.out_features, (f"{path}.lin1",), f"{path}.lin2")


def _stream(model: PreTrainedModel, base: str, blocks: tuple[Block, ...]) -> Stream:
    inner = [f"{block.path}.{name}" for block in blocks for name in ("sa_layer_norm", "output_layer_norm")]
    readers, unknown = readers_of(model, ["pre_classifier"], ["classifier", "qa_outputs"])
    tables = ("word_embeddings", "position_embeddings")
    return Stream(
        size=width_of(model, f"{base}embeddings.LayerNorm"),
        norms=(f"{base}embeddings.LayerNorm", *inner),
        sources=sources_of(model, [f"{base}embeddings.{table}" for table in tables]),
        readers=readers,
        post_norm=True,
        normed_sources=True,
        unknown=unknown,
    )
