"""Model folders: what a fit leaves behind, and what stock transformers loads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lit_compress.files import keep_source, whole_folder
from lit_compress.models.factory import load_config
from lit_compress.models.loading import load_model, quiet, written_by
from lit_compress.models.manifest import MANIFEST, build_manifest, model_class, read_manifest, write_manifest
from lit_compress.models.names import resolve_model
from lit_compress.models.ragged import load_ragged, save_ragged
from lit_compress.quantization.formats.bnb_check import check_saved, refuse_used


def save_folder(
    path: str | Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    manifest: Mapping[str, Any],
    card: str | None = None,
) -> Path:
    """Write a model folder at once: it is complete, or what was there before is untouched.

    Args:
        path: The folder; a model folder that is already there is replaced.
        model: The model; weights are written as safetensors in their present type. A model whose blocks differ in
            size gets a folder that ``load`` reads and stock transformers refuses.
        tokenizer: Its tokenizer, if any.
        manifest: Facts about the run, see ``build_manifest``.
        card: Text of the model card, written as ``README.md``.

    Returns:
        The folder.

    Raises:
        ValueError: Something that is no model folder is in the place, a fact is no JSON data, or the model still
            has gates or masks.
    """
    path = Path(path).absolute()
    check_place(path)
    complete = build_manifest(model, manifest)
    refuse_used(model)
    with whole_folder(path) as part, quiet():
        if complete["transforms"]:
            save_ragged(part, model)
        else:
            model.save_pretrained(part, safe_serialization=True)
        if tokenizer is not None:
            tokenizer.save_pretrained(part)
        write_manifest(part, complete)
        if card is not None:
            (part / "README.md").write_text(card, encoding="utf-8")
        if written_by(model.config) == "bitsandbytes":
            check_saved(part, model)
    return path


def load(path: str | Path) -> PreTrainedModel:
    """Load a model for use, in eval mode.

    Args:
        path: A model folder of lit-compress; or any folder, hub name or ``package:NAME`` with a trained
            classifier or causal language model that stock transformers loads.

    Returns:
        The model in eval mode, on the CPU, with the weights' type of the file.

    Raises:
        ValueError: The folder is missing, corrupt, incomplete, or written by a newer version.
    """
    source = resolve_model(str(path))
    manifest = read_manifest(source)
    config = load_config(source)
    if manifest is not None and manifest["transforms"]:
        return load_ragged(Path(source), model_class(manifest, source), config, manifest["transforms"])
    auto = _auto(config) if manifest is None else model_class(manifest, source)
    return load_model(auto, source, config, "auto").eval()


def _auto(config: PreTrainedConfig) -> Any:
    """Return the auto class of a folder of stock transformers: a language model, else a classifier."""
    return AutoModelForCausalLM if is_language_model(config) else AutoModelForSequenceClassification


def is_language_model(config: PreTrainedConfig) -> bool:
    """Whether a configuration is that of a language model; all others are classifiers."""
    return any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in config.architectures or ())


def check_place(path: Path, source: str | Path | None = None) -> None:
    """Refuse a place for a model folder that something else occupies.

    Args:
        path: The place.
        source: What the folder is made of, if that is another folder.

    Raises:
        ValueError: There is a file, a folder that is neither empty nor a model folder, or the source.
    """
    if source is not None:
        keep_source(source, path)
    if path.is_dir() and (not any(path.iterdir()) or (path / MANIFEST).is_file()):
        return
    if path.exists():
        raise ValueError(
            f"Expected a new folder, or a model folder to replace, at {path} but something else is there; "
            "move it away or choose another folder."
        )
