"""ViT and DeiT: pre-norm encoders of images."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig, PreTrainedModel

from lit_compress.models.anatomy.base import Anatomy, Attention, Axis, Block, FeedForward, Stream, Stretch
from lit_compress.models.anatomy.configs import write_free_sizes
from lit_compress.models.anatomy.family import EmptyAttention, EmptyFeedForward, Family, UniformShape
from lit_compress.models.anatomy.heads import base_path, readers_of, width_of


class ViT(Family):
    """Adapter of ViT and DeiT."""

    def dissect(self, model: PreTrainedModel) -> Anatomy:
        """Return the anatomy; see ``Family.dissect``."""
        names = dict(model.named_modules())
        base = base_path(model)
        layers: Any = names[f"{base}layers"]
        blocks = tuple(_block(names, f"{base}layers.{index}") for index in range(len(layers)))
        return Anatomy(
            family=model.config.model_type,
            blocks=blocks,
            stream=_stream(model, names, base, blocks),
            block_lists=(f"{base}layers",),
        )

    def write_config(self, config: PreTrainedConfig, shape: UniformShape) -> None:
        """Write the shape; see ``Family.write_config``."""
        write_free_sizes(config, shape)


def _block(names: dict[str, Any], path: str) -> Block:
    core, inside = names[f"{path}.attention"], names[f"{path}.mlp"]
    attentions = () if isinstance(core, EmptyAttention) else (_attention(core, f"{path}.attention"),)
    emptied = isinstance(inside, EmptyFeedForward)
    return Block(path, attentions, None if emptied else _feed_forward(inside, f"{path}.mlp"))


def _attention(core: Any, path: str) -> Attention:
    width = core.head_dim
    return Attention(
        module=path,
        heads=core.q_proj.out_features // width,
        inputs=tuple(Stretch(f"{path}.{name}", 0, width) for name in ("q_proj", "k_proj", "v_proj")),
        output=f"{path}.o_proj",
        head_width=width,
    )


def _feed_forward(inside: Any, path: str) -> FeedForward:
    return FeedForward(path, inside.fc1.out_features, (f"{path}.fc1",), f"{path}.fc2")


def _stream(model: PreTrainedModel, names: dict[str, Any], base: str, blocks: tuple[Block, ...]) -> Stream:
    inner = [f"{block.path}.{name}" for block in blocks for name in ("layernorm_before", "layernorm_after")]
    patches, embeddings = f"{base}embeddings.patch_embeddings.projection", f"{base}embeddings"
    tokens = [
        name
        for name in ("cls_token", "distillation_token", "mask_token", "position_embeddings")
        if getattr(names[embeddings], name, None) is not None
    ]
    readers, unknown = readers_of(
        model, [f"{base}pooler.dense"], ["classifier", "cls_classifier", "distillation_classifier"]
    )
    return Stream(
        size=width_of(model, f"{base}layernorm"),
        norms=(*inner, f"{base}layernorm"),
        sources=(
            Axis(patches, "weight", 0),
            Axis(patches, "bias", 0),
            *(Axis(embeddings, name, 2) for name in tokens),
        ),
        readers=readers,
        post_norm=False,
        unknown=unknown,
    )
