"""Whether a smaller model computes what the larger one does."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lit_compress.benchmark.workload import token_batch
from lit_compress.export.parity import max_length
from lit_compress.pruning.sample_inputs import make_inputs

# Tokens of the texts: padding of several lengths.
_LENGTHS = (17, 9, 2, 13)


def largest_difference(
    model: PreTrainedModel, small: PreTrainedModel, old_ids: Sequence[int] | None = None
) -> tuple[float, float]:
    """Compare two models on random inputs in float64; texts are padded on the right.

    Args:
        model: The larger model, masked or not; not changed.
        small: The smaller one; not changed.
        old_ids: Token id in the larger model by that in the smaller one, where its vocabulary is smaller.

    Returns:
        The largest difference of a logit (of a hidden state, where there is no head), and the largest value.
    """
    inputs = random_inputs(small)
    before = dict(inputs)
    if old_ids is not None:
        before = {name: _renumbered(value, name, old_ids) for name, value in inputs.items()}
    first, second = _run(model, before), _run(small, inputs)
    if old_ids is not None and first.shape != second.shape:
        first = first[..., list(old_ids)]  # an output layer over the vocabulary
    return float((first - second).abs().max()), float(first.abs().max())


def random_inputs(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return a batch that a model takes: texts of several lengths with padding on the right, or what else it reads."""
    config = model.config
    if model.main_input_name != "input_ids":
        return make_inputs(model, 2, 5)
    longest = max_length(model) or max(_LENGTHS)
    lengths = [min(length, longest) for length in _LENGTHS]
    batch = token_batch(lengths, config.vocab_size, getattr(config, "pad_token_id", None), seed=0)
    return {name: torch.from_numpy(array) for name, array in batch.items()}


def _renumbered(value: Tensor, name: str, old_ids: Sequence[int]) -> Tensor:
    return torch.tensor(old_ids)[value] if name.endswith("input_ids") else value


@torch.no_grad()
def _run(model: PreTrainedModel, inputs: dict[str, Tensor]) -> Tensor:
    """Return the logits in float64, of texts only where there is a token."""
    exact = copy.deepcopy(model).cpu().double().eval()
    inputs = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
    output = exact(**inputs)
    values: Tensor = output["logits"] if "logits" in output else output[0]
    mask = inputs.get("attention_mask")
    return values[mask.bool()] if mask is not None and values.shape[:2] == mask.shape else values
