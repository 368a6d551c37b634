"""``lit-compress quantize``: a model folder in, the folder of a model of few bits out, without training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from torch import Tensor, nn
from transformers import PreTrainedModel

from lit_compress.benchmark.candidates import texts_of_models
from lit_compress.benchmark.folders import local_folder, weight_bytes
from lit_compress.benchmark.quality import Texts
from lit_compress.models.card import model_card
from lit_compress.models.checkpoint import check_place, save_folder
from lit_compress.pruning.source import open_source
from lit_compress.quantization.inputs import DYNAMIC
from lit_compress.quantization.post_training import quantize_model
from lit_compress.quantization.scheme import Scheme

#: Types that all weights can be cast to instead.
CASTS = {"bf16": torch.bfloat16, "fp16": torch.float16}
_ACTIVATIONS = ("none", "static", DYNAMIC)
# Texts on which the result is compared with the original.
_COMPARED = 256


def quantize_folder(
    folder: str,
    out: str,
    method: str = "nearest",
    bits: int = 8,
    group_size: int | None = None,
    embedding_bits: int = 8,
    activations: str = "none",
    ranges: str = "mse",
    data: str | None = None,
    texts: int = 128,
    include: list[str] | None = None,
    exclude: list[str] | None = None,
) -> Path:
    """Write the folder of a model with fewer bits.

    Args:
        folder: Model folder, hub name or ``package:NAME``.
        out: The new model folder.
        method: ``nearest`` or ``gptq``; or ``bf16`` or ``fp16``, which cast all weights and round nothing.
        bits: Bits per weight of the projections.
        group_size: Consecutive inputs that share a scale; all inputs of an output where ``None``.
        embedding_bits: Bits per weight of the embeddings; 0 leaves them as they are.
        activations: ``none``; ``static``, 8 bits with ranges that texts show; ``dynamic``, with that of each batch.
        ranges: How static ranges are found: ``mse``, ``percentile``, ``min_max`` or ``moving_average``.
        data: YAML file with a ``data`` section; the ``config.yaml`` of the folder's run where ``None``.
        texts: Training texts to calibrate with.
        include: Parts of the names of projections and embeddings to round; all where ``None``.
        exclude: Parts of the names of those to leave as they are.

    Returns:
        The new folder.

    Raises:
        ValueError: A setting or the data cannot be used, or they do not fit the model.
    """
    if activations not in _ACTIVATIONS:
        raise ValueError(
            f"Expected activations to be one of {', '.join(_ACTIVATIONS)} but got {activations!r}."
        )
    if texts < 1:
        raise ValueError(f"Expected at least one text to calibrate with but got {texts}.")
    check_place(Path(out).absolute())
    place = local_folder(folder)
    found = open_source(str(place))
    model = found.model
    with _progress() as tell:
        tell("reading the data", None)
        known = texts_of_models([place], data, "validation")
        before = _logits(model, known)
        settings: dict[str, Any]
        if method in CASTS:
            nn.Module.to(model, dtype=CASTS[method])
            settings = {"method": method}
        else:
            weights = Scheme(bits, True, "channel" if group_size is None else "group", group_size)
            tables = Scheme(embedding_bits) if embedding_bits else None
            rounded = None if activations == "none" else Scheme(8, False, "tensor")
            settings = {
                "method": method,
                "weights": str(weights),
                "embeddings": None if tables is None else str(tables),
                "activations": activations,
            }
            needs = method == "gptq" or activations == "static"
            settings |= {"texts": texts, "ranges": ranges} if needs else {}
            quantize_model(
                model,
                weights,
                tables,
                rounded,
                DYNAMIC if activations == DYNAMIC else ranges,
                method,
                _samples(known, texts) if needs else (),
                include,
                exclude or [],
                tell=tell,
            )
        tell("comparing with the original", None)
        after = _logits(model, known)
    facts = {key: value for key, value in found.facts.items() if key != "metrics"}
    facts = {**facts, "quantization": settings, "quantized_from": str(folder)}
    path = save_folder(
        out, model, found.tokenizer, facts, model_card({**facts, "ragged": method not in CASTS})
    )
    size, full = weight_bytes(path), weight_bytes(place)
    print(f"Model folder: {path}: {size / 1e6:,.1f} MB, {size / full:.3f} of {folder}")
    if before is not None and after is not None:
        print(_compared(before, after, known))
    return path


def _samples(known: Texts | None, count: int) -> list[dict[str, Tensor]]:
    if known is None:
        raise ValueError(
            "Expected texts to calibrate with but nothing names data; give a YAML file with a data section with --data."
        )
    batches = known.samples("student", count)
    return [{name: torch.from_numpy(value) for name, value in batch.items()} for batch in batches]


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
