"""TensorRT engines for NVIDIA GPUs, and where none can be built here, all that another machine needs to build one.

TensorRT parses plain ONNX, so the graph has standard operators only. Its precision is written in the graph (weights
and products in half precision, norms and softmax in float32) and the network is strongly typed: the flags that let
TensorRT choose, ``--fp16`` among them, are gone since its version 11.
"""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from lit_compress.benchmark.runtimes.base import Batch, Builder
from lit_compress.benchmark.runtimes.onnx import OnnxSession, check_onnx
from lit_compress.export.attention import attention_of_export
from lit_compress.export.parity import check_parity, max_length
from lit_compress.models.checkpoint import load

#: Name -> largest error of the logits that passes.
PRECISIONS = {"fp16": 0.05, "fp32": 1e-3}
_GRAPH, _ENGINE, _SCRIPT = "model.onnx", "model.plan", "build.sh"
_NAME = "lit_compress_plain"
_OPSET = 17  # the first one with LayerNormalization
# Far below every score, and still a number in half precision.
_HIDDEN = -1e4
_TEXTS, _USUAL_TEXTS, _USUAL_TOKENS, _TOKENS = 32, 8, 128, 512
_WORKSPACE = 4 << 30


@dataclass(frozen=True)
class TensorRTExport:
    """What :func:`export_tensorrt` wrote.

    Args:
        error: What :func:`~lit_compress.export.parity.check_parity` found: of the engine if it was built, else of
            the ONNX file in ONNX Runtime.
        built: Whether there is an engine.
        note: What there is and what is to be done with it, in one sentence.
    """

    error: float
    built: bool
    note: str


def export_tensorrt(folder: str | Path, target: str | Path, precision: str = "fp16") -> TensorRTExport:
    """Write a text classifier for TensorRT: ``model.onnx``, and ``model.plan`` or what builds it, ``build.sh``.

    The engine is built where the package ``tensorrt`` and a CUDA GPU are. It runs on the kind of GPU that it was
    built on, for up to 32 texts of any length that the model reads.

    Args:
        folder: Model folder.
        target: An empty folder.
        precision: ``"fp16"`` or ``"fp32"``.

    Returns:
        The error, and whether the engine was built.

    Raises:
        ImportError: ``onnx`` or ``onnxruntime`` is missing.
        ValueError: The precision is unknown, the model cannot be exported, or it computes something else there.
        OSError: The disk is full; nothing is left in the folder.
    """
    check_onnx()
    if precision not in PRECISIONS:
        raise ValueError(
            f"Expected a precision of tensorrt but got {precision!r}; choose one of {', '.join(PRECISIONS)}."
        )
    target = Path(target)
    model = load(folder).float().eval()
    shapes = _shapes(model)
    parts = {name: target / f".{name}.part" for name in (_GRAPH, _ENGINE, _SCRIPT)}
    reason = _why_not_here()
    try:
        _write_graph(load(folder).float().eval(), parts[_GRAPH], list(shapes), precision)
        error = check_parity(
            _in_onnx(parts[_GRAPH]), model, PRECISIONS[precision], "the ONNX file for TensorRT"
        )
        if reason is None:
            _build_engine(parts[_GRAPH], parts[_ENGINE], shapes, precision)
            error = check_parity(
                _in_tensorrt(parts[_ENGINE]), model, PRECISIONS[precision], "the TensorRT engine"
            )
            note = f"{_ENGINE} was built for {torch.cuda.get_device_name()}."
        else:
            _write_script(parts[_SCRIPT], shapes, precision)
            note = _unbuilt(reason)
        for name, part in parts.items():
            if part.is_file():
                part.replace(target / name)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)
    return TensorRTExport(error, reason is None, note)


def _unbuilt(reason: str | None) -> str:
    because = "" if reason is None else f" {reason};"
    return f"unbuilt:{because} run {_SCRIPT} on a machine with TensorRT and the GPU that is to run {_ENGINE}."


