"""OpenVINO files: converted from a trace of the torch model, with free batch size and length.

The model is traced with the attention that it has: whether written as torch's fused attention or as products and a
softmax, OpenVINO makes one ``ScaledDotProductAttention`` of it, and the files are equally fast.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from lit_compress.benchmark.runtimes.base import Batch
from lit_compress.benchmark.runtimes.openvino import OpenVinoSession, check_openvino
from lit_compress.export.first_token import first_token_alone, last_attention
from lit_compress.export.logits import Logits, check_text_classifier, example_inputs
from lit_compress.export.parity import check_parity
from lit_compress.models.loading import quiet


def export_openvino(model: PreTrainedModel, path: str | Path, precision: str, tolerance: float) -> float:
    """Write a text classifier as an OpenVINO file with free batch size and length.

    Its inputs are the tokenizer's int64 ``input_ids`` and ``attention_mask``, and ``token_type_ids`` where the
    model tells segments apart; its output is the logits.

    Args:
        model: The model; a copy with float32 weights is exported.
        path: The ``.xml`` file, with the weights in a ``.bin`` beside it; they are there only after they have passed
            the parity check.
        precision: ``"fp32"``, or ``"bf16"``, whose file holds the weights in float16.
        tolerance: Largest error that passes.

    Returns:
        The error that :func:`~lit_compress.export.parity.check_parity` found.

    Raises:
        ImportError: ``openvino`` is missing.
        ValueError: The model cannot be exported, the file computes something else, or the processor lacks the
            precision.
        OSError: The file could not be written.
    """
    check_openvino()
    model = copy.deepcopy(model).cpu().float().eval()
    return save_checked(convert(model), Path(path), precision, model, tolerance)


def convert(model: PreTrainedModel) -> Any:
    """Return a model as an ``openvino.Model`` in float32, which computes one token where its head reads no other.

    Args:
        model: The model, on the CPU, in float32 and eval mode.

    Raises:
        ValueError: It is no text classifier, cannot be traced, or does something that OpenVINO has no operator for.
    """
    from lit_compress.export.infer.openvino import openvino

    check_text_classifier(model)
    try:
        narrow = first_token_alone(model, last_attention(model))
        with narrow, torch.inference_mode(), warnings.catch_warnings(), quiet():
            # Tracing is deprecated, and warns of every size that becomes a constant; the parity check at other
            # sizes finds the constants that matter.
            warnings.simplefilter("ignore")
            converted = openvino.convert_model(Logits(model).eval(), example_input=example_inputs(model))
    except Exception as error:  # whatever the code of a model does not do with traced tensors
        raise ValueError(
            f"Expected a text classifier that OpenVINO can convert but got {type(model).__name__}, which stops with "
            f"{type(error).__name__}: {_reason(error)}; use another runtime."
        ) from error
    converted.output(0).get_tensor().set_names({"logits"})  # as Optimum asks for it
    return converted


def save_checked(
    converted: Any, path: Path, precision: str, model: PreTrainedModel, tolerance: float
) -> float:
    """Write a converted model beside its place, compare it with the original, and only then move it there.

    Args:
        converted: The ``openvino.Model``.
        path: The ``.xml`` file.
        precision: ``"fp32"``, ``"bf16"`` or ``"int8"``; with bf16, float32 weights are written in float16.
        model: The original, on the CPU, in float32 and eval mode.
        tolerance: Largest error that passes.

    Returns:
        The error that :func:`~lit_compress.export.parity.check_parity` found.

    Raises:
        ValueError: The file computes something else, or the processor lacks the precision.
        OSError: The file could not be written.
    """
    from lit_compress.export.infer.openvino import openvino

    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.part-") as folder:
        part = Path(folder) / path.name
        try:
            openvino.save_model(converted, part, compress_to_fp16=precision == "bf16")
        except RuntimeError as error:
            raise OSError(
                f"Expected to write {path} but OpenVINO stopped with: {_reason(error)}; check the disk."
            ) from error
        session = OpenVinoSession(part, precision, threads=torch.get_num_threads())

        def forward(batch: Batch) -> npt.NDArray[np.float32]:
            return session.logits(session.run(session.inputs(batch)))

        found = check_parity(forward, model, tolerance, f"the OpenVINO file in {precision}")
        # The weights first: without them the other file is of no use.
        for suffix in (".bin", ".xml"):
            part.with_suffix(suffix).replace(path.with_suffix(suffix))
    return found


def _reason(error: Exception) -> str:
    """Return what OpenVINO says, without where in its sources it says it; what it has no operator for comes first."""
    lines = [line.strip().removeprefix("-- ") for line in str(error).splitlines()]
    told = [
        line for line in lines if line and not line.startswith(("Check '", "Exception from", "FrontEnd API"))
    ]
    lacks = [line for line in told if line.startswith("No conversion rule")]
    return (lacks or told or lines or [""])[0][:200]
