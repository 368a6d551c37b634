"""GGUF files for llama.cpp and what is built on it (Ollama, LM Studio, …)."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lit_compress.export.gguf.decoder import DECODERS, decoder_layout
from lit_compress.export.gguf.encoder import ENCODERS, encoder_layout
from lit_compress.export.gguf.graph import read_graph
from lit_compress.export.gguf.layout import Layout
from lit_compress.export.gguf.tensors import Precision, check_precision, tensor_kind
from lit_compress.export.gguf.tokenizer import tokenizer_fields
from lit_compress.export.parity import check_parity
from lit_compress.extras import require
from lit_compress.models.checkpoint import load
from lit_compress.models.manifest import read_manifest

_QUANTIZATION_VERSION = 2
_LABELS = "classifier.output_labels"


def check_gguf() -> None:
    """Refuse where the library for GGUF is missing, with the line that installs it."""
    require("gguf", "GGUF files", "gguf")


def export_gguf(folder: str | Path, path: str | Path, precision: str) -> float:
    """Write a model folder as a GGUF file with its tokenizer, and compare what is in the file with the model.

    No runtime is needed: the file is read back, and what llama.cpp computes from its tensors and metadata is
    computed in torch. llama.cpp rounds activations too, in quantized files to 8 bits; that is not in the error.

    Args:
        folder: Model folder of a BERT or RoBERTa classifier, or of a Llama, Mistral, Qwen2 or Qwen3 language model.
        path: The file; it is there only after it has passed the parity check.
        precision: ``"f32"``, ``"f16"``, ``"bf16"``, ``"q8_0"`` or ``"q4_0"``.

    Returns:
        The error that :func:`~lit_compress.export.parity.check_parity` found.

    Raises:
        ImportError: ``gguf`` is missing.
        ValueError: The precision is unknown, llama.cpp cannot express the model or its tokenizer, or the file computes
            something else.
        OSError: The disk is full; nothing is left of the file.
    """
    check_gguf()
    chosen = check_precision(precision)
    folder, path = Path(folder), Path(path)
    model = load(folder).float().eval()
    layout = _layout(model)
    fields = _fields(folder, layout, chosen)
    part = path.with_name(f".{path.name}.part")
    try:
        _write(part, layout, fields, chosen)
        original: Any = model if layout.arch == "bert" else _NextToken(model)
        error = check_parity(read_graph(part), original, chosen.tolerance, f"the {precision} GGUF file")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return error


class _NextToken(nn.Module):
    """A language model whose logits are those of the token behind each text, ``(texts, vocabulary)``."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self.config = model.config

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SimpleNamespace:
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return SimpleNamespace(logits=logits[torch.arange(len(logits)), attention_mask.sum(1) - 1])


def _layout(model: PreTrainedModel) -> Layout:
    family = model.config.model_type
    if family in ENCODERS:
        return encoder_layout(model)
    if family in DECODERS:
        return decoder_layout(model)
    raise ValueError(
        f"Expected a model of one of the families {', '.join((*ENCODERS, *DECODERS))}, which llama.cpp and this writer "
        f"know, but got {family!r} ({type(model).__name__}); use another format, such as onnx."
    )


def _fields(folder: Path, layout: Layout, precision: Precision) -> dict[str, Any]:
    names = (read_manifest(folder) or {}).get("label_names")
    labels = layout.fields.get(_LABELS)
    if names and labels and len(names) == len(labels):
        layout.fields[_LABELS] = [str(name) for name in names]
    types = layout.tensors.get("token_types.weight")
    return {
        "general.name": folder.resolve().name,
        "general.file_type": precision.file,
        "general.quantization_version": _QUANTIZATION_VERSION,
        **{f"{layout.arch}.{name}": value for name, value in layout.fields.items()},
        **tokenizer_fields(folder, layout.tensors["token_embd.weight"].shape[0]),
        **({} if types is None else {"tokenizer.ggml.token_type_count": types.shape[0]}),
    }


def _write(path: Path, layout: Layout, fields: dict[str, Any], precision: Precision) -> None:
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize

    writer = GGUFWriter(path, layout.arch)
    try:
        for name, value in fields.items():
            _add_field(writer, name, value)
        tied = "output.weight" not in layout.tensors and "output_norm.weight" in layout.tensors
        for name, tensor in layout.tensors.items():
            kind = GGMLQuantizationType[tensor_kind(name, tuple(tensor.shape), precision, tied)]
            array = np.ascontiguousarray(tensor.numpy())
            writer.add_tensor(name, quantize(array, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()


def _add_field(writer: Any, name: str, value: Any) -> None:
    # bool before int: it is one.
    for kind, method in (
        (bool, "bool"),
        (int, "uint32"),
        (float, "float32"),
        (str, "string"),
        (list, "array"),
    ):
        if isinstance(value, kind):
            getattr(writer, f"add_{method}")(name, value)
            return
