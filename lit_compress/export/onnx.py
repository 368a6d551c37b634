"""ONNX files for ONNX Runtime: float32, and int8 weights with activations quantized on the fly.

The TorchScript exporter is used, with one ``MultiHeadAttention`` node per layer. Of the routes compared on MiniLM
(six layers of 384, one thread, lengths 32 to 384) all are alike in float32 and none was faster in int8: the dynamo
exporter takes five times as long to export, ONNX Runtime's own BERT fusion makes int8 a fifth slower, plain
attention a tenth. Decoders have plain attention all the same: that node knows no causal mask and no shared keys.

Inputs are the tokenizer's int64: what they cost is a cast of a few hundred numbers, and every other loader of ONNX
classifiers gives that type.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lit_compress.benchmark.runtimes.base import Batch
from lit_compress.benchmark.runtimes.onnx import OnnxFp32, OnnxInt8, OnnxSession, check_onnx
from lit_compress.benchmark.workload import token_batch
from lit_compress.export.first_token import LastAttention, first_token_alone, last_attention
from lit_compress.export.fused_attention import exported_attention
from lit_compress.export.logits import check_text_classifier
from lit_compress.export.onnx_graph import MICROSOFT, data_file, save_graph, share_constants
from lit_compress.export.onnx_int8 import NORMALISED, activations, quantize_graph
from lit_compress.export.onnx_ranges import observe_ranges
from lit_compress.export.onnx_reshapes import drop_reshapes
from lit_compress.export.parity import check_parity, max_length

if TYPE_CHECKING:
    import onnx

# The last one that the TorchScript exporter knows.
_OPSET = 20
# Random texts that show which dimensions are large.
_TEXTS, _LONGEST = 64, 64


def export_onnx(model: PreTrainedModel, path: str | Path) -> float:
    """Write a text classifier as a float32 ONNX file with free batch size and length.

    Its inputs are the tokenizer's int64 ``input_ids`` and ``attention_mask``, and ``token_type_ids`` where the
    model tells segments apart; its output is ``logits``. It needs ONNX Runtime, whose fused attention it uses.

    Args:
        model: The model; a copy with float32 weights is exported.
        path: The file; it is there only after it has passed the parity check. Weights of 2 GB and more go to a second
            file beside it, see :func:`~lit_compress.export.onnx_graph.save_graph`.

    Returns:
        The error that :func:`~lit_compress.export.parity.check_parity` found.

    Raises:
        ImportError: ``onnx`` or ``onnxruntime`` is missing.
        ValueError: The model cannot be exported, or the file computes something else.
        OSError: The disk is full; nothing is left.
    """
    check_onnx()
    model = copy.deepcopy(model).cpu().float().eval()

    def make(folder: Path) -> onnx.ModelProto:
        try:
            return trace(model, folder / "traced.onnx", last_attention(model))
        except (RuntimeError, TypeError, torch.onnx.errors.OnnxExporterError) as error:
            raise ValueError(
                f"Expected a model that ONNX can express but got {type(model).__name__}, which stops with "
                f"{type(error).__name__}: {_first_line(error)}; use a torch runtime."
            ) from error

    return write_checked(make, Path(path), model, OnnxFp32.tolerance, "the ONNX file")


def quantize_onnx(source: str | Path, path: str | Path, model: PreTrainedModel) -> float:
    """Write an ONNX file with int8 weights, whose activations are quantized while it runs.

    See :func:`~lit_compress.export.onnx_int8.quantize_graph` for what is quantized how. On x86 processors without
    VNNI the int8 products can saturate; there the parity check is the safeguard.

    Args:
        source: File that :func:`export_onnx` wrote.
        path: The file; it is there only after it has passed the parity check.
        model: The original, on the CPU, in float32 and eval mode.

    Returns:
        The error that :func:`~lit_compress.export.parity.check_parity` found.

    Raises:
        ImportError: ``onnx`` or ``onnxruntime`` is missing.
        ValueError: int8 changes the logits too much.
        OSError: The disk is full; nothing is left.
    """
    check_onnx()

    def make(folder: Path) -> onnx.ModelProto:
        import onnx

        graph = onnx.load(source)
        names = [name for name, kind in activations(graph).items() if kind in NORMALISED]
        quantize_graph(graph, observe_ranges(onnx.load(source), names, _random_texts(model), folder))
        return graph

    return write_checked(make, Path(path), model, OnnxInt8.tolerance, "the int8 ONNX file")


def write_checked(
    make: Callable[[Path], onnx.ModelProto],
    path: Path,
    model: PreTrainedModel,
    tolerance: float,
    what: str,
) -> float:
    """Write a graph beside its place, compare it with the model, and only then move it there.

    Args:
        make: Returns the graph; it may use the folder that it is given.
        path: The place.
        model: The original in float32, in eval mode.
        tolerance: Largest error that passes.
        what: What was made, for the message.

    Returns:
        The error that :func:`~lit_compress.export.parity.check_parity` found.

    Raises:
        ParityError: The graph computes something else.
        OSError: The disk is full; nothing is left.
    """
    # A folder and not another name: a graph knows the name of the file with its weights.
    part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent)) / path.name
    try:
        save_graph(make(part.parent), part)
        session = OnnxSession(part, threads=torch.get_num_threads())

        def forward(batch: Batch) -> Any:
            return session.logits(session.run(session.inputs(batch)))

        error = check_parity(forward, model, tolerance, what)
        if data_file(part).is_file():
            data_file(part).replace(data_file(path))
        part.replace(path)
    finally:
        shutil.rmtree(part.parent)
    return error


def _random_texts(model: PreTrainedModel) -> list[Batch]:
    longest = min(_LONGEST, max_length(model) or _LONGEST)
    lengths = np.linspace(1, longest, _TEXTS).astype(int)
    return [
        token_batch((int(length),), model.config.vocab_size, model.config.pad_token_id, seed)
        for seed, length in enumerate(lengths)
    ]


class _Logits(nn.Module):
    """A model with positional inputs and nothing but its logits as output."""

    def __init__(self, model: PreTrainedModel, names: list[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.model(**dict(zip(self.names, inputs, strict=True))).logits


def trace(model: PreTrainedModel, path: Path, where: LastAttention | None) -> onnx.ModelProto:
    """Return the float32 graph of a text classifier.

    Args:
        model: The model, on the CPU, in float32 and eval mode.
        path: A place for a file that is as large as the graph.
        where: From where on one token is computed.

    Raises:
        ValueError: It is no text classifier, or computes its attention itself.
    """
    import onnx

    check_text_classifier(model)
    # A model without segments ignores token_type_ids, and the exporter drops an input that nothing reads.
    segments = getattr(model.config, "type_vocab_size", 0) > 1
    names = ["input_ids", "attention_mask"] + ["token_type_ids"] * segments
    axes: dict[str, dict[int, str]] = {name: {0: "batch", 1: "length"} for name in names}
    mask = torch.tensor([[1] * 9, [1] * 5 + [0] * 4])
    ids = mask * 7 + (1 - mask) * (model.config.pad_token_id or 0)
    narrow = first_token_alone(model, where)
    with exported_attention(model), narrow, torch.inference_mode(), warnings.catch_warnings():
        # The exporter is deprecated, and tracing warns of every size that becomes a constant; the parity
        # check at other sizes finds the constants that matter.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            # In eval mode itself: the exporter gives the model back in the mode of the outermost module.
            _Logits(model, names).eval(),
            (ids, mask, torch.zeros_like(ids))[: len(names)],
            # Only beside a string it writes the weights of a model that one file does not hold.
            str(path),
            input_names=names,
            output_names=["logits"],
            dynamic_axes={**axes, "logits": {0: "batch"}},
            opset_version=_OPSET,
            custom_opsets={MICROSOFT: 1},
            dynamo=False,
        )
    graph = onnx.load(path)
    share_constants(graph)
    drop_reshapes(graph)
    return graph


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
