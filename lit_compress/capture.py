"""Record what objectives need from one forward pass: only what was asked for, or a loud error."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from lit_compress.outputs import Capture, Outputs

#: Name under which the recording attention function is registered in transformers.
ATTENTION_NAME = "lit_compress_recording"
_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "pixel_values")


class _Recorder:
    """Collects attention tensors in call order: ALBERT calls one module once per layer, so names won't do."""

    def __init__(self, capture: Capture) -> None:
        self.capture = capture
        self.calls = 0
        self.outputs = Outputs(attention_scores={}, queries={}, keys={}, values={})

    def record(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> None:
        block, self.calls = self.calls, self.calls + 1
        for name, tensor in (("queries", query), ("keys", key), ("values", value)):
            if block in getattr(self.capture, name):
                getattr(self.outputs, name)[block] = tensor
        if block in self.capture.attention_scores:
            self.outputs.attention_scores[block] = _scores(query, key, scaling)  # type: ignore[index]


_recorder: ContextVar[_Recorder | None] = ContextVar("lit_compress_recorder", default=None)


def _scores(query: Tensor, key: Tensor, scaling: float | None) -> Tensor:
    """Return ``QKᵀ·scaling`` in at least float32: objectives must not see bf16-rounded scores."""
    with torch.autocast(query.device.type, enabled=False):
        dtype = torch.promote_types(query.dtype, torch.float32)
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        return torch.matmul(query.to(dtype) * scale, key.to(dtype).transpose(-1, -2))


def _recording_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Do exactly what sdpa does, and record on the way when a recording is active."""
    recorder = _recorder.get()
    if recorder is not None:
        recorder.record(query, key, value, scaling)
    return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)


def prepare_capture(model: PreTrainedModel, capture: Capture) -> None:
    """Make a model ready to give what ``capture`` asks for.

    Where attention tensors are needed, the model is switched to an attention implementation that
    computes with sdpa and records beside it; otherwise the model keeps the implementation it has
    (and goes back to sdpa where an earlier call had switched it). Saved configs never name ours.

    Args:
        model: A transformers encoder (BERT, RoBERTa, DistilBERT, ELECTRA, ALBERT, ViT, DeiT).
        capture: What will be recorded.

    Raises:
        ValueError: An index lies outside the model, or attention cannot be recorded in it.
    """
    _check_depth(model, capture)
    if not capture.needs_attention:
        if model.config._attn_implementation == ATTENTION_NAME:
            model.set_attn_implementation("sdpa")
        return
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        raise ValueError(
            "Expected gradient checkpointing to be off where an objective needs attention tensors, but got "
            f"{type(model).__name__} with it on, so recorded tensors would get no gradient; call "
            "model.gradient_checkpointing_disable() or use objectives on hidden states."
        )
    # With the first registration alone, transformers hands over no mask and padding is attended.
    AttentionInterface.register(ATTENTION_NAME, _recording_attention)
    AttentionMaskInterface.register(ATTENTION_NAME, sdpa_mask)
    model.set_attn_implementation(ATTENTION_NAME)
    if model.config._attn_implementation != ATTENTION_NAME:
        raise ValueError(
            f"Expected an encoder that supports transformers' AttentionInterface but got "
            f"{type(model).__name__}; use objectives on hidden states or logits for this model."
        )


def _depth(model: Any) -> int:
    return int(model.config.num_hidden_layers)


def _check_depth(model: PreTrainedModel, capture: Capture) -> None:
    layers = _depth(model)
    for name, indices in capture.to_dict().items():
        last = layers if name == "hidden_states" else layers - 1
        wrong = [index for index in indices if not 0 <= index <= last]
        if wrong:
            raise ValueError(
                f"Expected {name} indices in 0..{last} for a {type(model).__name__} with {layers} layers "
                f"but got {wrong}; change the layer map."
            )


def run_model(model: nn.Module, inputs: Mapping[str, Any], capture: Capture) -> Outputs:
    """Run one forward pass and return logits, the recorded tensors and the mask.

    Args:
        model: A model that went through ``prepare_capture`` with at least this ``capture``.
        inputs: Keyword arguments of its forward, as ``model_inputs`` picks them.
        capture: What to record.

    Returns:
        Tensors keyed by layer; hidden states in the model's dtype, attention scores in float32 or wider.

    Raises:
        RuntimeError: Something that was asked for has not been recorded.
    """
    recorder = _Recorder(capture) if capture.needs_attention else None
    token = _recorder.set(recorder)
    try:
        result = model(**inputs, output_hidden_states=bool(capture.hidden_states), return_dict=True)
    finally:
        _recorder.reset(token)
    outputs = recorder.outputs if recorder is not None else Outputs()
    outputs.logits = getattr(result, "logits", None)
    outputs.hidden_states = _pick_hidden_states(model, result, capture)
    mask = inputs.get("attention_mask")
    outputs.mask = None if mask is None else mask.bool()
    if recorder is not None:
        _check_calls(model, recorder)
    return outputs


def _pick_hidden_states(model: nn.Module, result: Any, capture: Capture) -> dict[int, Tensor]:
    if not capture.hidden_states:
        return {}
    states = getattr(result, "hidden_states", None) or ()
    expected = _depth(model) + 1
    if len(states) != expected:
        raise RuntimeError(
            f"Expected {expected} hidden states (embeddings and {expected - 1} layers) from "
            f"{type(model).__name__} but got {len(states)}; layers were replaced, or copied with their "
            "hooks, after a first recorded forward: build the model again from its config and state dict."
        )
    return {index: states[index] for index in sorted(capture.hidden_states)}


def _check_calls(model: nn.Module, recorder: _Recorder) -> None:
    expected = _depth(model)
    if recorder.calls != expected:
        raise RuntimeError(
            f"Expected {expected} recorded attention calls from {type(model).__name__} but got "
            f"{recorder.calls}; call prepare_capture(model, capture) with this capture before run_model, "
            "and do not change the attention implementation afterwards."
        )


def model_inputs(model: nn.Module, batch: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Pick the inputs out of a batch that a model's forward accepts.

    Args:
        model: Its forward's parameter names decide (DistilBERT takes no ``token_type_ids``).
        batch: A batch of a data module.
        prefix: ``"teacher_"`` picks ``teacher_input_ids`` and its companions where the batch has them
            (a second tokenizer), else the plain ones.

    Returns:
        Keyword arguments for the model.

    Raises:
        ValueError: The batch has no input for the model.
    """
    if f"{prefix}input_ids" not in batch:
        prefix = ""
    accepted = _accepted_inputs(type(model).forward)
    inputs = {name: batch[prefix + name] for name in accepted if prefix + name in batch}
    if "input_ids" not in inputs and "pixel_values" not in inputs:
        raise ValueError(
            f"Expected a batch with input_ids or pixel_values for {type(model).__name__} but got the keys "
            f"{sorted(batch)}; check the collate function of the data module."
        )
    return inputs


@lru_cache(maxsize=64)
def _accepted_inputs(forward: Callable[..., Any]) -> tuple[str, ...]:
    parameters = inspect.signature(forward).parameters
    return tuple(name for name in _INPUTS if name in parameters)
