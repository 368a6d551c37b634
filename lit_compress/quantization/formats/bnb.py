"""4-bit and 8-bit layers of bitsandbytes, in folders that stock transformers loads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from lit_compress.models.transforms import transforms_of
from lit_compress.quantization.choice import choose
from lit_compress.quantization.formats.bnb_check import require_bitsandbytes

#: 4 bits with the quantiles of a normal distribution (arXiv:2305.14314), 4 bits as a floating-point number, and
#: LLM.int8 (arXiv:2208.07339).
FORMATS = ("nf4", "fp4", "llm_int8")
# The kernels of a CPU take blocks of 32 outputs, and the scales of 64 weights lie within one output.
_OUTPUTS, _BLOCK = 32, 64
# Inputs with a larger value are multiplied in floating point: the default of the paper and of transformers.
_OUTLIER = 6.0


@torch.no_grad()
def to_bitsandbytes(
    model: PreTrainedModel,
    kind: str,
    dtype: torch.dtype = torch.float32,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
) -> dict[str, str]:
    """Replace projections by layers of bitsandbytes.

    The scales of 4-bit weights are rounded to 8 bits themselves. Embeddings stay as they are: the layers that
    bitsandbytes has for them cannot be saved.

    Args:
        model: A finished model in float weights, in eval mode, on the CPU; changed in place.
        kind: One of :data:`FORMATS`.
        dtype: Type of everything that is not rounded, and of what is computed: float32 or bfloat16. On a CPU with
            instructions for bfloat16 the 4-bit layers compute in it anyway.
        include: Parts of the names of projections to round; all where ``None``.
        exclude: Parts of the names of those to leave as they are.

    Returns:
        Names of the projections that were wanted but stay as they are, with the reason.

    Raises:
        ValueError: The model or a weight cannot be rounded like this, or nothing is left to round.
        ImportError: bitsandbytes is missing.
    """
    require_bitsandbytes(f"the method {kind}")
    structure = [name for name, _ in transforms_of(model)]
    if structure:
        raise ValueError(
            f"Expected a model that stock transformers loads but it has {structure[0]}, which the layers of "
            f"bitsandbytes know nothing of; take --method nearest or gptq for {kind}'s size."
        )
    projections, _ = choose(model, include, exclude)
    kept = {name: why for name in projections if (why := _unfit(model, name, kind))}
    chosen = [name for name in projections if name not in kept]
    if not chosen:
        name, why = next(iter(kept.items()))
        raise ValueError(
            f"Expected projections that {kind} can round but {name} has {why}, and so all others; take "
            "--method nearest."
        )
    rounded = {f"{name}.weight" for name in chosen}
    for name, parameter in model.named_parameters():
        if name not in rounded:
            parameter.data = parameter.data.to(dtype)
    for name in chosen:
        _replace(model, name, kind, dtype)
    everything = [name for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D))]
    _tell_transformers(model, kind, dtype, [name for name in everything if name not in chosen])
    return kept


def _unfit(model: PreTrainedModel, name: str, kind: str) -> str | None:
    """Return why a projection cannot be rounded, ``None`` where it can."""
    module: Any = model.get_submodule(name)
    if module is model.get_output_embeddings():
        return "the logits over the vocabulary, which bitsandbytes leaves in floats"
    inputs, outputs = _matrix(module).shape[::-1]
    if kind != "llm_int8" and outputs % _OUTPUTS:
        return f"{outputs:,} outputs, no multiple of {_OUTPUTS}"
    if kind != "llm_int8" and inputs % _BLOCK:
        return f"{inputs:,} inputs, no multiple of {_BLOCK}"
    return None


def _matrix(module: Any) -> Tensor:
    """Return a weight with the outputs first."""
    weight: Tensor = module.weight.data
    return weight.t() if isinstance(module, Conv1D) else weight


def _replace(model: PreTrainedModel, name: str, kind: str, dtype: torch.dtype) -> None:
    from bitsandbytes import nn as bnb

    old: Any = model.get_submodule(name)
    values = _matrix(old).contiguous()
    if not bool(values.isfinite().all()):
        raise ValueError(
            f"Expected finite weights in {name} but there are infinities or NaN; check the model."
        )
    outputs, inputs = values.shape
    new: Any
    weight: Any
    if kind == "llm_int8":
        new = bnb.Linear8bitLt(
            inputs, outputs, old.bias is not None, has_fp16_weights=False, threshold=_OUTLIER, device="meta"
        )
        weight = bnb.Int8Params(values, requires_grad=False, has_fp16_weights=False)
        new.weight = weight.to("cpu")
    else:
        new = bnb.Linear4bit(
            inputs,
            outputs,
            old.bias is not None,
            dtype,
            compress_statistics=True,
            quant_type=kind,
            device="meta",
        )
        weight = bnb.Params4bit(
            values, requires_grad=False, compress_statistics=True, quant_type=kind, module=new
        )
        new.weight = weight.to("cpu")
        new.weight.quant_state.dtype = dtype
    new.bias = old.bias
    new.source_cls = type(old)
    model.set_submodule(name, new.requires_grad_(False).train(old.training))


def _tell_transformers(model: Any, kind: str, dtype: torch.dtype, left: list[str]) -> None:
    """Set what ``from_pretrained`` sets on such models; the configuration says how to load them."""
    from transformers import BitsAndBytesConfig
    from transformers.quantizers import AutoHfQuantizer

    eight = {"load_in_8bit": True, "llm_int8_threshold": _OUTLIER}
    four = {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": kind,
        "bnb_4bit_use_double_quant": True,
        "bnb_4bit_compute_dtype": dtype,
    }
    settings = BitsAndBytesConfig(**(eight if kind == "llm_int8" else four), llm_int8_skip_modules=left)
    model.config.quantization_config = settings
    model.hf_quantizer = AutoHfQuantizer.from_config(settings, pre_quantized=True)
    model.quantization_method = settings.quant_method
    model.is_quantized = True
    setattr(model, "is_loaded_in_8bit" if kind == "llm_int8" else "is_loaded_in_4bit", True)
