"""A tiny random model of every family that can be pruned, with a batch of right-padded inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    DeiTConfig,
    DeiTForImageClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    RobertaConfig,
    RobertaForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
    WhisperConfig,
    WhisperForConditionalGeneration,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

VOCABULARY = 60
HIDDEN = 24
NEURONS = 20
_TEXT: dict[str, Any] = {"vocab_size": VOCABULARY, "max_position_embeddings": 40, "pad_token_id": 0}
_SIZES: dict[str, Any] = {"hidden_size": HIDDEN, "num_attention_heads": 4, "intermediate_size": NEURONS}
_DRY: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_IMAGE: dict[str, Any] = {"image_size": 16, "patch_size": 8, "num_labels": 3}
_TOKENS: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2}


def _bert(layers: int) -> PreTrainedModel:
    return BertForSequenceClassification(
        BertConfig(**_TEXT, **_SIZES, **_DRY, num_hidden_layers=layers, num_labels=3)
    )


def _roberta(layers: int) -> PreTrainedModel:
    return RobertaForSequenceClassification(
        RobertaConfig(**_TEXT, **_SIZES, **_DRY, **_TOKENS, num_hidden_layers=layers, num_labels=3)
    )


def _xlm_roberta(layers: int) -> PreTrainedModel:
    return XLMRobertaForSequenceClassification(
        XLMRobertaConfig(**_TEXT, **_SIZES, **_DRY, **_TOKENS, num_hidden_layers=layers, num_labels=3)
    )


def _electra(layers: int, embedding: int = 12) -> PreTrainedModel:
    return ElectraForSequenceClassification(
        ElectraConfig(
            **_TEXT, **_SIZES, **_DRY, num_hidden_layers=layers, num_labels=3, embedding_size=embedding
        )
    )


def _electra_without_projection(layers: int) -> PreTrainedModel:
    return _electra(layers, HIDDEN)


def _distilbert(layers: int) -> PreTrainedModel:
    sizes: dict[str, Any] = {"dim": HIDDEN, "n_heads": 4, "hidden_dim": NEURONS, "n_layers": layers}
    return DistilBertForSequenceClassification(
        DistilBertConfig(
            **_TEXT, **sizes, num_labels=3, dropout=0.0, attention_dropout=0.0, seq_classif_dropout=0.0
        )
    )


def _albert(layers: int, groups: int = 1, inner: int = 1) -> PreTrainedModel:
    shared: dict[str, Any] = {"num_hidden_groups": groups, "inner_group_num": inner, "embedding_size": 12}
    return AlbertForSequenceClassification(
        AlbertConfig(
            **_TEXT,
            **_SIZES,
            **_DRY,
            **shared,
            num_hidden_layers=layers,
            num_labels=3,
            classifier_dropout_prob=0.0,
        )
    )


def _albert_groups(layers: int) -> PreTrainedModel:
    return _albert(layers, groups=2, inner=2)


def _vit(layers: int) -> PreTrainedModel:
    return ViTForImageClassification(ViTConfig(**_SIZES, **_IMAGE, num_hidden_layers=layers))


def _deit(layers: int) -> PreTrainedModel:
    return DeiTForImageClassification(DeiTConfig(**_SIZES, **_IMAGE, num_hidden_layers=layers))


def _llama(layers: int) -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(
            **_TEXT,
            **_SIZES,
            **_TOKENS,
            num_hidden_layers=layers,
            num_key_value_heads=2,
            attention_bias=True,
            mlp_bias=True,
        )
    )


def _qwen2(layers: int) -> PreTrainedModel:
    # Queries, keys and values have biases, the output projections have none; embedding and head are tied.
    return Qwen2ForCausalLM(
        Qwen2Config(
            **_TEXT,
            **_SIZES,
            **_TOKENS,
            num_hidden_layers=layers,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            use_sliding_window=True,
            sliding_window=4,
            max_window_layers=1,
        )
    )


def _qwen3(layers: int) -> PreTrainedModel:
    return Qwen3ForCausalLM(
        Qwen3Config(
            **_TEXT,
            **_SIZES,
            **_TOKENS,
            num_hidden_layers=layers,
            num_key_value_heads=2,
            head_dim=8,
            tie_word_embeddings=True,
        )
    )


def _mistral(layers: int) -> PreTrainedModel:
    return MistralForCausalLM(
        MistralConfig(
            **_TEXT, **_SIZES, **_TOKENS, num_hidden_layers=layers, num_key_value_heads=4, sliding_window=None
        )
    )


def _gpt2(layers: int) -> PreTrainedModel:
    dry: dict[str, Any] = {
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "summary_first_dropout": 0.0,
    }
    sizes: dict[str, Any] = {
        "n_embd": HIDDEN,
        "n_head": 4,
        "n_inner": NEURONS,
        "n_layer": layers,
        "n_positions": 40,
    }
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY,
            pad_token_id=0,
            **sizes,
            **dry,
            **_TOKENS,
            scale_attn_by_inverse_layer_idx=True,
        )
    )


def _whisper(layers: int) -> PreTrainedModel:
    heads: dict[str, Any] = {"encoder_attention_heads": 4, "decoder_attention_heads": 3}
    sizes: dict[str, Any] = {"d_model": HIDDEN, "encoder_ffn_dim": NEURONS, "decoder_ffn_dim": NEURONS + 4}
    return WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=VOCABULARY,
            pad_token_id=0,
            decoder_start_token_id=3,
            **sizes,
            **heads,
            **_TOKENS,
            encoder_layers=layers,
            decoder_layers=layers,
            num_mel_bins=5,
            max_source_positions=6,
            max_target_positions=20,
            begin_suppress_tokens=None,
            suppress_tokens=None,
        )
    )


_BUILD: dict[str, Callable[[int], PreTrainedModel]] = {
    "bert": _bert,
    "roberta": _roberta,
    "xlm-roberta": _xlm_roberta,
    "electra": _electra,
    "electra_without_projection": _electra_without_projection,
    "distilbert": _distilbert,
    "albert": _albert,
    "albert_groups": _albert_groups,
    "vit": _vit,
    "deit": _deit,
    "llama": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "mistral": _mistral,
    "gpt2": _gpt2,
    "whisper": _whisper,
}
#: Names for ``family_model`` and ``family_batch``: every adapter, and the variants within one.
EVERY_FAMILY = tuple(_BUILD)
#: Families that generate text with a cache of keys and values.
GENERATORS = ("llama", "qwen2", "qwen3", "mistral", "gpt2", "whisper")
#: Families that call one layer several times.
SHARED = ("albert", "albert_groups")


def family_model(
    name: str, layers: int = 3, attention: str = "sdpa", seed: int = 0, dtype: torch.dtype = torch.float64
) -> PreTrainedModel:
    """A tiny model with its task head, in eval mode, all weights, biases and norms random.

    Fresh models have biases of zero and norms of one, under which a forgotten bias or norm would not show.
    Four heads (query heads: two key-value heads, in Llama and Qwen), width 24, 20 neurons, vocabulary 60.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _BUILD[name](layers)
        with torch.no_grad():
            for tensor in model.parameters():
                if tensor.dim() == 1:
                    tensor.add_(0.3 * torch.randn_like(tensor))
                else:
                    tensor.copy_(0.4 * torch.randn_like(tensor))
    model.set_attn_implementation(attention)
    return model.to(dtype).eval()


def family_batch(name: str, seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Two inputs; the second text is shorter and padded on the right."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, VOCABULARY, (2, 7), generator=draw)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    ids[1, 4:] = 0
    if name in ("vit", "deit"):
        return {"pixel_values": torch.randn(2, 3, 16, 16, generator=draw, dtype=dtype)}
    if name == "whisper":
        sound = torch.randn(2, 5, 12, generator=draw, dtype=dtype)
        return {"input_features": sound, "decoder_input_ids": ids, "decoder_attention_mask": mask}
    return {"input_ids": ids, "attention_mask": mask}
