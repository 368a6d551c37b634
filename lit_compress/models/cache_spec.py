"""What a teacher cache is made of: the teacher, the rows, and what is kept of the answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from transformers import PreTrainedModel

from lit_compress.outputs import Capture, Outputs

#: Answers a batch; what ``LiveTeacher.outputs`` is.
Answer = Callable[[Mapping[str, Any]], Outputs]

#: Configuration entries that do not change an answer.
_VOLATILE = ("transformers_version", "_name_or_path", "architectures", "dtype", "id2label", "label2id")


class TextData(Protocol):
    """What a cache needs of a data module."""

    teacher_tokenizer_object: Any

    def fingerprint(self, split: str, side: Literal["student", "teacher"] = "student") -> str:
        """Identify the rows, their tokenizer and the truncation."""

    def rows(self, split: str) -> Any:
        """Return the tokenised rows as a ``datasets.Dataset``."""

    def sequential_dataloader(self, split: str, batch_size: int) -> Iterable[Mapping[str, Any]]:
        """Return every row exactly once, always in the same order."""


@dataclass(frozen=True)
class CacheSpec:
    """What is cached, where and how.

    Args:
        path: Folder of the cache.
        split: Split of the data.
        capture: What the objectives need besides the logits.
        precision: Torch type in which the teacher runs.
        dtype: Torch type of the states on disk.
    """

    path: Path
    split: str
    capture: Capture
    precision: str = "float32"
    dtype: str = "float16"

    def identity(self, model: PreTrainedModel, data: TextData) -> dict[str, str]:
        """Return everything that the content of the cache depends on, by part.

        Args:
            model: The teacher as it was loaded, in float32.
            data: The data module.
        """
        side: Literal["student", "teacher"] = (
            "student" if data.teacher_tokenizer_object is None else "teacher"
        )
        return {
            "teacher": weights_fingerprint(model),
            "precision": self.precision,
            "data": data.fingerprint(self.split, side),
            "split": self.split,
            "dtype": self.dtype,
        }


def weights_fingerprint(model: PreTrainedModel) -> str:
    """Return a hash of the weights and of what the configuration adds to them.

    Args:
        model: The teacher as it was loaded, in float32.
    """
    config = {k: v for k, v in model.config.to_diff_dict().items() if k not in _VOLATILE}
    digest = hashlib.sha256(json.dumps([type(model).__name__, config], sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
