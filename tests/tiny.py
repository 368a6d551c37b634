"""Tiny random models, tokenizers and batches: everything tests need without a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    AlbertConfig,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    DeiTConfig,
    DeiTForImageClassification,
    DistilBertConfig,
    ElectraConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    ViTConfig,
)

TEXT_FAMILIES = ("bert", "roberta", "distilbert", "electra", "albert")
IMAGE_FAMILIES = ("vit", "deit")
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = (
    *("good", "bad", "fine", "poor", "great", "awful", "not", "very", "really", "quite"),
    *("film", "movie", "plot", "actor", "scene", "story", "music", "red", "green", "blue"),
    *("is", "was", "the", "a", "an", "of", "and", "but", "with", "it", "this", "that"),
    *("one", "two", "three", "four", "five"),
)


def tiny_bert(
    layers: int = 4,
    hidden: int = 32,
    heads: int = 4,
    vocab: int = 100,
    labels: int = 3,
    seed: int = 0,
    dropout: float = 0.0,
    regression: bool = False,
) -> BertForSequenceClassification:
    """A BERT classifier with random weights, in train mode.

    The weights are ten times larger than BERT's own initialisation: with 0.02 the logits hardly depend on
    the input, and a test that feeds the wrong rows would still pass.
    """
    model = tiny_model(
        "bert",
        layers=layers,
        hidden=hidden,
        heads=heads,
        vocab=vocab,
        labels=labels,
        seed=seed,
        dropout=dropout,
        regression=regression,
    )
    assert isinstance(model, BertForSequenceClassification)
    return model


def tiny_model(
    family: str,
    layers: int = 4,
    hidden: int = 32,
    heads: int = 4,
    vocab: int = 100,
    labels: int = 3,
    seed: int = 0,
    dropout: float = 0.0,
    regression: bool = False,
) -> PreTrainedModel:
    """A classifier of any supported family with random weights (images are 3x32x32, 16 patches)."""
    config = _config(family, layers, hidden, heads, vocab, dropout)
    config.num_labels = 1 if regression else labels
    config.problem_type = "regression" if regression else "single_label_classification"
    # The auto class cannot choose between the two classifiers of DeiT.
    images = DeiTForImageClassification if family == "deit" else AutoModelForImageClassification
    auto = images if family in IMAGE_FAMILIES else AutoModelForSequenceClassification
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        build = auto if family == "deit" else auto.from_config
        return build(config).train()


def _config(
    family: str, layers: int, hidden: int, heads: int, vocab: int, dropout: float
) -> PreTrainedConfig:
    text = {"vocab_size": vocab, "max_position_embeddings": 130, "pad_token_id": 0, "initializer_range": 0.2}
    sizes = {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": 2 * hidden,
        "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout,
    }
    if family == "bert":
        return BertConfig(**text, **sizes)
    if family == "roberta":
        # The positions of RoBERTa begin behind the padding id.
        return RobertaConfig(**text, **sizes, bos_token_id=2, eos_token_id=3)
    if family == "electra":
        return ElectraConfig(**text, **sizes, embedding_size=hidden // 2)
    if family == "albert":
        return AlbertConfig(**text, **sizes, embedding_size=hidden // 2, classifier_dropout_prob=dropout)
    if family == "distilbert":
        return DistilBertConfig(
            **text,
            n_layers=layers,
            dim=hidden,
            n_heads=heads,
            hidden_dim=2 * hidden,
            dropout=dropout,
            attention_dropout=dropout,
            seq_classif_dropout=dropout,
        )
    image = {"image_size": 32, "patch_size": 8, "initializer_range": 0.2}
    return {"vit": ViTConfig, "deit": DeiTConfig}[family](**image, **sizes)


def tiny_tokenizer(folder: Path, words: Sequence[str] = WORDS) -> Path:
    """Save a WordPiece tokenizer over ``words``, single letters and their ``##`` pieces; return its folder.

    The vocabulary has exactly 100 entries for the default words, the size of the tiny models.
    """
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    pieces = [*SPECIAL_TOKENS, *words, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    if len(vocabulary) < 100:
        vocabulary |= {f"[unused{index}]": index for index in range(len(vocabulary), 100)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # type: ignore[call-arg]
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=128,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    fast.save_pretrained(folder)
    return folder


def tiny_batch(
    lengths: Sequence[int] = (7, 5, 3, 7),
    vocab: int = 100,
    labels: int = 3,
    seed: int = 0,
    extra_padding: int = 0,
    regression: bool = False,
    first_example: int = 0,
) -> dict[str, Tensor]:
    """A right-padded text batch; the real tokens do not depend on ``extra_padding``."""
    generator = torch.Generator().manual_seed(seed)
    rows, width = len(lengths), max(lengths)
    mask = torch.arange(width + extra_padding) < torch.tensor(lengths)[:, None]
    tokens = torch.randint(len(SPECIAL_TOKENS), vocab, (rows, width), generator=generator)
    ids = torch.nn.functional.pad(tokens, (0, extra_padding)) * mask
    if regression:
        targets = torch.rand(rows, generator=generator) * 5
    else:
        targets = torch.randint(0, labels, (rows,), generator=generator)
    return {
        "input_ids": ids,
        "attention_mask": mask.long(),
        "token_type_ids": torch.zeros_like(ids),
        "labels": targets,
        "example_id": torch.arange(first_example, first_example + rows),
    }


def tiny_images(rows: int = 4, labels: int = 3, seed: int = 0) -> dict[str, Tensor]:
    """A batch of random 3x32x32 images for the ViT-type models."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "pixel_values": torch.randn(rows, 3, 32, 32, generator=generator),
        "labels": torch.randint(0, labels, (rows,), generator=generator),
        "example_id": torch.arange(rows),
    }
