"""The configuration from which a cut model is built again: that of the full one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from transformers import PreTrainedModel

from lit_compress.models.transforms import transforms_of


def full_entries(transforms: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Return the entries of the full model's configuration that a recorded structure has changed."""
    return {
        key: value
        for name, arguments in transforms
        if name == "shape"
        for key, value in arguments["config"].items()
    }


@contextmanager
def full_config(model: PreTrainedModel) -> Iterator[None]:
    """Give a cut model the configuration of the full one while it is written.

    Transformers neither writes nor reads a hidden width that the heads do not divide, which a cut may well leave. The
    structure that is written beside it makes the cut again.
    """
    entries = full_entries(transforms_of(model))
    before = {key: getattr(model.config, key) for key in entries}
    for key, value in entries.items():
        setattr(model.config, key, value)
    try:
        yield
    finally:
        for key, value in before.items():
            setattr(model.config, key, value)
