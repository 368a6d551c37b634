"""LiteRT (TensorFlow Lite) files: one graph per length of text, since a graph has fixed shapes.

All graphs share their weights in the file. Of free lengths the converter makes nothing that runs, and graphs for
batches would be as many again: a batch runs text after text, each in the graph of its own length.
"""

from __future__ import annotations

import copy
import itertools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel

from lit_compress.benchmark.runtimes.base import Batch
from lit_compress.benchmark.runtimes.litert import LiteRtSession, check_litert
from lit_compress.benchmark.workload import token_batch
from lit_compress.export.first_token import LastAttention, first_token_alone, last_attention
from lit_compress.export.parity import ParityError, check_parity, reference, worst_batch
from lit_compress.export.single_text import SingleText, longest_text, plain_attention, quantize_embeddings
from lit_compress.files import writing
from lit_compress.models.loading import quiet

_SHORTEST = 16


def export_litert(model: PreTrainedModel, path: str | Path, precision: str, tolerance: float) -> float:
    """Write a text classifier as a LiteRT file with a graph for each of several lengths.

    The graphs are named after their lengths, such as ``tokens_64``. Their inputs are int32 of shape (1, length):
    ``input_ids`` and ``attention_mask``, and ``token_type_ids`` where the model tells segments apart; their output is
    ``output_0``, the logits.

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
    check_litert()
    model = copy.deepcopy(model).cpu().float().eval()
    lengths, where = graph_lengths(longest_text(model)), last_attention(model)

    def make() -> Any:
        copied = copy.deepcopy(model)
        if precision == "int8":
            quantize_embeddings(copied)
        content = convert(copied, lengths, where)
        return content if precision == "fp32" else _quantized(content)

    return write_checked(make, Path(path), model, lengths, tolerance, f"the LiteRT file in {precision}")


def write_checked(
    make: Callable[[], Any],
    path: Path,
    model: PreTrainedModel,
    lengths: Sequence[int],
    tolerance: float,
    what: str,
) -> float:
    """Write a file beside its place, compare every graph with the original, and only then move it there.

    Args:
        make: Returns the bytes of the file.
        path: The file.
        model: The original, on the CPU, in float32 and eval mode.
        lengths: Those of its graphs.
        tolerance: Largest error that passes.
        what: What was exported, for the message.

    Returns:
        The largest error.

    Raises:
        ValueError: The file computes something else.
        OSError: The file could not be written.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.part-") as folder:
        part = Path(folder) / path.name
        content = make()
        with writing(path):
            part.write_bytes(content)
        session = LiteRtSession(part, threads=torch.get_num_threads())

        def forward(batch: Batch) -> npt.NDArray[np.float32]:
            return session.logits(session.run(session.inputs(batch)))

        errors = (
            check_parity(forward, model, tolerance, what),
            _check_lengths(forward, model, lengths, tolerance, what),
        )
        part.replace(path)
    return max(errors)


def graph_lengths(longest: int) -> tuple[int, ...]:
    """Return the lengths that get a graph: each twice the one before, up to the longest text.

    Args:
        longest: Length of the longest text in tokens.
    """
    doubled = itertools.takewhile(
        lambda length: length < longest, (_SHORTEST << n for n in itertools.count())
    )
    return (*doubled, longest)


def convert(model: PreTrainedModel, lengths: Sequence[int], where: LastAttention | None) -> Any:
    """Return the bytes of a LiteRT file with a graph for each length.

    Args:
        model: The model, on the CPU and in eval mode; within the call it reads one text at a time.
        lengths: Tokens of each graph.
        where: From where on one token is computed.

    Raises:
        ValueError: It does something that LiteRT has no operator for.
    """
    import litert_torch

    litert_torch.config.show_progress = False
    with plain_attention(model, padded=True), first_token_alone(model, where):
        single = SingleText(model, padded=True).eval()
        converter = litert_torch.Converter()
        for length in lengths:
            converter.add_signature(f"tokens_{length}", single, sample_kwargs=single.example(length))
        try:
            with quiet():
                return converter.convert().model_content()
        except Exception as error:  # whatever the code of a model does that has no operator
            raise ValueError(
                f"Expected a text classifier that LiteRT can express but got {type(model).__name__}, which stops "
                f"with {type(error).__name__}: {_first_line(error)}; use another runtime."
            ) from error


def _quantized(content: bytes) -> Any:
    """Return a file with int8 weights, with one scale per output of each linear layer."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_quantizer import qtyping, quantizer

    # The converter names a tensor after all modules around it: in the graphs of a small model, megabytes.
    model = schema.ModelT.InitFromPackedBuf(content)
    for number, graph in enumerate(model.subgraphs):
        for index, tensor in enumerate(graph.tensors):
            tensor.name = f"{number}.{index}"
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    quantized = quantizer.Quantizer(builder.Output())
    # Not the scales of the embedding, which it would quantize too.
    quantized.add_dynamic_config(".*", qtyping.TFLOperationName.FULLY_CONNECTED, num_bits=8)
    return quantized.quantize().quantized_model


def _check_lengths(
    forward: Callable[[Batch], npt.NDArray[np.float32]],
    model: PreTrainedModel,
    lengths: Sequence[int],
    tolerance: float,
    what: str,
) -> float:
    """Compare every graph with the original, on a text that fills it and one that does not."""
    config = model.config
    batches = [
        token_batch((length, length // 2 + 1), config.vocab_size, config.pad_token_id, length)
        for length in lengths
    ]
    worst, error = worst_batch(
        [forward(batch) for batch in batches], [reference(model, batch) for batch in batches]
    )
    if not error <= tolerance:  # not ">": a NaN must not pass
        raise ParityError(
            f"Expected {what} to compute the logits of the original within {tolerance:g} of their size but got a "
            f"difference of {error:.3g} for texts of {lengths[worst]} tokens; nothing was kept: use another "
            "runtime for this model."
        )
    return error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]
