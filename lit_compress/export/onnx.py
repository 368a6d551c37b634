"""ONNX files for ONNX Runtime: float32, and int8 weights with activations quantized on the fly.

The TorchScript exporter is used, with one ``MultiHeadAttention`` node per layer. Of the routes compared on MiniLM
(six layers of 384, one thread, lengths 32 to 384) all are alike in float32 and none was faster in int8: the dynamo
exporter takes five times as long to export, ONNX Runtime's own BERT fusion makes int8 a fifth slower, plain
attention a tenth.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lit_compress.benchmark.runtimes.base import Batch
from lit_compress.benchmark.runtimes.onnx import OnnxSession, check_onnx
from lit_compress.export.fused_attention import DOMAIN, fused_attention
from lit_compress.export.parity import check_parity

#: Largest difference of a logit, relative to the size of the logits: rounding only.
FP32_TOLERANCE = 1e-3
#: The same for int8.
INT8_TOLERANCE = 0.5
# The last one that the TorchScript exporter knows.
_OPSET = 20
_MOST_BYTES = 2**31


def export_onnx(model: PreTrainedModel, path: str | Path) -> float:
    """Write a text classifier as a float32 ONNX file with free batch size and length.

    Its inputs are the tokenizer's int64 ``input_ids`` and ``attention_mask``, and ``token_type_ids`` where the
    model tells segments apart; its output is ``logits``. It needs ONNX Runtime, whose fused attention it uses.

    Args:
        model: The model; a copy with float32 weights is exported.
        path: The file; it is there only after it has passed the parity check.

    Returns:
        The error that :func:`~lit_compress.export.parity.check_parity` found.

    Raises:
        ImportError: ``onnx`` or ``onnxruntime`` is missing.
        ValueError: The model cannot be exported, or the file computes something else.
    """
    check_onnx()
    _check_size(model)
    model = copy.deepcopy(model).cpu().float().eval()

    def write(part: Path) -> None:
        try:
            _trace(model, part)
        except (RuntimeError, TypeError, torch.onnx.errors.OnnxExporterError) as error:
            raise ValueError(
                f"Expected a model that ONNX can express but got {type(model).__name__}, which stops with "
                f"{type(error).__name__}: {_first_line(error)}; use a torch runtime."
            ) from error

    return _checked(write, Path(path), model, FP32_TOLERANCE, "the ONNX file")


def quantize_onnx(source: str | Path, path: str | Path, model: PreTrainedModel) -> float:
    """Write an ONNX file with int8 weights, whose activations are quantized while it runs.

    Weights are quantized per output channel, embeddings too. On x86 processors without VNNI the int8 products
    can saturate; there the parity check is the safeguard.

    Args:
        source: File that :func:`export_onnx` wrote.
        path: The file; it is there only after it has passed the parity check.
        model: The original, on the CPU, in float32 and eval mode.

    Returns:
        The error that :func:`~lit_compress.export.parity.check_parity` found.

    Raises:
        ImportError: ``onnx`` or ``onnxruntime`` is missing.
        ValueError: int8 changes the logits too much.
    """
    check_onnx()
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    def write(part: Path) -> None:
        graph = onnx.load(source)
        # Where it knows shapes, ONNX Runtime fuses additions into its SkipLayerNormalization, which made the int8
        # model an eighth slower. Graphs of other exporters cannot be quantized with them at all.
        del graph.graph.value_info[:]
        # Else the quantizer logs the advice to prepare the graph, and takes over the root logger to do so.
        add_pre_process_metadata(graph)
        quantize_dynamic(
            graph,
            part,
            per_channel=True,
            weight_type=QuantType.QInt8,
            # Gather: the embedding is most of a small model's file.
            op_types_to_quantize=["MatMul", "Gather"],
            # Shape inference stops at the fused attention; what comes behind it is float too.
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )

    return _checked(write, Path(path), model, INT8_TOLERANCE, "the int8 ONNX file")


class _Logits(nn.Module):
    """A model with positional inputs and nothing but its logits as output."""

    def __init__(self, model: PreTrainedModel, names: list[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.model(**dict(zip(self.names, inputs, strict=True))).logits


def _trace(model: PreTrainedModel, path: Path) -> None:
    # A model without segments ignores token_type_ids, and the exporter drops an input that nothing reads.
    segments = getattr(model.config, "type_vocab_size", 0) > 1
    names = ["input_ids", "attention_mask"] + ["token_type_ids"] * segments
    axes: dict[str, dict[int, str]] = {name: {0: "batch", 1: "length"} for name in names}
    mask = torch.tensor([[1] * 9, [1] * 5 + [0] * 4])
    ids = mask * 7 + (1 - mask) * (model.config.pad_token_id or 0)
    with fused_attention(model), torch.inference_mode(), warnings.catch_warnings():
        # The exporter is deprecated, and tracing warns of every size that becomes a constant; the parity
        # check at other sizes finds the constants that matter.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            # In eval mode itself: the exporter gives the model back in the mode of the outermost module.
            _Logits(model, names).eval(),
            (ids, mask, torch.zeros_like(ids))[: len(names)],
            path,
            input_names=names,
            output_names=["logits"],
            dynamic_axes={**axes, "logits": {0: "batch"}},
            opset_version=_OPSET,
            custom_opsets={DOMAIN: 1},
            dynamo=False,
        )


def _checked(
    write: Callable[[Path], Any], path: Path, model: PreTrainedModel, tolerance: float, what: str
) -> float:
    """Write a file beside its place, compare it with the model, and only then move it there."""
    part = path.with_name(f".{path.name}.part")
    try:
        write(part)
        session = OnnxSession(part, threads=torch.get_num_threads())

        def forward(batch: Batch) -> Any:
            return session.logits(session.run(session.inputs(batch)))

        error = check_parity(forward, model, tolerance, what)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return error


def _check_size(model: PreTrainedModel) -> None:
    size = 4 * sum(parameter.numel() for parameter in model.parameters())
    if size >= _MOST_BYTES:
        raise ValueError(
            f"Expected a model below 2 GB in float32, the most that one ONNX file holds, but got "
            f"{size / 1e9:.1f} GB; use a torch runtime."
        )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
