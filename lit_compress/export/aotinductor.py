"""Packages of AOTInductor: ``torch.export``, compiled ahead of time for the CPU.

The package is for the torch version and the kind of processor (x86-64 with AVX2, or Arm) that it was compiled with.
Neither freezing nor max-autotune is used: on MiniLM's layers, one thread, lengths 17 to 128, freezing changed the
time by 2 % at most, and max-autotune triples the time that compiling takes for code that was no faster.
"""

from __future__ import annotations

import copy
import errno
import io
import os
import platform
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from transformers import PreTrainedModel

from lit_compress.benchmark.runtimes.aotinductor import AotInductorSession
from lit_compress.benchmark.runtimes.base import Batch
from lit_compress.export.first_token import first_token_alone, last_attention
from lit_compress.export.logits import Logits, example_inputs
from lit_compress.export.parity import check_parity, max_length
from lit_compress.files import writing

_CACHE = "TORCHINDUCTOR_CACHE_DIR"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_compiler() -> None:
    """Refuse where there is no C++ compiler.

    Raises:
        ImportError: The message says how to get one.
    """
    name = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(name) is None:
        raise ImportError(
            f"Expected a C++ compiler for AOTInductor but got no {name!r}; run `apt install g++`, or set CXX to "
            "another one. It is needed where a model is compiled, not where the package runs."
        )


def export_aotinductor(
    model: PreTrainedModel,
    path: str | Path,
    dtype: torch.dtype = torch.float32,
    tolerance: float = 1e-3,
) -> float:
    """Compile a text classifier to a package with free batch size and length.

    Its inputs are the tokenizer's int64 ``input_ids`` and ``attention_mask``, and ``token_type_ids`` where the
    model tells segments apart; its output is the logits in float32. Whoever loads it runs machine code.

    Args:
        model: The model; a copy is compiled.
        path: The package, ending in ``.pt2``; it is there only after it has passed the parity check.
        dtype: Type of weights and activations.
        tolerance: Largest error that passes.

    Returns:
        The error that :func:`~lit_compress.export.parity.check_parity` found.

    Raises:
        ImportError: There is no C++ compiler.
        ValueError: The model cannot be exported or compiled, or the package computes something else.
        OSError: The package, or what the compiler writes on the way, could not be written; nothing is left.
    """
    check_compiler()
    model, path = copy.deepcopy(model).cpu().float().eval(), Path(path)
    with _scratch(path.parent) as scratch:
        part = scratch / path.name
        try:
            package = _compile(_exported(model, dtype), model)
        except (
            Exception
        ) as error:  # whatever the code of a model holds that torch.export or the compiler does not take
            full = _full_disk(error)
            if full is not None:
                raise OSError(f"Expected to compile {path} but got: {full}; check the disk.") from error
            raise ValueError(
                f"Expected a text classifier that torch.export and AOTInductor can compile but got "
                f"{type(model).__name__}, which stops with {type(error).__name__}: {_reason(error)}; "
                "use another runtime."
            ) from error
        with writing(path):
            part.write_bytes(package)
        session = AotInductorSession(part, threads=torch.get_num_threads())

        def forward(batch: Batch) -> npt.NDArray[np.float32]:
            return session.logits(session.run(session.inputs(batch)))

        difference = check_parity(forward, model, tolerance, "the AOTInductor package")
        part.replace(path)
    return difference


@torch.no_grad()
def _exported(model: PreTrainedModel, dtype: torch.dtype) -> ExportedProgram:
    inputs = example_inputs(model)
    # From one on: else sizes of one, the most frequent batch, would be left out as special.
    batch, length = Dim("batch", min=1), Dim("length", min=1, max=max_length(model))
    shapes = {name: {0: batch, 1: length} for name in inputs}
    where, model = last_attention(model), copy.deepcopy(model)
    wrapped = nn.Module.to(Logits(model).eval(), dtype=dtype)
    with first_token_alone(model, where):
        return torch.export.export(wrapped, (), inputs, dynamic_shapes=shapes)


@torch.no_grad()
def _compile(program: ExportedProgram, model: PreTrainedModel) -> bytes:
    settings: dict[str, Any] = {
        # Else the code runs with as many threads as compiled it.
        "cpp.dynamic_threads": True,
        "aot_inductor.enable_line_tables": False,
        "aot_inductor.metadata": {
            "inputs": " ".join(example_inputs(model)),
            "vocabulary": str(model.config.vocab_size),
            "longest": str(max_length(model) or 0),
        },
    }
    if platform.machine() in ("x86_64", "AMD64"):
        # Runs on every server of the last ten years, and not only on processors like this one, for 2 % of the
        # time: matrix products and attention are torch's own, which looks at the processor when it runs.
        settings |= {"cpp.march": "x86-64-v3", "cpp.simdlen": 256}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Not into the file itself: where the disk is full, torch's own writer ends the process.
        package = io.BytesIO()
        torch._inductor.aoti_compile_and_package(program, package_path=package, inductor_configs=settings)
    return package.getvalue()


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Let the compiler work in a folder that is gone at the end; its own place keeps a copy of the weights."""
    before = os.environ.get(_CACHE)
    with tempfile.TemporaryDirectory(prefix=".aotinductor-", dir=folder) as scratch:
        os.environ[_CACHE] = scratch
        try:
            yield Path(scratch)
        finally:
            os.environ.pop(_CACHE)
            if before is not None:
                os.environ[_CACHE] = before


def _full_disk(error: Exception) -> str | None:
    """Return why nothing more could be written, where that is what stopped inductor or the compiler."""
    inner = getattr(error, "inner_exception", error)
    if isinstance(inner, OSError):
        return inner.strerror if inner.errno in _FULL else None
    # Whom a limit on the size of files stops is ended by a signal.
    words = [*map(os.strerror, _FULL), "File size limit exceeded"]
    return next((word for word in words if word in str(error)), None)


def _reason(error: Exception) -> str:
    """Return the line that says why; a compiler's error begins with its command."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "error:" in line] or lines
    return telling[0][:200] if telling else ""
