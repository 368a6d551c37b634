"""Eager PyTorch, the reference, and the same with bfloat16 weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from lit_compress.benchmark.runtimes.base import Batch, Runtime, Session
from lit_compress.models.checkpoint import load


class TorchSession(Session):
    """A model in the memory of this process.

    Args:
        forward: The model, or what compiled it.
        device: Where its weights are.
    """

    def __init__(self, forward: Any, device: str) -> None:
        self.forward = forward
        self.device = device

    def inputs(self, batch: Batch) -> dict[str, Tensor]:
        """Return the batch as tensors on the device."""
        return {name: torch.from_numpy(array).to(self.device) for name, array in batch.items()}

    @torch.inference_mode()
    def run(self, inputs: dict[str, Tensor]) -> Tensor:
        """Return the logits as a tensor; on a GPU they may still be being computed."""
        return self.forward(**inputs).logits

    def logits(self, output: Tensor) -> npt.NDArray[np.float32]:
        """Return the logits in float32."""
        return output.float().cpu().numpy()


class TorchFp32(Runtime):
    """Eager PyTorch with float32 weights, whatever the file holds."""

    name: ClassVar[str] = "torch-fp32"
    narrow_end: ClassVar[bool] = False
    devices: ClassVar[tuple[str, ...]] = ("cpu", "cuda")
    dtype: ClassVar[torch.dtype] = torch.float32

    def imports(self, folder: Path) -> None:
        """Import the code of the model; see :meth:`Runtime.imports`.

        Raises:
            ValueError: The folder holds no text classifier.
        """
        config = AutoConfig.from_pretrained(folder)
        if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
            raise ValueError(
                f"Expected a model that classifies texts but {folder} holds a {config.model_type!r}; "
                "give a folder that AutoModelForSequenceClassification loads."
            )
        # Looking the class up imports its module; the product makes the math libraries take their buffers.
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
        torch.ones(64, 64, dtype=self.dtype) @ torch.ones(64, 64, dtype=self.dtype)

    def open(self, folder: Path, artefact: Path, device: str, threads: int) -> TorchSession:
        """Load the model folder; see :meth:`Runtime.open`."""
        torch.set_num_threads(threads)
        model = load(folder)
        nn.Module.to(model, device=torch.device(device), dtype=self.dtype)
        return TorchSession(model, device)


class TorchBf16(TorchFp32):
    """Eager PyTorch with bfloat16 weights and activations: the cheapest faster form of a model."""

    name: ClassVar[str] = "torch-bf16"
    # Eight bits of mantissa, through many layers.
    tolerance: ClassVar[float] = 0.05
    dtype: ClassVar[torch.dtype] = torch.bfloat16
