"""Adapters: where each family of models keeps heads, neurons, blocks and hidden dimensions.

A family that is not here is added with an adapter of its own, see ``docs/adapters.md``::

    from lit_compress.models.anatomy import FAMILIES
    FAMILIES["my-model-type"] = MyFamily()
"""

from __future__ import annotations

from transformers import PreTrainedModel

from lit_compress.models.anatomy.albert import Albert
from lit_compress.models.anatomy.base import Anatomy, Attention, Axis, Block, FeedForward, Stream, Stretch
from lit_compress.models.anatomy.bert import Bert
from lit_compress.models.anatomy.distilbert import DistilBert
from lit_compress.models.anatomy.factorized_embedding import with_factors
from lit_compress.models.anatomy.family import Family, UniformShape
from lit_compress.models.anatomy.gpt2 import GPT2
from lit_compress.models.anatomy.llama import Llama
from lit_compress.models.anatomy.vit import ViT
from lit_compress.models.anatomy.whisper import Whisper

__all__ = [
    "FAMILIES",
    "Anatomy",
    "Attention",
    "Axis",
    "Block",
    "Family",
    "FeedForward",
    "Stream",
    "Stretch",
    "UniformShape",
    "dissect",
    "family_of",
]

#: Adapters by ``model_type``.
FAMILIES: dict[str, Family] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "electra"), Bert()),
    "distilbert": DistilBert(),
    "albert": Albert(),
    **dict.fromkeys(("vit", "deit"), ViT()),
    **dict.fromkeys(("llama", "qwen2", "qwen3", "mistral"), Llama()),
    "gpt2": GPT2(),
    "whisper": Whisper(),
}


def family_of(model: PreTrainedModel) -> Family:
    """Return the adapter of a model.

    Raises:
        ValueError: There is none; the message says what one has to give.
    """
    found = getattr(model.config, "model_type", None)
    if found not in FAMILIES:
        raise ValueError(
            f"Expected a model of one of the families {', '.join(sorted(FAMILIES))} but got {found!r} "
            f"({type(model).__name__}); write an adapter that tells where its attentions (query, key, value and output "
            "projection, number and width of heads), feed-forward networks, normalisations, embeddings and readers of "
            "the hidden states are, and put it into lit_compress.models.anatomy.FAMILIES (see docs/adapters.md)."
        )
    return FAMILIES[found]


def dissect(model: PreTrainedModel) -> Anatomy:
    """Return where a model keeps its units.

    Args:
        model: A transformer of a supported family, with or without a task head.

    Returns:
        Its anatomy as its modules are now.

    Raises:
        ValueError: There is no adapter for its family.
    """
    return with_factors(model, family_of(model).dissect(model))