def _why_not_here() -> str | None:
    if find_spec("tensorrt") is None:
        return "the package tensorrt is not installed here"
    return None if torch.cuda.is_available() else "there is no CUDA GPU here"


Shapes = dict[str, tuple[tuple[int, int], tuple[int, int], tuple[int, int]]]


def _shapes(model: PreTrainedModel) -> Shapes:
    """Return the smallest, usual and largest shape of each input, (texts, tokens)."""
    longest = max_length(model) or _TOKENS
    three = ((1, 1), (_USUAL_TEXTS, min(_USUAL_TOKENS, longest)), (_TEXTS, longest))
    names = ["input_ids", "attention_mask"]
    # A model without segments ignores token_type_ids, and the exporter drops an input that nothing reads.
    names += ["token_type_ids"] * (getattr(model.config, "type_vocab_size", 0) > 1)
    return dict.fromkeys(names, three)


class _Logits(nn.Module):
    """A model with positional inputs and its logits in float32 as output."""

    def __init__(self, model: PreTrainedModel, names: list[str]) -> None:
        super().__init__()
        self.model = model
        self.names = names

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.model(**dict(zip(self.names, inputs, strict=True))).logits.float()


def _write_graph(model: PreTrainedModel, path: Path, names: list[str], precision: str) -> None:
    """Write the ONNX file of a model, which is changed."""
    if precision == "fp16":
        _halve(model)
    axes: dict[str, dict[int, str]] = {name: {0: "batch", 1: "length"} for name in names}
    mask = torch.tensor([[1] * 9, [1] * 5 + [0] * 4])
    ids = mask * 7 + (1 - mask) * (model.config.pad_token_id or 0)
    with (
        attention_of_export(model, _NAME, _attention, _mask),
        torch.inference_mode(),
        warnings.catch_warnings(),
    ):
        # The exporter is deprecated, and tracing warns of every size that becomes a constant; the parity
        # check at other sizes finds the constants that matter.
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                _Logits(model, names).eval(),
                (ids, mask, torch.zeros_like(ids))[: len(names)],
                path,
                input_names=names,
                output_names=["logits"],
                dynamic_axes={**axes, "logits": {0: "batch"}},
                opset_version=_OPSET,
                dynamo=False,
            )
        except (RuntimeError, TypeError, torch.onnx.errors.OnnxExporterError) as error:
            raise ValueError(
                f"Expected a model that standard ONNX operators can express but got {type(model).__name__}, which "
                f"stops with {type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}; use a torch "
                "runtime."
            ) from error


