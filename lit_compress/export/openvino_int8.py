"""OpenVINO files with int8 weights and activations, quantized after training by NNCF."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from lit_compress.benchmark.runtimes.base import Batch
from lit_compress.benchmark.runtimes.openvino import check_openvino
from lit_compress.export.openvino import convert, save_checked


def quantize_openvino(
    model: PreTrainedModel, path: str | Path, samples: Sequence[Batch], tolerance: float
) -> float:
    """Write a text classifier as an OpenVINO file with int8 weights and activations.

    Weights are quantized per output channel, embeddings too; activations with ranges taken from the samples. NNCF
    is told that it is a transformer: without, it quantizes the softmax and what is added around normalisations, and
    three predictions of ten become wrong.

    Args:
        model: The model; a copy with float32 weights is quantized.
        path: The ``.xml`` file, with the weights in a ``.bin`` beside it; they are there only after they have passed
            the parity check.
        samples: Real texts, one batch each.
        tolerance: Largest error that passes.

    Returns:
        The error that :func:`~lit_compress.export.parity.check_parity` found.

    Raises:
        ImportError: ``openvino`` or ``nncf`` is missing.
        ValueError: There are no samples, the model cannot be exported, or int8 changes the logits too much.
        OSError: The file could not be written.
    """
    check_openvino("nncf")
    if not samples:
        raise ValueError(
            "Expected sample texts to calibrate int8 activations with but got none; name the data."
        )
    model = copy.deepcopy(model).cpu().float().eval()
    converted = convert(model)
    names = [entry.any_name for entry in converted.inputs]
    with _quiet_nncf():
        import nncf

        quantized = nncf.quantize(
            converted,
            nncf.Dataset([_inputs(batch, names) for batch in samples]),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(samples),
        )
    return save_checked(quantized, Path(path), "int8", model, tolerance)


def _inputs(batch: Batch, names: Sequence[str]) -> Batch:
    zeros = np.zeros_like(batch["input_ids"])
    return {name: batch.get(name, zeros) for name in names}


@contextlib.contextmanager
def _quiet_nncf() -> Iterator[None]:
    """Silence the log and the progress bars of NNCF, which go to stdout, and keep its kind of logger to itself."""
    kind = logging.getLoggerClass()
    with contextlib.redirect_stdout(io.StringIO()):
        import nncf

        logging.setLoggerClass(kind)
        nncf.set_log_level(logging.ERROR)
        yield
