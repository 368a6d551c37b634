"""What pruning has to know about a model: where heads, neurons and hidden dimensions live.

These classes only name tensors. What is done to them (scores, gates, cutting) is written once, for all families,
in ``lit_compress.pruning``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stretch:
    """A run of the outputs of a projection, such as the queries inside a fused query-key-value projection.

    Args:
        module: Path of the projection below the model.
        start: First output of the run.
        width: Outputs per unit of the attention.
    """

    module: str
    start: int
    width: int


@dataclass(frozen=True)
class Attention:
    """One attention: ``heads`` units, each of which can be cut out.

    Where queries share keys and values (grouped-query attention), a unit is one key-value head with all the
    query heads that read it: fewer would leave groups of unequal size, which no attention kernel takes.

    Args:
        module: Path of the module that computes it, whose attributes tell the number of heads.
        heads: Number of units.
        inputs: Stretches of queries, keys and values; each is ``heads`` times its width long.
        output: Path of the output projection, whose inputs lie unit by unit.
        head_width: Inputs of the output projection per unit.
    """

    module: str
    heads: int
    inputs: tuple[Stretch, ...]
    output: str
    head_width: int


@dataclass(frozen=True)
class FeedForward:
    """One feed-forward network.

    Args:
        module: Path of the module that computes it.
        neurons: Width inside.
        inputs: Paths of the projections into it: one, or gate and up projection.
        output: Path of the projection out of it.
    """

    module: str
    neurons: int
    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True)
class Block:
    """One block: attention(s), then a feed-forward network. What was already cut out is not there.

    Args:
        path: Path below the model.
        attentions: One, or two in a decoder that also attends to an encoder.
        feed_forward: Its feed-forward network.
    """

    path: str
    attentions: tuple[Attention, ...]
    feed_forward: FeedForward | None


@dataclass(frozen=True)
class Axis:
    """A tensor axis along which the hidden dimensions lie.

    Args:
        module: Path of the module below the model; empty for the model itself.
        tensor: Name of the parameter in it.
        axis: The axis.
    """

    module: str
    tensor: str
    axis: int


@dataclass(frozen=True)
class Stream:
    """The residual stream, in which every block reads and writes the hidden dimensions.

    The projections of the blocks are not listed again; they follow from ``Anatomy.blocks``.

    Args:
        size: Hidden dimensions.
        norms: Paths of all normalisations over the hidden dimensions.
        sources: Tensors outside the blocks that write into the stream: embeddings, position embeddings,
            class tokens, a projection from a smaller embedding.
        readers: Tensors outside the blocks that read from it: pooler, classifier, language-model head.
        post_norm: Whether the stream itself is normalised after each part of a block, as in BERT. Then the
            scale of a dimension is that of the norms; else it is that of everything that writes into it.
        normed_sources: Whether a norm stands between the sources and the first block.
        unknown: Paths of modules outside the blocks of which the adapter does not know whether they belong to the
            stream; with any, hidden dimensions cannot be cut.
    """

    size: int
    norms: tuple[str, ...]
    sources: tuple[Axis, ...]
    readers: tuple[Axis, ...]
    post_norm: bool
    normed_sources: bool = False
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Anatomy:
    """A model, taken apart.

    Args:
        family: ``model_type`` of the configuration.
        blocks: Blocks in the order of the weights; one that is called several times (ALBERT) once.
        stream: The hidden dimensions.
        block_lists: Paths of the module lists from which whole blocks can be dropped.
        word_embedding: Path of the word embedding; ``None`` for models without one.
    """

    family: str
    blocks: tuple[Block, ...]
    stream: Stream
    block_lists: tuple[str, ...] = ()
    word_embedding: str | None = None
