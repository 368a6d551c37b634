"""Load a tokenizer by the names that recipes use."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from lit_compress.models.names import resolve_model


def load_tokenizer(name: str, max_length: int, option: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer that can pad and has the wanted length.

    Args:
        name: Folder, hub name or ``package:NAME``.
        max_length: Longest row in tokens.
        option: Name of the option, for messages.

    Returns:
        The tokenizer.

    Raises:
        ValueError: It cannot be loaded, is empty, has no padding token or allows fewer tokens.
    """
    folder = Path(name).expanduser()
    # A folder may hold a tokenizer without a model, which resolve_model refuses.
    location = str(folder.resolve()) if _has_tokenizer(folder) else resolve_model(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(location)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"Expected a tokenizer for {option}={name!r} but it cannot be loaded from {location} "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}); give a folder with "
            "tokenizer.json, or a hub name while the hub is reachable."
        ) from error
    _check(tokenizer, name, max_length, option)
    return tokenizer


def _has_tokenizer(folder: Path) -> bool:
    names = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model")
    return any((folder / name).is_file() for name in names)


def _check(tokenizer: PreTrainedTokenizerBase, name: str, max_length: int, option: str) -> None:
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise ValueError(
            f"Expected a vocabulary in the tokenizer {option}={name!r} but it knows {len(tokenizer)} tokens; "
            "its folder lacks tokenizer.json: save the tokenizer with the model."
        )
    if tokenizer.pad_token_id is None:
        raise ValueError(
            f"Expected a padding token in the tokenizer {option}={name!r} but it has none; set one "
            "(tokenizer.pad_token = tokenizer.eos_token), save the tokenizer to a folder and give that."
        )
    if max_length > tokenizer.model_max_length:
        raise ValueError(
            f"Expected max_length <= {tokenizer.model_max_length}, the limit of {option}={name!r}, but got "
            f"{max_length}; lower data.max_length."
        )


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a hash of everything that decides how text becomes token ids."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        state = json.loads(backend.to_str())
        # Every call leaves its padding and truncation behind in the tokenizer.
        state = {key: value for key, value in state.items() if key not in ("padding", "truncation")}
    else:
        state = {
            "vocabulary": tokenizer.get_vocab(),
            "arguments": repr(sorted(tokenizer.init_kwargs.items())),
        }
    facts = [type(tokenizer).__name__, tokenizer.pad_token_id, tokenizer.truncation_side, state]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
