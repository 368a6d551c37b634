"""ExecuTorch programs: one text of any length up to a longest, computed by XNNPACK."""

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
from lit_compress.benchmark.runtimes.executorch import ExecuTorchSession, check_executorch
from lit_compress.export.first_token import first_token_alone, last_attention
from lit_compress.export.parity import check_parity
from lit_compress.export.single_text import SingleText, longest_text, plain_attention, quantize_embeddings
from lit_compress.files import writing
from lit_compress.models.loading import quiet

# Not 0 or 1, which torch.export takes for constants.
_TOKENS = 24


def export_executorch(model: PreTrainedModel, path: str | Path, precision: str, tolerance: float) -> float:
    """Write a text classifier as an ExecuTorch program for one text of free length.

    Its inputs are int32 of shape (1, tokens): ``input_ids``, and ``token_type_ids`` where the model tells segments
    apart. There is no mask, since a single text needs no padding; its output is the logits.

    Args:
        model: The model; a copy with float32 weights is exported.
        path: The file; it is there only after it has passed the parity check.
        precision: ``"fp32"``, or ``"int8"`` for int8 weights, with activations quantized while it runs.
        tolerance: Largest error that passes.

    Returns:
        The error that :func:`~lit_compress.export.parity.check_parity` found.

    Raises:
        ImportError: A library is missing.
        ValueError: The model cannot be exported, or the file computes something else.
        OSError: The file could not be written.
    """
    check_executorch()
    path = Path(path)
    model = copy.deepcopy(model).cpu().float().eval()
    program = _program(copy.deepcopy(model), precision)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.part-") as folder:
        part = Path(folder) / path.name
        with writing(path), part.open("wb") as stream:
            program.write_to_file(stream)
        session = ExecuTorchSession(part, threads=torch.get_num_threads())

        def forward(batch: Batch) -> npt.NDArray[np.float32]:
            return session.logits(session.run(session.inputs(batch)))

        error = check_parity(forward, model, tolerance, f"the ExecuTorch program in {precision}")
        part.replace(path)
    return error


def _program(model: PreTrainedModel, precision: str) -> Any:
    """Return the program of a model, which is quantized in place."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower

    where, name = last_attention(model), type(model).__name__
    if precision == "int8":
        _quantize(model)
    with plain_attention(model, padded=False), first_token_alone(model, where):
        single = SingleText(model, padded=False).eval()
        inputs = single.example(min(_TOKENS, longest_text(model)))
        tokens = torch.export.Dim("tokens", min=1, max=longest_text(model))
        shapes = {argument: {1: tokens} for argument in inputs}
        try:
            with torch.no_grad(), warnings.catch_warnings(), quiet():
                warnings.simplefilter("ignore")
                exported = torch.export.export(single, (), inputs, dynamic_shapes=shapes, strict=False)
                _settle_views(exported)
                lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
                # Weights apart from the program: once XNNPACK has rearranged them, the memory of the file is let go.
                return lowered.to_executorch(ExecutorchBackendConfig(extract_delegate_segments=True))
        except Exception as error:  # whatever the code of a model does that has no operator
            raise ValueError(
                f"Expected a text classifier that ExecuTorch can express but got {name}, which stops with "
                f"{type(error).__name__}: {_first_line(error)}; use another runtime."
            ) from error


def _quantize(model: PreTrainedModel) -> None:
    """Give every linear layer int8 weights with one scale per output, and activations with one per token."""
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, quantize_
    from torchao.quantization.granularity import PerAxis
    from torchao.utils import unwrap_tensor_subclass

    quantize_embeddings(model)
    config = Int8DynamicActivationIntxWeightConfig(weight_dtype=torch.int8, weight_granularity=PerAxis(0))
    quantize_(model, config)
    unwrap_tensor_subclass(model)


def _settle_views(exported: torch.export.ExportedProgram) -> None:
    """Let views say -1 for the number of tokens: XNNPACK takes no size that is computed while it runs."""
    for node in exported.graph.nodes:
        if node.target not in (torch.ops.aten.view.default, torch.ops.aten.reshape.default):
            continue
        shape = [-1 if isinstance(size, torch.SymInt) else int(size) for size in node.meta["val"].shape]
        # A reshape would have its sizes computed again.
        if shape.count(-1) == 1 and node.args[0].meta["val"].is_contiguous():
            node.target = torch.ops.aten.view.default
        if shape.count(-1) == 1:
            node.args = (node.args[0], shape)
    exported.graph.eliminate_dead_code()
    exported.graph_module.recompile()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