def _halve(model: PreTrainedModel) -> None:
    """Put a model into half precision, but for its norms, whose sums of squares would overflow."""
    model.half()
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.float()
            module.register_forward_pre_hook(lambda _, inputs: tuple(states.float() for states in inputs))
            module.register_forward_hook(lambda _, inputs, output: output.half())


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Take (texts, heads, tokens, width), return (texts, tokens, heads, width), as transformers wants it."""
    scale = int(query.shape[-1]) ** -0.5 if scaling is None else float(scaling)
    scores = (query * scale) @ key.transpose(2, 3)
    weights = torch.softmax(scores.float() + attention_mask, dim=-1).to(value.dtype)
    return (weights @ value).transpose(1, 2), None


def _mask(*args: Any, attention_mask: Tensor, **kwargs: Any) -> Tensor:
    """Return what is added to the scores, (texts, 1, 1, tokens)."""
    return (1 - attention_mask.float())[:, None, None] * _HIDDEN


def _in_onnx(path: Path) -> Callable[[Batch], npt.NDArray[np.float32]]:
    session = OnnxSession(path, threads=torch.get_num_threads())
    return lambda batch: session.logits(session.run(session.inputs(batch)))


def _write_script(path: Path, shapes: Shapes, precision: str) -> None:
    kinds = ("minShapes", "optShapes", "maxShapes")
    ranges = [
        f"--{kind}="
        + ",".join(f"{name}:{three[place][0]}x{three[place][1]}" for name, three in shapes.items())
        for place, kind in enumerate(kinds)
    ]
    exact = ["--noTF32"] if precision == "fp32" else []
    command = ["trtexec", f"--onnx={_GRAPH}", "--stronglyTyped", *exact, *ranges, f"--saveEngine={_ENGINE}"]
    lines = [
        "#!/bin/sh",
        f"# Builds {_ENGINE} of {_GRAPH}, with TensorRT 10.12 or newer, on the kind of GPU that is to run it.",
        "set -eu",
        'cd "$(dirname "$0")"',
        shlex.join(command),
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    path.chmod(0o755)


def _build_engine(graph: Path, path: Path, shapes: Shapes, precision: str) -> None:
    import tensorrt as trt

    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph.read_bytes()):
        errors = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise ValueError(
            f"Expected an ONNX file that TensorRT {trt.__version__} can read but it stops with: {errors[:500]}; use "
            "another format, such as onnx."
        )
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, _WORKSPACE)
    if precision == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)
    profile = builder.create_optimization_profile()
    for name, three in shapes.items():
        profile.set_shape(name, *three)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ValueError(
            f"Expected TensorRT {trt.__version__} to build an engine but it did not, for the reason that it "
            "printed; free memory of the GPU, or use another format, such as onnx."
        )
    path.write_bytes(plan)


def _in_tensorrt(path: Path) -> Callable[[Batch], npt.NDArray[np.float32]]:
    import tensorrt as trt

    engine = trt.Runtime(trt.Logger(trt.Logger.WARNING)).deserialize_cuda_engine(path.read_bytes())
    context = engine.create_execution_context()
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]

    def forward(batch: Batch) -> npt.NDArray[np.float32]:
        zeros = np.zeros_like(batch["input_ids"])
        held = {
            name: torch.from_numpy(batch.get(name, zeros)).cuda().contiguous()
            for name in names
            if name != "logits"
        }
        for name, tensor in held.items():
            context.set_input_shape(name, tuple(tensor.shape))
        held["logits"] = torch.empty(tuple(context.get_tensor_shape("logits")), device="cuda")
        for name, tensor in held.items():
            context.set_tensor_address(name, tensor.data_ptr())
        stream = torch.cuda.current_stream()
        context.execute_async_v3(stream.cuda_stream)
        stream.synchronize()
        return held["logits"].cpu().numpy()

    return forward


class TensorRTFp16(Builder):
    """TensorRT with weights and products in half precision."""

    name: ClassVar[str] = "tensorrt-fp16"
    libraries: ClassVar[tuple[str, ...]] = ("onnx", "onnxruntime")
    tolerance: ClassVar[float] = PRECISIONS["fp16"]
    precision: ClassVar[str] = "fp16"

    def check(self) -> None:
        """Refuse where the libraries for ONNX are missing; see :meth:`Builder.check`."""
        check_onnx()

    def facts(self, folder: Path) -> dict[str, Any]:
        """Return the facts of the model with the longest text of the engine; see :meth:`Builder.facts`."""
        facts = super().facts(folder)
        return {**facts, "max_positions": facts["max_positions"] or _TOKENS}

    def build(self, folder: Path, target: Path, samples: Sequence[Batch] = ()) -> float:
        """Write the files of :func:`export_tensorrt`; see :meth:`Builder.build`."""
        return export_tensorrt(folder, target, self.precision).error

    def note(self, artefact: Path) -> str | None:
        """Return what was compared, and that the engine must still be built where it must; see :meth:`Builder.note`."""
        if (artefact / _ENGINE).is_file():
            return f"The difference is that of the engine, {_ENGINE}, on the GPU here."
        return f"The difference is that of {_GRAPH} in ONNX Runtime, not of an engine; {_unbuilt(_why_not_here())}"


class TensorRTFp32(TensorRTFp16):
    """TensorRT with everything in float32."""

    name: ClassVar[str] = "tensorrt-fp32"
    tolerance: ClassVar[float] = PRECISIONS["fp32"]
    precision: ClassVar[str] = "fp32"
