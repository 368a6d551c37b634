"""Linear grids: the nearest value, GPTQ or AWQ."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from transformers import PreTrainedModel

from lit_compress.quantization.inputs import DYNAMIC
from lit_compress.quantization.mixed.file import read_mixed
from lit_compress.quantization.post_training import quantize_model
from lit_compress.quantization.samples import Samples
from lit_compress.quantization.scheme import Scheme

# Of what a file of mixed bits stands for.
_DEFAULTS = (8, None, 8, None, None, None)
_ACTIVATIONS = ("none", "static", DYNAMIC)


def linear(
    method: str,
    model: PreTrainedModel,
    samples: Samples,
    tell: Callable[[str, float], None],
    *,
    bits: int = 8,
    group_size: int | None = None,
    embedding_bits: int = 8,
    embedding_group_size: int | None = None,
    activations: str = "none",
    ranges: str = "mse",
    smooth: float | None = None,
    texts: int = 128,
    seed: int | None = None,
    include: list[str] | None = None,
    exclude: list[str] | None = None,
    mixed: str | None = None,
) -> dict[str, Any]:
    """Round every weight to a value of its grid.

    Args:
        method: ``nearest`` value; or ``gptq`` (arXiv:2210.17323) or ``awq`` (arXiv:2306.00978), which keep the
            outputs of every layer near.
        model: Changed in place.
        samples: Read for ``gptq``, ``awq`` and for static activations.
        tell: Told what is done, and which share of it.
        bits: Bits per weight of the projections.
        group_size: Consecutive inputs that share a scale; all inputs of an output where ``None``.
        embedding_bits: Bits per weight of the embeddings; 0 leaves them as they are.
        embedding_group_size: Consecutive numbers of an embedding that share a scale; all where ``None``.
        activations: ``none``; ``static``, 8 bits with ranges that texts show; ``dynamic``, with that of each batch.
        ranges: How static ranges are found: ``mse``, ``percentile``, ``min_max`` or ``moving_average``.
        smooth: How much of the outliers of activations the weights take before both are rounded, 0 to 1
            (SmoothQuant, arXiv:2211.10438); nothing is moved where ``None``.
        texts: Training texts to calibrate with.
        seed: Draws these at random.
        include: Parts of the names of projections and embeddings to round; all where ``None``.
        exclude: Parts of the names of those to leave as they are.
        mixed: File with the bits of every matrix, which ``lit-compress sensitivity`` writes, in the place of all that
            says how weights are rounded; for ``nearest`` and ``gptq``.

    Returns:
        What was done, for the manifest.

    Raises:
        ValueError: A setting or the texts cannot be used, or do not fit the model.
    """
    if activations not in _ACTIVATIONS:
        raise ValueError(
            f"Expected activations to be one of {', '.join(_ACTIVATIONS)} but got {activations!r}."
        )
    weights: Scheme | dict[str, Scheme] = _scheme(bits, group_size)
    tables = _scheme(embedding_bits, embedding_group_size) if embedding_bits else None
    if mixed is not None:
        if (bits, group_size, embedding_bits, embedding_group_size, include, exclude) != _DEFAULTS:
            raise ValueError(
                "Expected either --mixed, whose file says how every matrix is rounded, or --bits, --group-size, "
                "--embedding-bits, --embedding-group-size, --include and --exclude, but got both; leave one out."
            )
        weights, tables = read_mixed(mixed, model), None
    rounded = None if activations == "none" else Scheme(8, False, "tensor")
    needs = method != "nearest" or activations == "static" or smooth is not None
    quantize_model(
        model,
        weights,
        tables,
        rounded,
        DYNAMIC if activations == DYNAMIC else ranges,
        method,
        samples.batches(texts, seed) if needs else (),
        include,
        exclude or [],
        tell=tell,
        smooth=smooth,
    )
    facts: dict[str, Any] = {
        "weights": str(weights),
        "embeddings": None if tables is None else str(tables),
        "activations": activations,
    }
    if not isinstance(weights, Scheme):
        facts = {
            "mixed": {name: str(scheme) for name, scheme in weights.items()},
            "activations": activations,
        }
    facts |= {} if smooth is None else {"smooth": smooth}
    return {**facts, "texts": texts, "seed": seed, "ranges": ranges} if needs else facts


def _scheme(bits: int, group_size: int | None) -> Scheme:
    return Scheme(bits, True, "channel" if group_size is None else "group", group_size)


nearest = partial(linear, "nearest")
gptq = partial(linear, "gptq")
awq = partial(linear, "awq")
