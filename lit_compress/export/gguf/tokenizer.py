"""A tokenizer in the terms of a GGUF file: WordPiece, byte-level BPE, and BPE with byte fallback.

llama.cpp has its own code for what happens before the vocabulary is looked up, and a file only names it. So what a
tokenizer does there is compared with what that code does, and refused where it is something else.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

_NORMAL, _UNKNOWN, _CONTROL, _USER, _UNUSED, _BYTE = range(1, 7)
_WORD_START = "▁"
# The regular expressions that split a text into words, by llama.cpp's name for them.
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_HEAD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_SPLITS = {_HEAD + r"\p{N}{1,3}" + _TAIL: "llama-bpe", _HEAD + r"\p{N}" + _TAIL: "qwen2"}


def tokenizer_fields(folder: Path, rows: int) -> dict[str, Any]:
    """Return the metadata of the tokenizer.

    Args:
        folder: Model folder with a fast tokenizer (``tokenizer.json``).
        rows: Rows of the word embedding; ids without a token get a name that no text has.

    Returns:
        Fields by their full name.

    Raises:
        ValueError: There is no tokenizer, it does not fit the embedding, or llama.cpp has no such tokenizer.
    """
    tokenizer = _load(folder)
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    if len(tokenizer) > rows:
        raise ValueError(
            f"Expected at most as many tokens as the {rows} rows of the word embedding but got {len(tokenizer)} in the "
            f"tokenizer of {folder}; it belongs to another model: put the right tokenizer.json into the folder."
        )
    pieces, kinds = _pieces(tokenizer, spec, rows)
    kind = spec["model"]["type"]
    if kind == "WordPiece":
        fields = _word_pieces(spec, pieces, kinds)
    elif kind == "BPE" and spec["model"].get("byte_fallback"):
        fields = _sentence_pieces(spec, pieces, kinds)
    elif kind == "BPE":
        fields = _byte_level(spec, tokenizer)
    else:
        raise _unknown(f"the model {kind}")
    named = {f"tokenizer.ggml.{name}": value for name, value in (fields | _special(tokenizer)).items()}
    if isinstance(tokenizer.chat_template, str):
        named["tokenizer.chat_template"] = tokenizer.chat_template
    return {**named, "tokenizer.ggml.tokens": pieces, "tokenizer.ggml.token_type": kinds}


def _load(folder: Path) -> PreTrainedTokenizerBase:
    if not (folder / "tokenizer.json").is_file():
        raise ValueError(
            f"Expected a fast tokenizer (tokenizer.json) in {folder} but there is none; a GGUF file holds its "
            "tokenizer: save one there with tokenizer.save_pretrained."
        )
    # Not AutoTokenizer: for some families it builds a tokenizer of its own around the vocabulary.
    return PreTrainedTokenizerFast.from_pretrained(str(folder))


def _pieces(tokenizer: Any, spec: dict[str, Any], rows: int) -> tuple[list[str], list[int]]:
    pieces = [tokenizer.backend_tokenizer.id_to_token(index) for index in range(rows)]
    kinds = [_UNUSED if piece is None else _NORMAL for piece in pieces]
    for entry in spec["added_tokens"]:
        kinds[entry["id"]] = _CONTROL if entry["special"] else _USER
    return [f"[PAD{index}]" if piece is None else piece for index, piece in enumerate(pieces)], kinds


def _special(tokenizer: Any) -> dict[str, Any]:
    names = {
        "bos": "cls",
        "eos": "eos",
        "unknown": "unk",
        "seperator": "sep",
        "padding": "pad",
        "mask": "mask",
    }
    ids = {name: getattr(tokenizer, f"{ours}_token_id") for name, ours in names.items()}
    if tokenizer.bos_token_id is not None:
        ids["bos"] = tokenizer.bos_token_id
    first, last = ids["bos"], ids["eos"] if ids["seperator"] is None else ids["seperator"]
    around = list(tokenizer("")["input_ids"])
    if around not in [[], [first], [last], [first, last]]:
        raise _unknown(f"the special tokens {tokenizer.convert_ids_to_tokens(around)} around a text")
    return {
        **{f"{name}_token_id": number for name, number in ids.items() if number is not None},
        "add_bos_token": first is not None and first in around[:1],
        "add_eos_token": last is not None and last in around[-1:],
    }


def _word_pieces(spec: dict[str, Any], pieces: list[str], kinds: list[int]) -> dict[str, Any]:
    normalizer = spec["normalizer"] or {}
    splitter = (spec["pre_tokenizer"] or {}).get("type")
    prefix = spec["model"]["continuing_subword_prefix"]
    if normalizer.get("type") != "BertNormalizer" or splitter != "BertPreTokenizer" or prefix != "##":
        raise _unknown("WordPiece with another normalizer, splitter or prefix than BERT's")
    if not (normalizer["clean_text"] and normalizer["handle_chinese_chars"]):
        raise _unknown("WordPiece that does not clean the text or does not split Chinese characters")
    for index, piece in enumerate(pieces):
        if kinds[index] == _NORMAL:
            pieces[index] = piece[len(prefix) :] if piece.startswith(prefix) else _WORD_START + piece
    lowercase, accents = normalizer["lowercase"], normalizer["strip_accents"]
    return {
        "model": "bert",
        "pre": "default",
        "normalizer.lowercase": lowercase,
        "normalizer.strip_accents": lowercase if accents is None else accents,
    }


def _byte_level(spec: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    normalizer = (spec["normalizer"] or {}).get("type")
    if normalizer not in (None, "NFC"):
        raise _unknown(f"byte-level BPE with the normalizer {normalizer}")
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in spec["model"]["merges"]]
    pre = _split_name(spec["pre_tokenizer"] or {})
    if tokenizer.cls_token_id is not None and pre == "gpt-2":
        pre = "roberta-bpe"
    return {"model": "gpt2", "pre": pre, "merges": merges}


def _split_name(step: dict[str, Any]) -> str:
    steps = step.get("pretokenizers", [step])
    last = steps[-1]
    plain = last.get("type") == "ByteLevel" and not last["add_prefix_space"]
    if plain and len(steps) == 1 and last["use_regex"]:
        return "gpt-2"
    if plain and len(steps) == 2 and not last["use_regex"] and steps[0]["type"] == "Split":
        pattern = steps[0]["pattern"].get("Regex")
        if pattern in _SPLITS and steps[0]["behavior"] == "Isolated" and not steps[0]["invert"]:
            return _SPLITS[pattern]
    raise _unknown("byte-level BPE that splits words in a way other than GPT-2, Llama 3 and Qwen 2")


def _sentence_pieces(spec: dict[str, Any], pieces: list[str], kinds: list[int]) -> dict[str, Any]:
    prefixed = _prepends(spec)
    scores = [0.0] * len(pieces)
    ids = {piece: index for index, piece in enumerate(pieces)}
    # llama.cpp has no list of merges; of two neighbours it joins those whose piece has the highest score.
    for rank, merge in reversed(list(enumerate(spec["model"]["merges"]))):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        scores[ids["".join(pair)]] = -1.0 - rank
    for index, piece in enumerate(pieces):
        if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            kinds[index] = _BYTE
    if spec["model"]["unk_token"] in ids:
        kinds[ids[spec["model"]["unk_token"]]] = _UNKNOWN
    return {"model": "llama", "pre": "default", "scores": scores, "add_space_prefix": prefixed}


def _prepends(spec: dict[str, Any]) -> bool:
    """Return whether a text begins with a space, for the two ways in which SentencePiece models are written."""
    splitter, normalizer = spec["pre_tokenizer"], spec["normalizer"]
    if splitter is None and normalizer is not None:
        steps = normalizer.get("normalizers", [normalizer])
        kinds = [step["type"] for step in steps]
        replaced = steps[-1].get("pattern") == {"String": " "} and steps[-1].get("content") == "▁"
        if replaced and kinds in (["Prepend", "Replace"], ["Replace"]):
            return kinds[0] == "Prepend"
    if (
        normalizer is None
        and splitter is not None
        and splitter["type"] == "Metaspace"
        and not splitter["split"]
    ):
        return splitter["prepend_scheme"] != "never"
    raise _unknown("BPE with byte fallback that prepares its texts in a way other than Llama 2 and Mistral")


def _unknown(what: str) -> ValueError:
    return ValueError(
        f"Expected a tokenizer that llama.cpp has too but got one with {what}; use another format, such as onnx."
    )
