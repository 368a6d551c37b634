"""BERT, RoBERTa, XLM-RoBERTa and ELECTRA: post-norm encoders with one layout."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from lit_compress.models.anatomy.base import Anatomy, Attention, Axis, Block, FeedForward, Stream, Stretch
from lit_compress.models.anatomy.configs import write_sizes
from lit_compress.models.anatomy.family import (
    Constant,
    Family,
    UniformShape,
    constant_of,
    count_positions,
    replace,
)
from lit_compress.models.anatomy.heads import base_path, readers_of, sources_of, width_of


class Bert(Family):
    """Adapter of BERT, RoBERTa, XLM-RoBERTa and ELECTRA."""

    square_heads = (("pooler.dense", "classifier"), ("classifier.dense", "classifier.out_proj"))

    def dissect(self, model: PreTrainedModel) -> Anatomy:
        """Return the anatomy; see ``Family.dissect``."""
        names = dict(model.named_modules())
        base = base_path(model)
        layers: Any = names[f"{base}encoder.layer"]
        blocks = tuple(_block(names, f"{base}encoder.layer.{index}") for index in range(len(layers)))
        return Anatomy(
            family=model.config.model_type,
            blocks=blocks,
            stream=_stream(model, names, base, blocks),
            block_lists=(f"{base}encoder.layer",),
            word_embedding=f"{base}embeddings.word_embeddings",
        )

    def write_config(self, config: PreTrainedConfig, shape: UniformShape) -> None:
        """Write the shape; see ``Family.write_config``."""
        write_sizes(config, shape)

    def empty_attention(self, model: PreTrainedModel, attention: Attention) -> None:
        """Replace the heads; the output projection behind them is in a module of its own."""
        layer = getattr(model.get_submodule(attention.module), "layer_idx", None)
        replace(model, attention.output, constant_of(model, attention.output))
        replace(model, attention.module, NoHeads(layer))

    def empty_feed_forward(self, model: PreTrainedModel, feed_forward: FeedForward) -> None:
        """Replace the neurons; the output projection behind them is in a module of its own."""
        replace(model, feed_forward.output, constant_of(model, feed_forward.output))
        replace(model, feed_forward.module, nn.Identity())


class NoHeads(nn.Module):
    """Attention without heads in front of an output projection that is a ``Constant``.

    Args:
        layer_idx: Number of the block in a cache of keys and values.
    """

    def __init__(self, layer_idx: int | None = None) -> None:
        super().__init__()
        self.layer_idx = layer_idx

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        """Return the states, of which the constant reads only the shape."""
        count_positions(hidden_states, self.layer_idx, **kwargs)
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
        sources = sources_of(model, [f"{base}embeddings.{table}" for table in tables])
        norms.insert(0, f"{base}embeddings.LayerNorm")
    # RoBERTa's and ELECTRA's heads read the stream themselves, BERT's reads the pooler.
    readers, unknown = readers_of(
        model,
        poolers=(f"{base}pooler.dense", "classifier.dense"),
        classifiers=("classifier", "classifier.out_proj", "qa_outputs", "cls.seq_relationship"),
    )
    cross = tuple(path for path in names if path.endswith(".crossattention"))
    return Stream(
        size=width_of(model, norms[-1]),
        norms=tuple(norms),
        sources=sources,
        readers=readers,
        post_norm=True,
        normed_sources=projection not in names,
        unknown=(*unknown, *cross),
    )
