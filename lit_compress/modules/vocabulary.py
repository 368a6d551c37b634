"""Token ids that a model cannot know are refused: an embedding answers any id below its size, right or wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedModel

from lit_compress.models.architecture import describe
from lit_compress.models.names import resolve_model


def check_embedding(model: PreTrainedModel, tokenizer: Any, model_name: str, key: str) -> None:
    """Refuse a tokenizer with more entries than the model has word embeddings.

    Args:
        model: The model that will see the token ids.
        tokenizer: The tokenizer that makes them.
        model_name: What the model is called in the message.
        key: The option that names the tokenizer.

    Raises:
        ValueError: Some token ids have no embedding.
    """
    rows = describe(model).vocab_size
    if rows is not None and tokenizer is not None and len(tokenizer) > rows:
        raise ValueError(
            f"Expected a tokenizer of at most {rows} tokens, the embeddings of {model_name}, but {key} has "
            f"{len(tokenizer)}; give the tokenizer that {model_name} was made for, or set vocab_size of the student."
        )


def check_teacher_vocabulary(source: str | None, tokenizer: Any, key: str) -> None:
    """Refuse a tokenizer that is not the one in the teacher's folder.

    Two vocabularies of the same size fit every embedding, and the teacher then answers about other words.

    Args:
        source: Folder, hub name or ``package:NAME`` of the teacher.
        tokenizer: The tokenizer whose ids the teacher will see.
        key: The option that names the tokenizer.

    Raises:
        ValueError: The vocabularies differ.
    """
    folder = Path(resolve_model(source)) if source is not None else None
    if folder is None or not (folder / "tokenizer.json").is_file():
        return
    own = AutoTokenizer.from_pretrained(str(folder))
    if own.get_vocab() != tokenizer.get_vocab():
        raise ValueError(
            f"Expected the teacher to see its own tokens but {key} has another vocabulary ({len(tokenizer)} tokens) "
            f"than the tokenizer in {source} ({len(own)} tokens); set data.teacher_tokenizer={source}."
        )
