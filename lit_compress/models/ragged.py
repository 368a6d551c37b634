"""Model folders that no configuration of transformers can say: blocks of different sizes, weights of few bits.

Their weights are in ``lit_compress.safetensors``, not in ``model.safetensors``. So stock transformers stops with an
error; from a file of the usual name it would draw what is missing at random and go on.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.initialization import no_init_weights

from lit_compress.models.full_config import full_config, full_entries
from lit_compress.models.loading import refuse_misfit, unreadable
from lit_compress.models.transforms import SHAPES, restore
from lit_compress.quantization.stored import stored_of

#: Stem of the weight files.
WEIGHTS = "lit_compress"
#: Entry of ``config.json`` for people who wonder why ``AutoModel`` does not load the folder.
NOTE = "lit_compress"
_STOCK = "model"
_INDEX = ".safetensors.index.json"
_LOAD_WITH = {
    "load_with": "lit_compress.load",
    "why": "Blocks differ in size, the word embedding is factorised, or weights are stored in few bits, which no "
    "configuration of transformers says. AutoModel cannot load this folder.",
}


def save_ragged(folder: Path, model: PreTrainedModel) -> None:
    """Write configuration and weights of a model whose structure is recorded.

    Args:
        folder: The folder.
        model: The model.
    """
    # Under our own names: those of older checkpoints exist only for whole models.
    with full_config(model):
        model.save_pretrained(folder, save_original_format=False)
    index = folder / f"{_STOCK}{_INDEX}"
    if index.is_file():
        content = json.loads(index.read_text(encoding="utf-8"))
        content["weight_map"] = {name: _own(file) for name, file in content["weight_map"].items()}
        (folder / f"{WEIGHTS}{_INDEX}").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        index.unlink()
    for path in sorted(folder.glob(f"{_STOCK}*.safetensors")):
        path.rename(path.with_name(_own(path.name)))
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(
        json.dumps({**config, NOTE: _LOAD_WITH}, indent=2, sort_keys=True) + "\n", encoding="utf-8"
    )


def _own(file: str) -> str:
    return WEIGHTS + file.removeprefix(_STOCK)


def load_ragged(
    folder: Path,
    base_class: type[PreTrainedModel],
    config: PreTrainedConfig,
    transforms: Sequence[Sequence[Any]],
    dtype: torch.dtype | None = None,
) -> PreTrainedModel:
    """Load what ``save_ragged`` wrote.

    Args:
        folder: The folder.
        base_class: Class of the model.
        config: Its configuration.
        transforms: The structure, as ``[name, arguments]``.
        dtype: Type of the weights in memory; that of the file where ``None``.

    Returns:
        The model in eval mode, with its structure recorded.

    Raises:
        ValueError: The structure does not fit the configuration, or the weights do not fit the structure.
    """
    where = f"the model folder {folder}"
    model = build_model(base_class, config, transforms, where)
    load_weights(model, _read(folder), str(folder), dtype)
    return model


def build_model(
    base_class: type[PreTrainedModel],
    config: PreTrainedConfig,
    transforms: Sequence[Sequence[Any]],
    where: str,
) -> PreTrainedModel:
    """Build a model of a recorded structure with weights that are zero.

    The full model from which the structure is cut has shapes only: memory is taken for what is left.

    Args:
        base_class: Class of the model.
        config: Configuration of the finished model; not changed.
        transforms: The structure, as ``[name, arguments]``.
        where: What holds the structure, for the message.

    Returns:
        The model in eval mode.

    Raises:
        ValueError: The structure does not fit the configuration.
    """
    full = copy.deepcopy(config)
    try:
        for key, value in full_entries(transforms).items():
            setattr(full, key, value)
        with torch.random.fork_rng(devices=[]):
            with torch.device("meta"), no_init_weights():
                model = base_class(full)
            model.tie_weights()  # without initialisation nobody does
            _compute_buffers(model, model)
            cuts = sum(1 for _ in itertools.takewhile(lambda entry: entry[0] in SHAPES, transforms))
            restore(model, transforms[:cuts])
            _allocate(model)
            restore(model, transforms[cuts:])
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RuntimeError) as error:
        raise ValueError(
            f"Expected the structure of a {base_class.__name__} in {where} but it cannot be built "
            f"({type(error).__name__}: {error}); it is damaged or was edited: write it again."
        ) from error
    return model.eval()


def _compute_buffers(module: nn.Module, owner: PreTrainedModel) -> None:
    """Fill the buffers that no file holds, such as the numbers of positions, as ``from_pretrained`` does."""
    if isinstance(module, PreTrainedModel):
        owner = module
    names = [name for name in module._buffers if name in module._non_persistent_buffers_set]
    # From two different beginnings: what differs is nothing that the initialisation computes.
    first, second = (_initialised(module, names, owner, start) for start in (1, 0))
    wrong = [name for name, a, b in zip(names, first, second, strict=True) if not torch.equal(a, b)]
    if wrong:
        raise TypeError(f"the initialisation of {type(owner).__name__} leaves the buffer {wrong[0]} open")
    for child in module.children():
        _compute_buffers(child, owner)


def _initialised(module: nn.Module, names: list[str], owner: PreTrainedModel, start: int) -> list[Tensor]:
    for name in names:
        shape = getattr(module, name)
        setattr(module, name, torch.full(shape.shape, start, dtype=shape.dtype))
    if names:
        owner._init_weights(module)  # parameters have shapes only, which no initialisation changes
    return [getattr(module, name) for name in names]


def _allocate(model: nn.Module) -> None:
    """Give every tensor that has a shape only memory with zeros; tied ones stay tied."""
    done: dict[int, Tensor] = {}
    for module in model.modules():
        places: list[dict[str, Any]] = [module._parameters, module._buffers]
        for tensors in places:
            for name, old in tensors.items():
                if old is None or not old.is_meta:
                    continue
                if id(old) not in done:
                    new = torch.zeros(old.shape, dtype=old.dtype)
                    trained = isinstance(old, nn.Parameter)
                    done[id(old)] = nn.Parameter(new, old.requires_grad) if trained else new
                tensors[name] = done[id(old)]


def load_weights(
    model: PreTrainedModel, weights: dict[str, Tensor], source: str, dtype: torch.dtype | None = None
) -> None:
    """Put weights into a model, and refuse every one that is missing, left over or of another shape.

    Args:
        model: Changed in place.
        weights: Tensors by name; of tied ones one is enough.
        source: Where they come from, for the message.
        dtype: Type of the weights in memory; the given one where ``None``.

    Raises:
        ValueError: A weight does not fit.
    """
    places: dict[str, Any] = model.state_dict(keep_vars=True)
    unexpected = [name for name in weights if name not in places]
    mismatched = [
        f"{name} (file {list(tensor.shape)}, model {list(places[name].shape)})"
        for name, tensor in weights.items()
        if name in places and tensor.shape != places[name].shape
    ]
    filled = {id(places[name]) for name in weights if name in places}
    missing = [name for name, place in places.items() if id(place) not in filled]
    refuse_misfit(type(model).__name__, source, mismatched, missing, unexpected)
    for name, tensor in weights.items():
        # Buffers are ranges, scales and codebooks, which do not take part in products themselves.
        is_weight = isinstance(places[name], nn.Parameter) and tensor.is_floating_point()
        wanted = dtype if dtype is not None and is_weight else tensor.dtype
        # Copied into memory of its own: sums depend on how the bytes are aligned, and in the file they are not.
        places[name].data = tensor.to(wanted, copy=True)
    for module in model.modules():
        derive: Any = getattr(module, "after_load", None)
        if derive is not None:
            derive()
    if dtype is not None:
        for _, stored in stored_of(model):
            stored.cast_values(dtype)


def _read(folder: Path) -> dict[str, Tensor]:
    index = folder / f"{WEIGHTS}{_INDEX}"
    try:
        if index.is_file():
            content = json.loads(index.read_text(encoding="utf-8"))
            files = sorted({Path(name).name for name in content["weight_map"].values()})
        else:
            files = [f"{WEIGHTS}.safetensors"]
        return {name: tensor for file in files for name, tensor in load_file(folder / file).items()}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(unreadable(str(folder), error)) from error
