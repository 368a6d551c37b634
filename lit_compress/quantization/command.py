"""``lit-compress quantize``: a model folder in, the folder of a model of few bits out, without training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from torch import Tensor
from transformers import PreTrainedModel

from lit_compress.benchmark.candidates import texts_of_models
from lit_compress.benchmark.folders import local_folder, weight_bytes
from lit_compress.benchmark.quality import Texts
from lit_compress.models.card import model_card
from lit_compress.models.checkpoint import check_place, load, save_folder
from lit_compress.models.transforms import transforms_of
from lit_compress.pruning.source import open_source
from lit_compress.quantization.methods import method_for
from lit_compress.quantization.samples import Samples

# Texts on which the result is compared with the original.
_COMPARED = 256


def quantize_folder(
    folder: str, out: str, method: str = "nearest", data: str | None = None, **options: Any
) -> Path:
    """Write the folder of a model with fewer bits.

    Args:
        folder: Model folder, hub name or ``package:NAME``.
        out: The new model folder.
        method: Name in :data:`~lit_compress.quantization.methods.METHODS`.
        data: YAML file with a ``data`` section; the ``config.yaml`` of the folder's run where ``None``.
        **options: Options of the method, see :mod:`lit_compress.quantization.methods`.

    Returns:
        The new folder.

    Raises:
        ValueError: A setting or the data cannot be used, or they do not fit the model.
    """
    change = method_for(method, options)
    check_place(Path(out).absolute())
    place = local_folder(folder)
    found = open_source(str(place))
    model = found.model
    with _progress() as tell:
        tell("reading the data", None)
        known = texts_of_models([place], data, "validation")
        before = _logits(model, known)
        settings = {"method": method, **change(model, Samples(known), tell, **options)}
        facts = {key: value for key, value in found.facts.items() if key != "metrics"}
        facts = {**facts, "quantization": settings, "quantized_from": str(folder)}
        card = model_card({**facts, "ragged": bool(transforms_of(model))})
        path = save_folder(out, model, found.tokenizer, facts, card)
        tell("comparing with the original", None)
        # What is compared is what was written.
        after = _logits(load(path), known)
    size, full = weight_bytes(path), weight_bytes(place)
    print(f"Model folder: {path}: {size / 1e6:,.1f} MB, {size / full:.3f} of {folder}")
    if before is not None and after is not None:
        print(_compared(before, after, known))
    return path


@torch.inference_mode()
def _logits(model: PreTrainedModel, known: Texts | None) -> Tensor | None:
    """Return the logits of some texts, ``None`` where there are none."""
    if known is None:
        return None
    found: list[Tensor] = []
    for batch, _ in known.batches("student"):
        found.append(model(**{name: torch.from_numpy(value) for name, value in batch.items()}).logits.float())
        if sum(map(len, found)) >= _COMPARED:
            break
    return torch.cat(found)[:_COMPARED]


def _compared(before: Tensor, after: Tensor, known: Texts | None) -> str:
    error = float((after - before).square().mean().sqrt() / before.square().mean().sqrt())
    where = f"{len(before)} texts of {known.split if known else 'the data'}"
    words = f"On {where} the logits differ by {100 * error:.2g} % of their size"
    if before.shape[1] > 1:
        same = float((before.argmax(1) == after.argmax(1)).float().mean())
        words += f", and {100 * same:.1f} % get the same label"
    return f"{words}."


@contextmanager
def _progress() -> Iterator[Any]:
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True) as bar:
        task = bar.add_task("starting", total=1.0)

        def tell(text: str, share: float | None) -> None:
            bar.update(task, description=text, completed=share or 0.0)

        yield tell
