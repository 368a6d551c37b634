"""Linear grids: the nearest value, GPTQ or AWQ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from transformers import PreTrainedModel

from lit_compress.quantization.inputs import DYNAMIC, OBSERVERS
from lit_compress.quantization.mixed.file import read_mixed
from lit_compress.quantization.post_training import quantize_model
from lit_compress.quantization.samples import Samples
from lit_compress.quantization.scheme import Scheme

_RANGES, _TEXTS, _PER, _ACTIVATION_BITS = "mse", 128, "channel", 8
# Of what a file of mixed bits stands for.
_DEFAULTS = (8, None, 8, None, None, None, _PER, False)
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
    per: str = _PER,
    zero_points: bool = False,
    activations: str = "none",
    activation_bits: int = _ACTIVATION_BITS,
    ranges: str = _RANGES,
    smooth: float | None = None,
    texts: int = _TEXTS,
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
        per: What shares a scale where ``group_size`` is ``None``: an output ``channel``, or the whole ``tensor``.
        zero_points: Whether the grids of projections and embeddings cover the least to the largest weight, and not as
            much on both sides of zero.
        activations: ``none``; ``static``, with ranges that texts show; ``dynamic``, with that of each batch.
        activation_bits: Bits of the activations.
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
    if ranges not in OBSERVERS:
        raise ValueError(f"Expected ranges to be one of {', '.join(OBSERVERS)} but got {ranges!r}.")
    if activations not in _ACTIVATIONS:
        raise ValueError(
            f"Expected activations to be one of {', '.join(_ACTIVATIONS)} but got {activations!r}."
        )
    if group_size is not None and per != _PER:
        raise ValueError(
            f"Expected either --group-size or --per but got {group_size} and {per!r}; leave one of them out."
        )
    weights: Scheme | dict[str, Scheme] = _scheme(bits, group_size, per, zero_points)
    tables = _scheme(embedding_bits, embedding_group_size, _PER, zero_points) if embedding_bits else None
    if mixed is not None:
        given = (bits, group_size, embedding_bits, embedding_group_size, include, exclude, per, zero_points)
        if given != _DEFAULTS:
            raise ValueError(
                "Expected either --mixed, whose file says how every matrix is rounded, or --bits, --group-size, --per, "
                "--zero-points, --embedding-bits, --embedding-group-size, --include and --exclude, but got both; leave "
                "one out."
            )
        weights, tables = read_mixed(mixed, model), None
    rounded = None if activations == "none" else Scheme(activation_bits, False, "tensor")
    needs = method != "nearest" or activations == "static" or smooth is not None
    _refuse_idle(
        {
            f"--activations static with --ranges {ranges}": ranges != _RANGES and activations != "static",
            f"--activations static or dynamic with --activation-bits {activation_bits}": rounded is None
            and activation_bits != _ACTIVATION_BITS,
            "gptq, awq, --smooth or --activations static with --texts and --seed": not needs
            and (texts != _TEXTS or seed is not None),
            f"embeddings that are rounded with --embedding-group-size {embedding_group_size}": tables is None
            and mixed is None
            and embedding_group_size is not None,
        }
    )
    batches = samples.batches(texts, seed) if needs else ()
    quantize_model(
        model,
        weights,
        tables,
        rounded,
        DYNAMIC if activations == DYNAMIC else ranges,
        method,
        batches,
        include,
        exclude or [],
        tell=tell,
        smooth=smooth,
    )
    facts: dict[str, Any] = {"activations": activations if rounded is None else f"{activations} {rounded}"}
    if isinstance(weights, Scheme):
        facts |= {"weights": str(weights), "embeddings": None if tables is None else str(tables)}
    else:
        facts["mixed"] = {name: str(scheme) for name, scheme in weights.items()}
    facts |= {} if smooth is None else {"smooth": smooth}
    return {**facts, "texts": len(batches), "seed": seed, "ranges": ranges} if needs else facts


def _refuse_idle(wanted: Mapping[str, bool]) -> None:
    """Refuse an option that would do nothing; by what it needs, whether that is missing."""
    for text, idle in wanted.items():
        if idle:
            raise ValueError(f"Expected {text}, which does nothing without; leave it out.")


def _scheme(bits: int, group_size: int | None, per: str, zero_points: bool) -> Scheme:
    return Scheme(bits, not zero_points, per if group_size is None else "group", group_size)


nearest = partial(linear, "nearest")
gptq = partial(linear, "gptq")
awq = partial(linear, "awq")
