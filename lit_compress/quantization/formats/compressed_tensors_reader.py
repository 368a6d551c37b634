"""Reading the compressed-tensors format: what transformers leaves to the first forward pass is done at once."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

from transformers import PreTrainedModel

from lit_compress.extras import require


def require_compressed_tensors(purpose: str) -> None:
    """Refuse where the package is missing.

    Args:
        purpose: What it is needed for.

    Raises:
        ImportError: Names the command that installs it.
    """
    require("compressed-tensors", purpose, "compressed_tensors")


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Silence the progress bars of the package, which has no switch for them."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield


def unpack_weights(model: PreTrainedModel) -> None:
    """Give a model that transformers has loaded the weights that its integers stand for, in place.

    Else it has none until its first forward pass, and there is nothing to count, to measure or to prune.

    Args:
        model: The model.
    """
    loaded: Any = model
    loaded.hf_quantizer.compressor.decompress_model(model)
