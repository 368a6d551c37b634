"""The way of every verb that changes a finished model without training: open, change, write, compare."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from lit_compress.benchmark.folders import local_folder, weight_bytes
from lit_compress.benchmark.run_config import DATA_FILE, known_data
from lit_compress.models.card import model_card
from lit_compress.models.checkpoint import check_place, load, save_folder
from lit_compress.models.transforms import transforms_of
from lit_compress.pruning.source import open_source
from lit_compress.quantization.comparison import CONFIGS, answers, compared, known_texts
from lit_compress.quantization.formats.compressed_tensors import save_compressed_tensors
from lit_compress.quantization.formats.compressed_tensors_reader import require_compressed_tensors
from lit_compress.quantization.progress import progress
from lit_compress.quantization.samples import Samples

OWN, COMPRESSED_TENSORS = "lit-compress", "compressed-tensors"
#: What writes a folder in a format, with the arguments of :func:`~lit_compress.models.checkpoint.save_folder`.
FORMATS: dict[str, Callable[..., Path]] = {OWN: save_folder, COMPRESSED_TENSORS: save_compressed_tensors}
#: Changes a model in place, and returns facts for the manifest.
Change = Callable[[PreTrainedModel, Samples, Callable[[str, float], None]], dict[str, Any]]


def change_folder(
    folder: str,
    out: str,
    change: Change,
    data: str | None = None,
    length: int | None = None,
    form: str = OWN,
) -> Path:
    """Write the folder of a model that was changed without training, and say what that did to it.

    Args:
        folder: Model folder, hub name or ``package:NAME``.
        out: The new model folder.
        change: Changes the model.
        data: YAML file with a ``data`` section, the ``config.yaml`` of the folder's run where ``None``; or, for a
            language model, a text file.
        length: Tokens per block of a text file.
        form: Format of the new folder, one of :data:`FORMATS`.

    Returns:
        The new folder.

    Raises:
        ValueError: A setting or the data cannot be used, or they do not fit the model.
        ImportError: The format needs a package that is missing.
    """
    if form not in FORMATS:
        raise ValueError(f"Expected a format among {', '.join(FORMATS)} but got {form!r}; change --format.")
    if form == COMPRESSED_TENSORS:
        require_compressed_tensors(f"the format {form}")
    place = local_folder(folder)
    check_place(Path(out).absolute(), place)
    found = open_source(str(place))
    model = found.model
    with progress() as tell:
        tell("reading the data", None)
        known = known_texts(place, model, found.tokenizer, data, length)
        before = answers(model, known)
        kept = {key: value for key, value in found.facts.items() if key != "metrics"}
        facts = {**kept, **_data_facts(place, out, data), **change(model, Samples(known), tell)}
        kind = {
            "ragged": form == OWN and bool(transforms_of(model)),
            "is_language_model": model.can_generate(),
        }
        card = model_card({**facts, **kind})
        path = FORMATS[form](out, model, found.tokenizer, facts, card)
        tell("comparing with the original", None)
        # What is compared is what was written.
        after = answers(load(path), known)
    size, full = weight_bytes(path), weight_bytes(place)
    print(f"Model folder: {path}: {size / 1e6:,.1f} MB, {size / full:.3f} of {folder}")
    if before is not None and after is not None and known is not None:
        print(compared(before, after, known))
    return path


def _data_facts(place: Path, out: str, data: str | None) -> dict[str, str]:
    """Return what leads from the new folder to its data, which lies in no run; a plain text has no labels."""
    file = Path(data) if data is not None else known_data(place)
    if file is None or file.suffix not in CONFIGS:
        return {}
    return {DATA_FILE: Path(os.path.relpath(file.resolve(), Path(out).resolve())).as_posix()}
