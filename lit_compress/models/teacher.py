"""The teacher: frozen, in eval mode, answering from the model or from disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lit_compress.capture import model_inputs, prepare_capture, run_model
from lit_compress.models.cache_spec import Answer, CacheSpec, TextData
from lit_compress.models.cached_teacher import CachedTeacher
from lit_compress.models.checkpoint import load
from lit_compress.models.factory import load_config
from lit_compress.models.names import resolve_model
from lit_compress.models.teacher_cache import ensure_cache
from lit_compress.outputs import Capture, Outputs

__all__ = ["CachedTeacher", "LiveTeacher", "Teacher", "runtime_dtype"]

Precision = Literal["auto", "fp32", "bf16"]


class Teacher:
    """Names a fine-tuned teacher and says how it answers.

    Args:
        model: Local folder, hub name, or ``package:NAME``.
        cache: Folder for the teacher's answers on disk. They are computed once, when the first fit starts,
            and read by row in every fit after it; ``None`` runs the teacher in every step.
        precision: Arithmetic of the teacher: ``auto`` is bf16 where the device computes it natively (CPUs
            with AVX512-BF16 or AMX, most GPUs) and fp32 elsewhere.
        cache_dtype: Type of the cached states; logits are always float32.
    """

    def __init__(
        self,
        model: str,
        cache: str | None = None,
        precision: Precision = "auto",
        cache_dtype: Literal["float32", "float16"] = "float16",
    ) -> None:
        _check("precision", precision, ("auto", "fp32", "bf16"))
        _check("cache_dtype", cache_dtype, ("float32", "float16"))
        self.model = model
        self.cache = cache
        self.precision: Precision = precision
        self.cache_dtype = cache_dtype

    def load(self) -> PreTrainedModel:
        """Return the teacher in float32, frozen and in eval mode; the global random state is left alone.

        Students copy these weights, so they are not in the reduced precision of ``live`` and ``cached``.

        Raises:
            ValueError: The model is missing, damaged, or was never fine-tuned, so its head would be random.
        """
        architectures = load_config(resolve_model(self.model)).architectures or ["no classifier"]
        if not any(name.endswith("Classification") for name in architectures):
            raise ValueError(
                f"Expected a fine-tuned classifier in {self.model!r} as the teacher but got "
                f"{', '.join(architectures)}, whose new head would teach noise; fine-tune it first with "
                "FineTuning, or give the folder of a fine-tuned model."
            )
        with torch.random.fork_rng(devices=[]):
            return load(self.model).float().requires_grad_(False)

    def live(self, model: PreTrainedModel, capture: Capture) -> LiveTeacher:
        """Return a teacher that runs in every step, in this precision.

        Args:
            model: What ``load`` returned; its weights are converted in place at the first use.
            capture: What the objectives need.
        """
        return LiveTeacher(model, capture, self.precision)

    def cached(
        self,
        model: PreTrainedModel,
        data: TextData,
        capture: Capture,
        split: str = "train",
        device: torch.device | str | None = None,
        batch_size: int = 64,
    ) -> CachedTeacher:
        """Return a teacher that answers from ``cache``; compute the cache first where it is missing.

        Args:
            model: What ``load`` returned; not changed.
            data: The data module of the fit.
            capture: What the objectives need.
            split: Whose rows to answer for.
            device: Where to compute a missing cache; a GPU where there is one, else the CPU.
            batch_size: Rows per teacher batch while computing it.

        Raises:
            ValueError: The folder holds something else, is damaged, or belongs to another teacher, data set,
                tokenisation or precision.
        """
        if self.cache is None:
            raise ValueError(
                "Expected a folder in teacher.cache but got None; give one or use a live teacher."
            )
        device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        precision = str(runtime_dtype(self.precision, device)).removeprefix("torch.")
        spec = CacheSpec(Path(self.cache), split, capture, precision, self.cache_dtype)

        def answer() -> Answer:
            # A second copy: the caller's one stays in float32 and on its device.
            return LiveTeacher(self.load(), capture, self.precision).to(device).outputs

        return ensure_cache(spec, model, data, answer, batch_size)


class LiveTeacher:
    """Runs the teacher in every step.

    A plain object: an owner that is an ``nn.Module`` does not register it, so the teacher is in no state
    dict, no optimizer, no DDP bucket and out of reach of ``owner.train()``.

    Args:
        model: The teacher; it is frozen, put into eval mode, and converted to ``precision`` on its device.
        capture: Everything that ``outputs`` may be asked for.
        precision: ``auto``, ``fp32`` or ``bf16``, see ``Teacher``.
    """

    def __init__(self, model: PreTrainedModel, capture: Capture, precision: Precision = "fp32") -> None:
        self.model = model.eval().requires_grad_(False)
        self.capture = capture
        self.precision: Precision = precision
        self._converted = False
        prepare_capture(model, capture)

    def to(self, device: torch.device | str) -> LiveTeacher:
        """Move the teacher, and convert it to the precision that is right there; return it."""
        device = torch.device(device)
        dtype = self.model.dtype if self._converted else runtime_dtype(self.precision, device)
        self.model.to(device=device, dtype=dtype)
        self._converted = True
        return self

    def outputs(self, batch: Mapping[str, Any], capture: Capture | None = None) -> Outputs:
        """Answer a batch.

        Args:
            batch: A batch of the data module; ``teacher_*`` inputs are preferred to the plain ones.
            capture: What this step needs, a part of the capture of the constructor; all of it where ``None``.

        Returns:
            Float32 tensors that autograd may save, on the teacher's device.
        """
        if not self._converted:
            self.to(self.model.device)
        # Somebody who walks over all modules can reach the teacher; a look at 200 flags costs microseconds.
        if any(module.training for module in self.model.modules()):
            self.model.eval()
        # The trainer's autocast is the student's: the teacher has its own precision, the same as when cached.
        with torch.inference_mode(), torch.autocast(self.model.device.type, enabled=False):
            inputs = model_inputs(self.model, batch, prefix="teacher_")
            inputs = {name: tensor.to(self.model.device) for name, tensor in inputs.items()}
            answer = run_model(self.model, inputs, self.capture if capture is None else capture)
        return _usable(answer)

    def __deepcopy__(self, memo: dict[int, Any]) -> LiveTeacher:
        """Weight-averaging callbacks copy whole modules; one frozen teacher serves all copies."""
        return self


def runtime_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the type in which a teacher runs.

    Args:
        precision: ``auto``, ``fp32`` or ``bf16``.
        device: Where it runs.

    Returns:
        ``torch.bfloat16`` or ``torch.float32``.
    """
    if precision == "auto":
        return torch.bfloat16 if _native_bf16(device) else torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float32


def _native_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    # Public since torch 2.11 or so; without it fp32 is the answer that cannot be wrong.
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _usable(outputs: Outputs) -> Outputs:
    """Copy inference tensors into normal ones: autograd refuses to save the former for the backward pass."""

    def convert(value: Any) -> Any:
        if isinstance(value, Tensor):
            copied = value.dtype if value.dtype == torch.bool else torch.float32
            return value.to(copied, copy=True)
        return {index: convert(tensor) for index, tensor in value.items()} if value is not None else None

    return Outputs(**{field.name: convert(getattr(outputs, field.name)) for field in fields(outputs)})


def _check(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"Expected teacher.{name} to be one of {', '.join(allowed)} but got {value!r}.")
