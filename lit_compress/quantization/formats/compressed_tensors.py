"""Model folders in the compressed-tensors format, which stock transformers loads where that package is installed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lit_compress.files import whole_folder
from lit_compress.models.checkpoint import check_place
from lit_compress.models.loading import quiet
from lit_compress.models.manifest import build_manifest, write_manifest
from lit_compress.models.transforms import transforms_of
from lit_compress.quantization.formats.compressed_tensors_reader import require_compressed_tensors
from lit_compress.quantization.grids import StoredInput, StoredMatrix, take_apart
from lit_compress.quantization.scheme import Scheme

_ROUNDED = ("input_quantizers", "packed_weights")
_WIDTHS = (4, 8)


def save_compressed_tensors(
    path: str | Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    manifest: Mapping[str, Any],
    card: str | None = None,
) -> Path:
    """Write the folder of a rounded model in the compressed-tensors format.

    Weights alone become ``pack-quantized``, weights and activations ``int-quantized``.

    Args:
        path: The folder; a model folder that is already there is replaced.
        model: A model whose ``Linear`` layers are rounded to 4 or 8 bits per channel or per group, with or without
            activations of 8 bits; not changed.
        tokenizer: Its tokenizer, if any.
        manifest: Facts about the run, see ``build_manifest``.
        card: Text of the model card.

    Returns:
        The folder.

    Raises:
        ValueError: The format does not have what the model has.
        ImportError: The package is missing.
    """
    require_compressed_tensors("the format compressed-tensors")
    path = Path(path).absolute()
    check_place(path)
    plain, matrices, inputs = take_apart(model)
    check_format(model, matrices, inputs)
    settings = _settings(plain, matrices, inputs)
    with whole_folder(path) as part, quiet():
        plain.save_pretrained(part, safe_serialization=True)
        _replace_weights(part, matrices, inputs)
        config = json.loads((part / "config.json").read_text(encoding="utf-8"))
        config["quantization_config"] = settings
        (part / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        if tokenizer is not None:
            tokenizer.save_pretrained(part)
        write_manifest(part, build_manifest(plain, manifest))
        if card is not None:
            (part / "README.md").write_text(card, encoding="utf-8")
    return path


def check_format(
    model: PreTrainedModel, matrices: Mapping[str, StoredMatrix], inputs: Mapping[str, StoredInput]
) -> None:
    """Refuse what compressed-tensors has no word for.

    Raises:
        ValueError: Names the first such thing, and what to do.
    """
    others = [name for name, _ in transforms_of(model) if name not in _ROUNDED]
    if others:
        raise ValueError(
            f"Expected blocks of one size for the format compressed-tensors but the model has {others[0]}; leave "
            "--format out."
        )
    for name, matrix in matrices.items():
        module = model.get_submodule(name.rpartition(".")[0])
        if type(module) is not nn.Linear:
            hint = "give --embedding-bits 0" if isinstance(module, nn.Embedding) else "leave --format out"
            raise ValueError(
                f"Expected Linear layers alone for the format compressed-tensors but {name} belongs to a "
                f"{type(module).__name__}; {hint}."
            )
        fix = _fix(matrix.scheme)
        if fix is not None:
            raise ValueError(
                f"Expected 4 or 8 symmetric bits per channel or group for the format compressed-tensors but {name} is "
                f"{matrix.scheme}; {fix}, or leave --format out."
            )
        if inputs and (matrix.scheme.bits != 8 or matrix.scheme.per != "channel"):
            raise ValueError(
                f"Expected int8 per channel beside activations for the format compressed-tensors but {name} is "
                f"{matrix.scheme}; leave --activations or --format out."
            )
    schemes = {matrix.scheme for matrix in matrices.values()}
    if len(schemes) != 1:
        raise ValueError(
            f"Expected one scheme for all layers for the format compressed-tensors but got "
            f"{', '.join(map(str, schemes)) or 'none'}; leave --format out."
        )


def _fix(scheme: Scheme) -> str | None:
    """Return what to do about weights that are rounded as the format has no word for."""
    if not scheme.symmetric:
        return "leave --zero-points out"
    if scheme.bits not in _WIDTHS:
        return "change --bits"
    return {"tensor": "leave --per tensor out", "rows": "leave --mixed out"}.get(scheme.per)


def _settings(
    model: PreTrainedModel, matrices: Mapping[str, StoredMatrix], inputs: Mapping[str, StoredInput]
) -> dict[str, Any]:
    rounded = {name.rpartition(".")[0] for name in matrices}
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    group = {
        "targets": ["Linear"],
        "weights": _words(next(iter(matrices.values())).scheme),
        "input_activations": None,
        "output_activations": None,
    }
    if inputs:
        read = next(iter(inputs.values()))
        group["input_activations"] = {**_words(read.scheme), "dynamic": read.grid is None}
    return {
        "quant_method": "compressed-tensors",
        "format": "int-quantized" if inputs else "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": group},
        "ignore": [name for name in linear if name not in rounded],
    }


def _words(scheme: Scheme) -> dict[str, Any]:
    return {
        "num_bits": scheme.bits,
        "type": "int",
        "symmetric": scheme.symmetric,
        "strategy": scheme.per,
        "group_size": scheme.group_size,
        "dynamic": False,
    }


def _replace_weights(
    folder: Path, matrices: Mapping[str, StoredMatrix], inputs: Mapping[str, StoredInput]
) -> None:
    """Put integers, scales and zero points in the place of the weights, file by file."""
    for file in folder.glob("*.safetensors"):
        tensors = load_file(file)
        for name in [name for name in tensors if name in matrices]:
            del tensors[name]
            layer = name.rpartition(".")[0]
            read = inputs.get(layer)
            found = _stored(matrices[name], packed=not inputs)
            found |= _of_inputs(read) if read is not None else {}
            tensors |= {f"{layer}.{key}": tensor.contiguous() for key, tensor in found.items()}
        save_file(tensors, file, metadata={"format": "pt"})


def _stored(matrix: StoredMatrix, packed: bool) -> dict[str, Tensor]:
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    integers = matrix.integers.to(torch.int8)
    found = {"weight_scale": matrix.grid.scale.view(len(integers), -1).to(matrix.scheme.scale_dtype)}
    if not packed:
        return {**found, "weight": integers}
    found["weight_packed"] = pack_to_int32(integers, matrix.scheme.bits)
    return {**found, "weight_shape": torch.tensor(integers.shape)}


def _of_inputs(read: StoredInput) -> dict[str, Tensor]:
    if read.grid is None:
        return {}
    # Signed integers there.
    low = 0 if read.scheme.symmetric else 2 ** (read.scheme.bits - 1)
    return {
        "input_scale": read.grid.scale.reshape(1).float(),
        "input_zero_point": (read.grid.zero_point.reshape(1) - low).to(torch.int8),
    }
