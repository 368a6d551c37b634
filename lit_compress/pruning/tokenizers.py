"""Rewriting fast tokenizers so that they know fewer pieces."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
#: Files that hold what is in tokenizer.json too, in older forms.
_OLDER = (
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)


def indispensable(tokenizer: PreTrainedTokenizerBase, keep: set[int]) -> set[int]:
    """Return ids to keep with everything without which they, or some text, could not be encoded.

    Args:
        tokenizer: A fast tokenizer.
        keep: Ids of pieces.

    Returns:
        They and special tokens, added tokens, single characters, bytes, and the parts of merged pieces.

    Raises:
        ValueError: The tokenizer is no fast one, or of an unknown kind.
    """
    state = _state(tokenizer)
    vocabulary = tokenizer.get_vocab()
    kept = keep | set(tokenizer.all_special_ids) | {entry["id"] for entry in state["added_tokens"]}
    model = state["model"]
    affixes = [model.get("continuing_subword_prefix"), model.get("end_of_word_suffix"), "##", "▁"]
    for piece, index in vocabulary.items():
        if any(len(_bare(piece, affix)) <= 1 for affix in affixes if affix) or _BYTE.fullmatch(piece):
            kept.add(index)
    if model["type"] == "BPE":
        _add_parts(model, vocabulary, kept)
    return kept


def _bare(piece: str, affix: str) -> str:
    return piece.removeprefix(affix).removesuffix(affix)


def _add_parts(model: Mapping[str, Any], vocabulary: Mapping[str, int], kept: set[int]) -> None:
    """Add what kept pieces are merged from, down to single characters."""
    parts: dict[str, list[str]] = {}
    for first, second in _merges(model):
        parts.setdefault(_merged(model, first, second), []).extend((first, second))
    names = {index: piece for piece, index in vocabulary.items()}
    waiting = [names[index] for index in kept if index in names]
    while waiting:
        for part in parts.get(waiting.pop(), []):
            if part in vocabulary and vocabulary[part] not in kept:
                kept.add(vocabulary[part])
                waiting.append(part)


def _merges(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    # Older files write both parts in one string.
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
    return [(first, second) for first, second in pairs]


def _merged(model: Mapping[str, Any], first: str, second: str) -> str:
    return first + second.removeprefix(model.get("continuing_subword_prefix") or "")


def _state(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ValueError(
            f"Expected a fast tokenizer, which has a tokenizer.json, but got {type(tokenizer).__name__}; load it with "
            "AutoTokenizer.from_pretrained(…, use_fast=True), or leave the vocabulary as it is."
        )
    state = json.loads(backend.to_str())
    kind = state["model"].get("type")
    if kind not in ("WordPiece", "WordLevel", "BPE", "Unigram"):
        raise ValueError(
            f"Expected a tokenizer of kind WordPiece, WordLevel, BPE or Unigram but got {kind!r}; leave the "
            "vocabulary as it is."
        )
    return state


def trim_tokenizer(tokenizer: PreTrainedTokenizerBase, old_ids: Sequence[int]) -> PreTrainedTokenizerBase:
    """Return a tokenizer that knows only some pieces.

    Args:
        tokenizer: A fast tokenizer; not changed.
        old_ids: Ids to keep, ascending; the new ids are 0, 1, 2, ….

    Returns:
        A tokenizer of the same class.

    Raises:
        ValueError: It cannot be rewritten.
    """
    new = {old: index for index, old in enumerate(old_ids)}
    state = _state(tokenizer)
    _trim_model(state["model"], new)
    state["added_tokens"] = [
        {**entry, "id": new[entry["id"]]} for entry in state["added_tokens"] if entry["id"] in new
    ]
    if state.get("padding"):
        state["padding"]["pad_id"] = new[state["padding"]["pad_id"]]
    _renumber_processor(state.get("post_processor"), new)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer.save_pretrained(folder)
        (folder / "tokenizer.json").write_text(json.dumps(state, ensure_ascii=False), encoding="utf-8")
        for file in (*_OLDER, "added_tokens.json"):
            (folder / file).unlink(missing_ok=True)
        _renumber_settings(folder / "tokenizer_config.json", new)
        trimmed = type(tokenizer).from_pretrained(folder)
    wanted = {piece: new[index] for piece, index in tokenizer.get_vocab().items() if index in new}
    if trimmed.get_vocab() != wanted:
        raise ValueError(
            f"Expected a {type(tokenizer).__name__} with {len(wanted)} pieces but transformers builds one with "
            f"{len(trimmed)} from the rewritten files; leave the vocabulary as it is."
        )
    trimmed.name_or_path = tokenizer.name_or_path
    return trimmed


def _trim_model(model: dict[str, Any], new: Mapping[int, int]) -> None:
    if model["type"] == "Unigram":
        model["vocab"] = [entry for index, entry in enumerate(model["vocab"]) if index in new]
        if model.get("unk_id") is not None:
            model["unk_id"] = new[model["unk_id"]]
        return
    model["vocab"] = {piece: new[index] for piece, index in model["vocab"].items() if index in new}
    if model["type"] == "BPE":
        pieces = model["vocab"]
        model["merges"] = [
            [first, second]
            for first, second in _merges(model)
            if first in pieces and second in pieces and _merged(model, first, second) in pieces
        ]


def _renumber_processor(processor: dict[str, Any] | None, new: Mapping[int, int]) -> None:
    """Renumber the special tokens that are put around texts."""
    if processor is None:
        return
    for part in processor.get("processors", []):
        _renumber_processor(part, new)
    for name in ("sep", "cls"):
        if name in processor:
            token, index = processor[name]
            processor[name] = [token, new[index]]
    special = processor.get("special_tokens")
    if isinstance(special, dict):
        for entry in special.values():
            entry["ids"] = [new[index] for index in entry["ids"]]


def _renumber_settings(path: Path, new: Mapping[int, int]) -> None:
    settings = json.loads(path.read_text(encoding="utf-8"))
    added = settings.get("added_tokens_decoder")
    if added:
        settings["added_tokens_decoder"] = {
            str(new[int(index)]): token for index, token in added.items() if int(index) in new
        }
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False), encoding="utf-8")
