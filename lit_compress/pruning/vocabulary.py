"""A smaller vocabulary: embeddings without the rows that a task never reads, and the tokenizer to match."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection, Iterable
from itertools import islice
from typing import Any

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lit_compress.models.anatomy import dissect
from lit_compress.models.anatomy.factorized_embedding import FactorizedEmbedding
from lit_compress.pruning.counting import named_tensor
from lit_compress.pruning.cutting import cut_slots
from lit_compress.pruning.groups import Group, Slot
from lit_compress.pruning.tokenizers import indispensable, trim_tokenizer

_BATCH = 1000


def keep_used(
    tokenizer: PreTrainedTokenizerBase,
    texts: Iterable[str],
    min_count: int = 1,
    at_least_coverage: float = 0.0,
) -> list[int]:
    """Return the pieces that texts use often enough.

    Args:
        tokenizer: The tokenizer.
        texts: Texts like those that the model will read, such as its training data.
        min_count: Occurrences from which on a piece stays.
        at_least_coverage: Share of all occurrences, in [0, 1], that the pieces must cover; rarer pieces stay too
            until they do, the most frequent ones first.

    Returns:
        Ascending ids; the special tokens and characters, which ``trim_vocabulary`` keeps anyway, only where used.

    Raises:
        ValueError: A setting is out of its range, or there are no texts.
    """
    if min_count < 1 or not 0.0 <= at_least_coverage <= 1.0:
        raise ValueError(
            f"Expected min_count from 1 on and at_least_coverage in [0, 1] but got {min_count} and "
            f"{at_least_coverage}; correct them."
        )
    counts = count_pieces(tokenizer, texts)
    if not counts:
        raise ValueError("Expected texts to choose the vocabulary from but got none; check the file.")
    total, covered, kept = counts.total(), 0, []
    for piece, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if count < min_count and covered >= at_least_coverage * total:
            break
        kept.append(piece)
        covered += count
    return sorted(kept)


def count_pieces(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], special_tokens: bool = False
) -> Counter[int]:
    """Return how often texts use each piece.

    Args:
        tokenizer: The tokenizer.
        texts: The texts.
        special_tokens: Whether those count that the tokenizer adds to each text.
    """
    counts: Counter[int] = Counter()
    rest = iter(texts)
    while rows := list(islice(rest, _BATCH)):
        # Not truncated: what stands at the end of a long text is used too.
        encoded = tokenizer(rows, add_special_tokens=special_tokens, truncation=False, verbose=False)[
            "input_ids"
        ]
        counts.update(piece for row in encoded for piece in row)
    return counts


def trim_vocabulary(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, keep: Collection[int]
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, list[int]]:
    """Return a model and a tokenizer that know only some pieces.

    Special and added tokens, single characters and bytes stay in any case, so that every text that could be encoded
    still can; of byte-pair encodings, the pieces from which kept ones are merged stay too. Texts that use
    only kept pieces become the same pieces, and the model computes the same.

    Args:
        model: The model, without gates; not changed.
        tokenizer: Its fast tokenizer (WordPiece, byte-pair encoding or unigrams); not changed.
        keep: Ids of the pieces to keep.

    Returns:
        The model, the tokenizer, and the old id of every new one.

    Raises:
        ValueError: An id does not exist, or the tokenizer cannot be rewritten.
    """
    wanted = indispensable(tokenizer, set(keep)) | _ids_of_model(model)
    rows = _embedding(model).num_embeddings
    if wanted and (min(wanted) < 0 or max(wanted) >= rows):
        raise ValueError(
            f"Expected ids of the {rows} pieces that the model knows but got {max(wanted)}; give the tokenizer of "
            "this model."
        )
    old_ids = sorted(wanted)
    new_tokenizer = trim_tokenizer(tokenizer, old_ids)
    small: Any = copy.deepcopy(model)
    _cut_rows(small, old_ids)
    _write_ids(small, {old: new for new, old in enumerate(old_ids)})
    return small, new_tokenizer, old_ids


def trim_closed(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, list[int] | None]:
    """Return a model and a tokenizer without the pieces whose rows of the embedding are zero.

    What a tokenizer needs stays, see :func:`trim_vocabulary`. Texts that use the other pieces become other ones, of
    which most are characters.

    Args:
        model: The model, without gates; not changed.
        tokenizer: Its fast tokenizer; not changed.

    Returns:
        The model, the tokenizer, and the old id of every new one; both as they are, and ``None``, where no piece goes.

    Raises:
        ValueError: The tokenizer cannot be rewritten.
    """
    closed = closed_pieces(model)
    if closed <= {*tokenizer.all_special_ids}:  # often the row of the padding is zero
        return model, tokenizer, None
    kept = set(range(_embedding(model).num_embeddings)) - closed
    if closed <= indispensable(tokenizer, kept) | _ids_of_model(model):
        return model, tokenizer, None
    return trim_vocabulary(model, tokenizer, kept)


def closed_pieces(model: PreTrainedModel) -> set[int]:
    """Return the ids whose rows of the word embedding are zero; none for models that read no tokens."""
    path = dissect(model).word_embedding
    if path is None:
        return set()
    rows = named_tensor(model, f"{path}.weight").detach()
    return set((~rows.any(1)).nonzero().flatten().tolist())


def _embedding(model: PreTrainedModel) -> nn.Embedding:
    found: Any = model.get_input_embeddings()
    found = found.table if isinstance(found, FactorizedEmbedding) else found
    if not isinstance(found, nn.Embedding):
        raise ValueError(
            f"Expected a model with a word embedding but {type(model).__name__} reads no tokens; leave the "
            "vocabulary out."
        )
    return found


def _ids_of_model(model: PreTrainedModel) -> set[int]:
    """Return the ids that the model itself speaks of."""
    configs: list[Any] = [model.config, getattr(model, "generation_config", None)]
    found = {
        piece
        for config in configs
        if config is not None
        for name, value in vars(config).items()
        if name.endswith("_token_id")
        for piece in (value if isinstance(value, list) else [value])
        if isinstance(piece, int) and piece >= 0
    }
    # RoBERTa counts its positions from the padding id on: that one has to stay where it is.
    starts = [m.padding_idx for name, m in model.named_modules() if _counts_from_padding(name, m)]
    return found | {piece for start in starts for piece in range(start + 1)}


def _counts_from_padding(name: str, module: Any) -> bool:
    positions = isinstance(module, nn.Embedding) and name.endswith("position_embeddings")
    return positions and module.padding_idx is not None


def _cut_rows(model: PreTrainedModel, old_ids: list[int]) -> None:
    """Keep some rows of the embedding and of an output layer, wherever their tensors are registered."""
    embedding = _embedding(model)
    head: Any = model.get_output_embeddings()
    tensors = [embedding.weight, *(getattr(head, name, None) for name in ("weight", "bias"))]
    rows = embedding.num_embeddings
    wanted = {id(tensor) for tensor in tensors if tensor is not None and len(tensor) == rows}
    slots = [
        Slot(path, name, 0)
        for path, module in model.named_modules()
        for name, tensor in module.named_parameters(recurse=False, remove_duplicate=False)
        if id(tensor) in wanted
    ]
    cut_slots(model, [(Group("vocabulary", "vocabulary", rows, (), tuple(slots)), old_ids)])
    for module in model.modules():
        if getattr(module, "vocab_size", None) == rows:
            module.vocab_size = len(old_ids)  # type: ignore[assignment]
    model.config.vocab_size = len(old_ids)


def _write_ids(model: PreTrainedModel, new: dict[int, int]) -> None:
    """Give the ids that configurations hold their new numbers."""
    embedding = _embedding(model)
    if embedding.padding_idx is not None:
        embedding.padding_idx = new.get(embedding.padding_idx)
    configs: list[Any] = [model.config, getattr(model, "generation_config", None)]
    for config in configs:
        for name, value in list(vars(config).items()) if config is not None else []:
            if name.endswith(("_token_id", "suppress_tokens")):
                setattr(config, name, _renumbered(value, new))


def _renumbered(value: Any, new: dict[int, int]) -> Any:
    if isinstance(value, list):
        return [new[piece] for piece in value if piece in new]
    return new.get(value, value) if isinstance(value, int) else value
