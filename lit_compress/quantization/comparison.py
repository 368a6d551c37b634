"""What a model says on some texts, before and after it was changed."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lit_compress.benchmark.candidates import texts_of_models
from lit_compress.benchmark.quality import Texts
from lit_compress.quantization.text_file import TextFile

Known = Texts | TextFile
# Texts on which the result is compared with the original, and tokens of a block where there are none.
_COMPARED = 256
_LENGTH = 128
#: Files with a data section; others are plain text.
CONFIGS = (".yaml", ".yml")


def known_texts(
    place: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    data: str | None,
    length: int | None,
) -> Known | None:
    """Find the texts that a command line names.

    Args:
        place: The model folder.
        model: The model.
        tokenizer: Its tokenizer.
        data: YAML file with a ``data`` section, the ``config.yaml`` of the folder's run where ``None``; or, for a
            language model, a text file.
        length: Tokens per block of a text file, 128 where ``None``.

    Returns:
        The texts; ``None`` where nothing names some.

    Raises:
        ValueError: They cannot be used, or do not fit the model.
    """
    if data is None or Path(data).suffix in CONFIGS:
        if length is not None:
            raise ValueError(
                f"Expected a text file with --data for --length {length} but got {data or 'none'}; leave --length out."
            )
        return texts_of_models([place], data, "validation")
    if not model.can_generate():
        raise ValueError(
            f"Expected a YAML file with a data section with --data but got {data}: {place} holds a "
            f"{type(model).__name__}, and plain text is for language models."
        )
    if tokenizer is None:
        raise ValueError(
            f"Expected a tokenizer in {place} to read {data} with but there is none; save it there."
        )
    return TextFile(Path(data), tokenizer, _LENGTH if length is None else length)


@torch.inference_mode()
def answers(model: PreTrainedModel, known: Known | None) -> Tensor | None:
    """Return the logits of some texts, or the losses of a language model; ``None`` where there are no texts."""
    if known is None:
        return None
    if isinstance(known, TextFile):
        return known.losses(model)
    found: list[Tensor] = []
    for batch, _ in known.batches("student"):
        found.append(model(**{name: torch.from_numpy(value) for name, value in batch.items()}).logits.float())
        if sum(map(len, found)) >= _COMPARED:
            break
    return torch.cat(found)[:_COMPARED]


def compared(before: Tensor, after: Tensor, known: Known) -> str:
    """Say how far apart the answers are, in one sentence.

    Args:
        before: What :func:`answers` gave for the original.
        after: What it gave for the new model.
        known: The texts.
    """
    if isinstance(known, TextFile):
        return known.compared(before, after)
    error = float((after - before).square().mean().sqrt() / before.square().mean().sqrt())
    words = f"On {len(before)} texts of {known.split} the logits differ by {100 * error:.2g} % of their size"
    if before.shape[1] > 1:
        same = float((before.argmax(1) == after.argmax(1)).float().mean())
        words += f", and {100 * same:.1f} % get the same label"
    return f"{words}."
