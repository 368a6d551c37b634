"""BERT, RoBERTa, XLM-RoBERTa and ELECTRA: post-norm encoders with one layout."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from lit_compress.models.anatomy.base import Anatomy, Attention, Axis, Block, FeedForward, Stream, Stretch
from lit_compress.models.anatomy.family import Constant, Family, UniformShape, constant_of, replace


class Bert(Family):
    """Adapter of BERT, RoBERTa, XLM-RoBERTa and ELECTRA."""

    def dissect(self, model: PreTrainedModel) -> Anatomy:
        """Return the anatomy; see ``Family.dissect``."""
        names = dict(model.named_modules())
        base = "" if model.base_model is model else f"{model.base_model_prefix}."
        layers: Any = names[f"{base}encoder.layer"]
        blocks = tuple(_block(names, f"{base}encoder.layer.{index}") for index in range(len(layers)))
        return Anatomy(
            family=model.config.model_type,
            blocks=blocks,
            stream=_stream(model, names, base, blocks),
            block_lists=(f"{base}encoder.layer",),
            word_embedding=f"{base}embeddings.word_embeddings",
        )

    def resize_attention(self, module: nn.Module, heads: int) -> None:
        """Set the number of heads; see ``Family.resize_attention``."""
        core: Any = module
        core.num_attention_heads = heads
        core.all_head_size = heads * core.attention_head_size

    def resize_hidden(self, model: PreTrainedModel, size: int) -> None:
        """Nothing but the tensors knows the size; see ``Family.resize_hidden``."""

    def write_config(self, config: PreTrainedConfig, shape: UniformShape) -> None:
        """Write the shape; see ``Family.write_config``."""
        heads = shape.heads or config.num_attention_heads
        hidden = shape.hidden or config.hidden_size
        width = config.hidden_size // config.num_attention_heads
        if hidden != heads * width:
            raise ValueError(
                f"Expected hidden = heads x {width}, because the configuration of {config.model_type!r} has no width "
                f"of a head of its own, but got hidden={hidden} and heads={heads}; set hidden={heads * width}, keep "
                f"heads={config.num_attention_heads} and hidden={config.hidden_size}, or leave the uniform shape out."
            )
        config.num_attention_heads, config.hidden_size = heads, hidden
        config.num_hidden_layers = shape.layers or config.num_hidden_layers
        config.intermediate_size = shape.neurons or config.intermediate_size

    def empty_attention(self, model: PreTrainedModel, attention: Attention) -> None:
        """Replace the heads; the output projection behind them is in a module of its own."""
        replace(model, attention.output, constant_of(model, attention.output))
        replace(model, attention.module, NoHeads())

    def empty_feed_forward(self, model: PreTrainedModel, feed_forward: FeedForward) -> None:
        """Replace the neurons; the output projection behind them is in a module of its own."""
        replace(model, feed_forward.output, constant_of(model, feed_forward.output))
        replace(model, feed_forward.module, nn.Identity())


class NoHeads(nn.Module):
    """Attention without heads in front of an output projection that is a ``Constant``."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        """Return the states, of which the constant reads only the shape."""
        return hidden_states, None


def _block(names: dict[str, Any], path: str) -> Block:
    core = names[f"{path}.attention.self"]
    attentions = () if isinstance(core, NoHeads) else (_attention(core, f"{path}.attention"),)
    emptied = isinstance(names[f"{path}.output.dense"], Constant)
    return Block(path, attentions, None if emptied else _feed_forward(names, path))


def _attention(core: Any, path: str) -> Attention:
    width = core.attention_head_size
    return Attention(
        module=f"{path}.self",
        heads=core.query.out_features // width,
        inputs=tuple(Stretch(f"{path}.self.{name}", 0, width) for name in ("query", "key", "value")),
        output=f"{path}.output.dense",
        head_width=width,
    )


def _feed_forward(names: dict[str, Any], path: str) -> FeedForward:
    inside = f"{path}.intermediate.dense"
    return FeedForward(
        module=f"{path}.intermediate",
        neurons=names[inside].out_features,
        inputs=(inside,),
        output=f"{path}.output.dense",
    )


def _stream(model: PreTrainedModel, names: dict[str, Any], base: str, blocks: tuple[Block, ...]) -> Stream:
    norms = [f"{block.path}.{part}.LayerNorm" for block in blocks for part in ("attention.output", "output")]
    projection = f"{base}embeddings_project"
    sources: tuple[Axis, ...]
    if projection in names:
        # ELECTRA with small embeddings: the embeddings and their norm have a width of their own.
        sources = (Axis(projection, "weight", 0), Axis(projection, "bias", 0))
    else:
        tables = ("word_embeddings", "position_embeddings", "token_type_embeddings")
        sources = tuple(Axis(f"{base}embeddings.{table}", "weight", 1) for table in tables)
        norms.insert(0, f"{base}embeddings.LayerNorm")
    # RoBERTa's and ELECTRA's heads read the stream themselves, BERT's reads the pooler.
    readers = [path for path in (f"{base}pooler.dense", "classifier.dense") if path in names]
    if not readers and "classifier" in names:
        readers = ["classifier"]
    return Stream(
        size=model.config.hidden_size,
        norms=tuple(norms),
        sources=sources,
        readers=tuple(Axis(path, "weight", 1) for path in readers),
        post_norm=True,
        normed_sources=projection not in names,
    )
