"""Students from checkpoints alone: what a checkpoint says about the model whose weights it holds."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from lit_compress.models.full_config import full_config
from lit_compress.models.manifest import model_class
from lit_compress.models.ragged import build_model, load_weights

#: Entry of a checkpoint.
STUDENT = "student"
_PREFIX = "student."


def describe_student(model: PreTrainedModel) -> dict[str, Any]:
    """Return class and configuration of a model as plain data, for a checkpoint."""
    with full_config(model):
        config = json.loads(model.config.to_json_string())
    return {"base_class": type(model).__name__, "config": config}


def rebuild_student(path: str | Path) -> PreTrainedModel:
    """Build the student of a checkpoint, with its gates and masks, without its teacher or any callback.

    Args:
        path: A checkpoint of ``FineTuning`` or ``Distillation``.

    Returns:
        The model in eval mode.

    Raises:
        ValueError: The file is no such checkpoint, is damaged, or its weights do not fit.
    """
    try:
        checkpoint: Mapping[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        about, state = checkpoint[STUDENT], checkpoint["state_dict"]
    except (
        KeyError,
        TypeError,
        ValueError,
        OSError,
        RuntimeError,
        EOFError,
        pickle.UnpicklingError,
    ) as error:
        raise ValueError(
            f"Expected a checkpoint of FineTuning or Distillation that says what its student is in {path} but it "
            f"cannot be read ({type(error).__name__}: {str(error)[:200]}); give a checkpoint that this version "
            "wrote, or a model folder."
        ) from error
    base_class = model_class(about, str(Path(path).parent))
    config = base_class.config_class.from_dict(about["config"])  # type: ignore[union-attr]
    model = build_model(base_class, config, checkpoint.get("transforms", []), f"the checkpoint {path}")
    weights = {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_PREFIX)}
    load_weights(model, weights, str(path))
    return model
