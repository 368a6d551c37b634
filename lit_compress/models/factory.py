"""Pretrained classifiers, ready to train."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedModel

from lit_compress.models.loading import load_model, unreadable
from lit_compress.models.manifest import model_class, read_manifest
from lit_compress.models.names import resolve_model
from lit_compress.models.ragged import NOTE, load_ragged


def from_pretrained(
    name: str,
    num_labels: int | None = None,
    label_names: list[str] | None = None,
    is_regression: bool | None = None,
    dtype: str | None = None,
) -> PreTrainedModel:
    """Load a pretrained encoder with a head for classification or regression, in train mode.

    Differs from ``AutoModelForSequenceClassification.from_pretrained`` in four ways: the model is in train
    mode (a Lightning fit does not change the mode, so it would train without dropout); the weights are
    float32 also where the file holds half precision; encoder weights that the file lacks are refused
    instead of drawn at random; and nothing is printed. A new head is drawn from torch's global generator.

    Args:
        name: Local folder, hub name, or ``package:NAME``.
        num_labels: Outputs of the head; those of the file where ``None``.
        label_names: One name per output, kept in the configuration.
        is_regression: Whether the head predicts one score, not classes; as the file says where ``None``.
        dtype: Name of the weights' torch type, such as ``"bfloat16"``; ``"float32"`` where ``None``.

    Returns:
        The model in train mode.

    Raises:
        ValueError: The model is missing, unreadable, incomplete, or has a head for another number of labels.
    """
    source = resolve_model(name)
    config = load_config(source)
    trained = any(name.endswith("SequenceClassification") for name in config.architectures or [])
    if trained and num_labels not in (None, config.num_labels):
        raise ValueError(
            f"Expected a model for {num_labels} labels but {source} has a trained head for "
            f"{config.num_labels}; give a model that was trained on this task, or save its encoder alone "
            "with AutoModel.from_pretrained(folder).save_pretrained(new_folder) and name the new folder."
        )
    set_labels(config, num_labels or config.num_labels, label_names, is_regression)
    weights = getattr(torch, dtype or "float32")
    manifest = read_manifest(source)
    if manifest is not None and manifest["transforms"]:
        # Its shape is recorded in it, so that checkpoints and folders of this fit have it too.
        base_class = model_class(manifest, source)
        if not trained:
            raise ValueError(
                f"Expected a text classifier in {source} but got a {base_class.__name__} whose blocks differ, to "
                "which no new head can be added; shrink after training with the head, or to one size."
            )
        return load_ragged(Path(source), base_class, config, manifest["transforms"], weights).train()
    return load_model(AutoModelForSequenceClassification, source, config, weights, not trained).train()


def load_config(source: str) -> PreTrainedConfig:
    """Read the configuration of a resolved model.

    Args:
        source: Folder or hub name, as ``resolve_model`` returns it.

    Returns:
        Its configuration.

    Raises:
        ValueError: It cannot be read.
    """
    try:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(unreadable(source, error)) from error
    vars(config).pop(NOTE, None)  # about the folder, not about the model
    return config


def set_labels(
    config: PreTrainedConfig,
    num_labels: int | None,
    label_names: Sequence[str] | None,
    is_regression: bool | None,
) -> None:
    """Write the labels of a task into a configuration.

    Args:
        config: Changed in place.
        num_labels: Outputs of the head; 1 for regression.
        label_names: One name per output; the present names stay where ``None`` and the number is unchanged.
        is_regression: Whether the head predicts one score; unchanged where ``None``.

    Raises:
        ValueError: The numbers do not fit together.
    """
    if is_regression and num_labels != 1:
        raise ValueError(
            f"Expected num_labels=1 for regression but got {num_labels}; leave num_labels out or use classes."
        )
    if label_names is not None and not is_regression and len(label_names) != num_labels:
        raise ValueError(
            f"Expected {num_labels} label names but got {len(label_names)} ({', '.join(label_names[:5])}); "
            "give one name per label, in the order of the label ids."
        )
    if num_labels != config.num_labels:
        config.num_labels = num_labels or 1
    if label_names is not None and not is_regression:
        config.id2label = dict(enumerate(label_names))
        config.label2id = {label: index for index, label in enumerate(label_names)}
    if is_regression is not None:
        config.problem_type = "regression" if is_regression else "single_label_classification"
