"""``lit-compress shrink``: a run or a model folder in, the folder of a smaller model out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lit_compress.models.anatomy import UniformShape, family_of
from lit_compress.models.card import model_card
from lit_compress.models.checkpoint import check_place, save_folder
from lit_compress.models.transforms import transforms_of
from lit_compress.pruning.factorize_embedding import factorize_embedding
from lit_compress.pruning.shrink import shrink
from lit_compress.pruning.sizes import ShrinkReport
from lit_compress.pruning.source import Source, is_convnet, open_source, texts_in
from lit_compress.pruning.summary import pruning_facts
from lit_compress.pruning.verify import largest_difference
from lit_compress.pruning.vocabulary import (
    closed_pieces,
    count_pieces,
    keep_used,
    trim_closed,
    trim_vocabulary,
)
from lit_compress.pruning.vocabulary_guard import VocabularyLoss, vocabulary_loss

#: Largest difference of a logit in float64, in units of the largest logit, with which two models are the same.
_EXACT = 1e-6


def shrink_command(
    source: str,
    out: str,
    heads: int | None = None,
    neurons: int | None = None,
    layers: int | None = None,
    hidden: int | None = None,
    round_to: int = 1,
    vocabulary_from: str | None = None,
    min_count: int = 1,
    held_out: str | None = None,
    most_changed: float | None = None,
    embedding_rank: int | None = None,
    ckpt: str = "best",
    **convnet: Any,
) -> None:
    """Write the folder of a smaller model.

    Args:
        source: Run folder, whose checkpoint is taken with everything that was pruned; or model folder, hub name or
            ``package:NAME``.
        out: The new model folder.
        heads: Heads of every block; any of ``heads``, ``neurons``, ``layers`` and ``hidden`` makes all blocks
            alike, so that stock transformers loads the folder.
        neurons: Neurons of every block.
        layers: Blocks.
        hidden: Hidden dimensions.
        round_to: Keep a multiple of this many neurons where blocks differ.
        vocabulary_from: Texts whose pieces make the new vocabulary: a text file with one text per line, or a YAML
            file with a ``data`` section.
        min_count: Occurrences from which on a piece stays.
        held_out: Other texts, on which the new vocabulary is checked: a text file, or a YAML file with a ``data``
            section, of which the validation split is read; that of ``vocabulary_from`` where it is one.
        most_changed: Share of these texts, from 0 to 1, that may become other pieces than before.
        embedding_rank: Width of a narrower word embedding, which a linear map brings to the hidden dimensions. Where
            ``vocabulary_from`` is given, an error in a piece counts as often as these texts have it, and once more.
        ckpt: Checkpoint of a run: ``best``, ``last`` or a file.
        **convnet: What is for convolution nets only.

    Raises:
        ValueError: The source cannot be shrunk like this, or the result does not compute the same.
    """
    sizes = {"layers": layers, "heads": heads, "neurons": neurons, "hidden": hidden}
    place = Path(out)
    check_place(place.absolute(), source)
    if is_convnet(source):
        from lit_compress.pruning.convnet_command import shrink_convnet

        others = {"vocabulary-from": vocabulary_from, "embedding-rank": embedding_rank}
        given = [name for name, value in {**sizes, **others}.items() if value is not None]
        if given:
            raise ValueError(
                f"Expected a transformer for --{given[0]} but {source} holds a convolution "
                "net; give --sparsity."
            )
        shrink_convnet(source, place, round_to=round_to, **convnet)
        return
    if convnet:
        raise ValueError(
            f"Expected a convolution net for --{next(iter(convnet)).replace('_', '-')} but {source} holds a "
            "transformer; prune it in training with a callback such as Pruning, or give --heads, --neurons, "
            "--layers or --hidden."
        )
    found = open_source(source, ckpt)
    family_of(found.model)
    loss = None
    uniform = UniformShape(**sizes) if any(size is not None for size in sizes.values()) else None
    small = shrink(found.model, uniform, round_to)
    tokenizer, old_ids = found.tokenizer, None
    if vocabulary_from is not None:
        if tokenizer is None:
            raise ValueError(
                f"Expected a tokenizer in {source} to choose the vocabulary with but there is none; save it there, or "
                "leave --vocabulary-from out."
            )
        kept = keep_used(tokenizer, texts_in(Path(vocabulary_from)), min_count)
        small, tokenizer, old_ids = trim_vocabulary(small, tokenizer, kept)
        loss = _check_vocabulary(found.tokenizer, tokenizer, vocabulary_from, held_out, most_changed)
    elif held_out is not None or most_changed is not None:
        raise ValueError(
            "Expected --held-out and --most-changed with --vocabulary-from, whose choice they check; give it, or leave "
            "them out."
        )
    else:
        small, tokenizer, old_ids = _without_closed(small, tokenizer)
    exact = _verify(found, small, old_ids, must=uniform is None)
    if vocabulary_from is None and old_ids is not None:
        exact = False  # texts that use the closed pieces are read otherwise than when the model was judged
    if embedding_rank is not None:
        _narrow(small, embedding_rank, tokenizer, vocabulary_from)
        exact = False
    facts = _facts(found, small, exact)
    if loss is not None:
        facts["vocabulary"] = loss._asdict()
    card = model_card({**facts, "ragged": bool(transforms_of(small))})
    save_folder(place, small, tokenizer, facts, card)
    print(ShrinkReport.of(found.model, small))
    how = "lit_compress.load" if transforms_of(small) else "AutoModel…from_pretrained and lit_compress.load"
    print(f"Model folder: {place} (for {how})")


def _without_closed(model: PreTrainedModel, tokenizer: Any) -> tuple[PreTrainedModel, Any, list[int] | None]:
    """Cut out the word pieces whose rows are zero, with the tokenizer's; say so."""
    if tokenizer is None:
        closed = len(closed_pieces(model))
        if closed > 1:  # one is the padding
            print(
                f"{closed} rows of the word embedding stay as zeros: there is no tokenizer to cut with them."
            )
        return model, None, None
    small, trimmed, old_ids = trim_closed(model, tokenizer)
    if old_ids is not None:
        gone = model.config.vocab_size - small.config.vocab_size
        print(
            f"{gone} word pieces with zeros for rows are gone, from the tokenizer too: texts that use them become "
            "other pieces. Fine-tune the folder, or measure it, before you use it."
        )
    return small, trimmed, old_ids


