"""TorchScript files: traced, frozen, float32.

TorchScript is deprecated upstream; :mod:`lit_compress.export.aotinductor` is what torch offers in its place.
"""

from __future__ import annotations

import copy
import io
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import PreTrainedModel

from lit_compress.benchmark.runtimes.base import Batch
from lit_compress.benchmark.runtimes.torchscript import TorchScriptSession
from lit_compress.export.first_token import first_token_alone, last_attention
from lit_compress.export.logits import Logits, check_text_classifier, example_inputs
from lit_compress.export.parity import check_parity
from lit_compress.files import writing


def export_torchscript(model: PreTrainedModel, path: str | Path, tolerance: float = 1e-3) -> float:
    """Write a text classifier as a float32 TorchScript file with free batch size and length.

    Its inputs are the tokenizer's int64 ``input_ids`` and ``attention_mask``, and ``token_type_ids`` where the
    model tells segments apart; its output is the logits. Whoever loads the file runs the program that it holds.

    Args:
        model: The model; a copy with float32 weights is exported.
        path: The file; it is there only after it has passed the parity check.
        tolerance: Largest error that passes.

    Returns:
        The error that :func:`~lit_compress.export.parity.check_parity` found.

    Raises:
        ValueError: The model is no text classifier or cannot be traced, or the file computes something else.
        OSError: The file could not be written; nothing is left of it.
    """
    check_text_classifier(model)
    model, path = copy.deepcopy(model).cpu().float().eval(), Path(path)
    part = path.with_name(f".{path.name}.part")
    try:
        with warnings.catch_warnings():
            # TorchScript is deprecated, and tracing warns of every size that becomes a constant; the parity
            # check at other sizes finds the constants that matter.
            warnings.simplefilter("ignore")
            traced = _traced(model)
        with writing(path):
            _save(traced, part)
        session = TorchScriptSession(part, threads=torch.get_num_threads())

        def forward(batch: Batch) -> npt.NDArray[np.float32]:
            return session.logits(session.run(session.inputs(batch)))

        error = check_parity(forward, model, tolerance, "the TorchScript file")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return error


@torch.no_grad()
def _traced(model: PreTrainedModel) -> nn.Module:
    try:
        # In eval mode itself: freezing refuses anything else. Not checked: the parity check does more.
        with first_token_alone(model, last_attention(model)):
            traced = torch.jit.trace(
                Logits(model).eval(), example_kwarg_inputs=example_inputs(model), check_trace=False
            )
        # Freezes it, and joins the projections of an attention into one product.
        return torch.jit.optimize_for_inference(traced)
    except Exception as error:  # whatever the code of a model does not do with traced tensors
        raise ValueError(
            f"Expected a text classifier that TorchScript can trace but got {type(model).__name__}, which stops "
            f"with {type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}; use another runtime."
        ) from error


def _save(module: nn.Module, path: Path) -> None:
    # Not into the file itself: where the disk is full, torch's own writer ends the process.
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is deprecated
        torch.jit.save(module, content)
    path.write_bytes(content.getbuffer())
