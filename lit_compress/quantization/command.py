"""``lit-compress quantize``: a model folder in, the folder of a model of few bits out, without training."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from lit_compress.quantization.methods import Method, method_for
from lit_compress.quantization.one_shot import COMPRESSED_TENSORS, OWN, change_folder
from lit_compress.quantization.post_training import METHODS as ROUNDING


def quantize_folder(
    folder: str,
    out: str,
    method: str = "nearest",
    data: str | None = None,
    length: int | None = None,
    form: str = OWN,
    **options: Any,
) -> Path:
    """Write the folder of a model with fewer bits.

    Args:
        folder: Model folder, hub name or ``package:NAME``.
        out: The new model folder.
        method: Name in :data:`~lit_compress.quantization.methods.METHODS`.
        data: YAML file with a ``data`` section, the ``config.yaml`` of the folder's run where ``None``; or, for a
            language model, a text file.
        length: Tokens per block of a text file.
        form: Format of the new folder: ``lit-compress``, or ``compressed-tensors``, which stock transformers loads
            where that package is installed; it leaves embeddings as they are.
        **options: Options of the method, see :mod:`lit_compress.quantization.methods`.

    Returns:
        The new folder.

    Raises:
        ValueError: A setting or the data cannot be used, or they do not fit the model.
    """
    if form == COMPRESSED_TENSORS:
        options = _for_compressed_tensors(method, options)
    change = partial(_quantize, folder, method, method_for(method, options), options)
    return change_folder(folder, out, change, data, length, form)


def _for_compressed_tensors(method: str, options: dict[str, Any]) -> dict[str, Any]:
    if method not in ROUNDING:
        raise ValueError(
            f"Expected a method among {', '.join(ROUNDING)} for --format {COMPRESSED_TENSORS} but got {method!r}; "
            "leave --format out."
        )
    if options.get("embedding_bits", 0):
        raise ValueError(
            f"Expected embeddings that stay as they are for --format {COMPRESSED_TENSORS}, which is for Linear layers "
            f"alone, but got --embedding-bits {options['embedding_bits']}; leave it out."
        )
    print(f"Embeddings stay as they are: the format {COMPRESSED_TENSORS} is for Linear layers alone.")
    return {**options, "embedding_bits": 0}


def _quantize(
    folder: str, method: str, function: Method, options: dict[str, Any], *rest: Any
) -> dict[str, Any]:
    return {"quantization": {"method": method, **function(*rest, **options)}, "quantized_from": str(folder)}
