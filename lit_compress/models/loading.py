"""Load weights with transformers, quietly but strictly."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as hf_logging

from lit_compress.quantization.formats.bnb_check import require_bitsandbytes
from lit_compress.quantization.formats.compressed_tensors_reader import (
    require_compressed_tensors,
    unpack_weights,
    without_bars,
)

#: A weight of an encoder block, in the naming of every supported family.
_BLOCK = re.compile(r"(^|\.)layers?\.\d+\.")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' progress bar and load report; what matters in them is checked by the caller."""
    verbosity, bar = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bar:
            hf_logging.enable_progress_bar()


def load_model(
    auto: Any, source: str, config: PreTrainedConfig, dtype: torch.dtype | str, new_head: bool = False
) -> PreTrainedModel:
    """Load a model and refuse every weight that is missing, left over or of another shape.

    Args:
        auto: An auto class or a model class.
        source: Folder or hub name, as ``resolve_model`` returns it.
        config: The configuration to build.
        dtype: Type of the weights in memory; ``"auto"`` keeps that of the file.
        new_head: Whether the head and the pooler may be missing from the file (and are then initialised from
            torch's global random numbers), and whether weights of another head may be
            left over.

    Returns:
        The model.

    Raises:
        ValueError: The weights cannot be read or do not fit the configuration.
        ImportError: They need a package that is missing.
    """
    extra: dict[str, Any] = {}
    library = written_by(config)
    if library == "bitsandbytes":
        extra["device_map"] = {"": "cpu"}  # else such models go to the first GPU
        require_bitsandbytes(f"the weights in {source}")
    if library == "compressed-tensors":
        require_compressed_tensors(f"the weights in {source}")
    try:
        with quiet(), without_bars() if library == "compressed-tensors" else nullcontext():
            model, info = auto.from_pretrained(
                source,
                config=config,
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported below, with the names
                use_safetensors=True,
                trust_remote_code=False,
                **extra,
            )
            if library == "compressed-tensors":
                unpack_weights(model)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(unreadable(source, error)) from error
    mismatched = [
        f"{name} (file {list(old)}, model {list(new)})" for name, old, new in info["mismatched_keys"]
    ]
    missing, unexpected = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    if new_head:
        missing = [name for name in missing if _in_encoder(model, name)]
        unexpected = [name for name in unexpected if _BLOCK.search(name)]
    refuse_misfit(type(model).__name__, source, mismatched, missing, unexpected)
    return model


def written_by(config: PreTrainedConfig) -> str | None:
    """Return the library of the quantized weights that a configuration describes, ``None`` for ordinary ones."""
    settings = getattr(config, "quantization_config", None)
    if settings is None:
        return None
    method = settings["quant_method"] if isinstance(settings, dict) else settings.quant_method
    return str(getattr(method, "value", method))


def refuse_misfit(
    model: str, source: str, mismatched: list[str], missing: list[str], unexpected: list[str]
) -> None:
    """Refuse weights that do not fit a model.

    Args:
        model: Class of the model, for the message.
        source: Where the weights come from.
        mismatched: Names, with both shapes, of weights of another shape.
        missing: Names of weights that are not there.
        unexpected: Names of weights that the model does not have.

    Raises:
        ValueError: Any of them is not empty.
    """
    problems = {"of another shape": mismatched, "missing": missing, "not part of the model": unexpected}
    found = "; ".join(f"{len(names)} {what}: {_first(names)}" for what, names in problems.items() if names)
    if found:
        raise ValueError(
            f"Expected weights for {model} in {source} but got {found}; "
            "give the folder that save_pretrained wrote for this model, with its own config.json."
        )


def unreadable(source: str, error: Exception) -> str:
    """Return the message for a model that transformers cannot read."""
    reason = " ".join(str(error).split())[:300]
    return (
        f"Expected a readable model at {source!r} but got {type(error).__name__}: {reason}; give a local "
        "folder with config.json and *.safetensors, a hub name with HF_HUB_OFFLINE unset, or package:NAME."
    )


def _in_encoder(model: PreTrainedModel, name: str) -> bool:
    return name.startswith(f"{model.base_model_prefix}.") and ".pooler." not in name


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