def _narrow(model: PreTrainedModel, rank: int, tokenizer: Any, texts: str | None) -> None:
    """Factorise the word embedding, in place, and say what is lost."""
    weights: Tensor | None = None
    if texts is not None:
        counts = count_pieces(tokenizer, texts_in(Path(texts)), special_tokens=True)
        # What they never have may come up later.
        weights = torch.tensor([1.0 + counts[piece] for piece in range(model.config.vocab_size)])
    error = factorize_embedding(model, rank, weights)
    read = "" if texts is None else ", pieces counted as often as the texts have them"
    print(
        f"Error of the word embedding of rank {rank}: {100 * error:.1f} % of its length{read}. Fine-tune the "
        "folder, or measure it, before you use it."
    )


def _check_vocabulary(
    before: Any, after: Any, chosen_from: str, held_out: str | None, most_changed: float | None
) -> VocabularyLoss | None:
    """Say what becomes of texts that the vocabulary was not chosen from; refuse where it is too much."""
    if most_changed is not None and not 0.0 <= most_changed <= 1.0:
        raise ValueError(
            f"Expected --most-changed from 0 to 1 (a share of the texts) but got {most_changed}."
        )
    has_data = Path(chosen_from).suffix in (".yaml", ".yml")
    place = held_out or (chosen_from if has_data else None)
    if place is None:
        if most_changed is not None:
            raise ValueError(
                "Expected texts for --most-changed to look at but got none; give a file with --held-out."
            )
        print("How the new vocabulary fares on other texts is not known; give some with --held-out.")
        return None
    loss = vocabulary_loss(before, after, texts_in(Path(place), "validation"))
    print(f"{loss}.")
    if most_changed is not None and loss.changed > most_changed:
        raise ValueError(
            f"Expected at most {100 * most_changed:.1f} % of the held-out texts to become other pieces but "
            f"{100 * loss.changed:.1f} % do; choose the vocabulary from more texts, or lower --min-count."
        )
    return loss


def _verify(found: Source, small: PreTrainedModel, old_ids: list[int] | None, must: bool) -> bool:
    """Run both models on random padded inputs; return whether they compute the same."""
    difference, scale = largest_difference(found.model, small, old_ids)
    exact = difference <= _EXACT * max(1.0, scale)
    if must and not exact:
        raise ValueError(
            f"Expected the smaller model to compute what the masked one does but their logits differ by "
            f"{difference:.3g} (the largest is {scale:.3g}); nothing was written: "
            "please report this with the configuration of the model."
        )
    print(f"Largest difference of a logit on random padded inputs, in float64: {difference:.2e}")
    if not exact:
        print(
            "The new shape left out units that did something: fine-tune the folder, or measure it, before you use it."
        )
    return exact


def _facts(found: Source, small: PreTrainedModel, exact: bool) -> dict[str, Any]:
    """Return what the new manifest says: what is still true of what the old one said."""
    facts = {key: value for key, value in found.facts.items() if exact or key != "metrics"}
    pruning = pruning_facts(found.model, small)
    return {**facts, **({"pruning": pruning} if pruning else {}), "shrunk_from": found.name}
