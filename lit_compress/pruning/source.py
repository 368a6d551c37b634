"""What ``lit-compress shrink`` starts from: the checkpoint of a run, or a model folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING

from lit_compress.benchmark.run_config import FILE_NAME, read_config
from lit_compress.models.anatomy import FAMILIES
from lit_compress.models.checkpoint import load
from lit_compress.models.factory import load_config
from lit_compress.models.loading import written_by
from lit_compress.models.manifest import read_manifest
from lit_compress.models.names import resolve_model
from lit_compress.models.rebuild import rebuild_student

#: Facts of a manifest that stay true for a smaller model that computes the same.
_LASTING = (
    "method",
    "recipe",
    "teacher",
    "task",
    "data",
    "label_names",
    "input_lengths",
    "epochs",
    "steps",
    "metrics",
)
_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "spiece.model")


@dataclass(frozen=True)
class Source:
    """A model to shrink.

    Args:
        name: Where it comes from.
        model: The model, with gates and masks where it has some, in eval mode.
        tokenizer: Its tokenizer, if there is one.
        facts: What its manifest says.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    facts: dict[str, Any]


def is_convnet(source: str) -> bool:
    """Return whether a model folder holds a net that classifies images and is no transformer of a supported family."""
    folder = Path(source).expanduser()
    if _is_run(folder):
        return False
    config = load_config(resolve_model(source))
    return config.model_type not in FAMILIES and type(config) in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING


def _is_run(folder: Path) -> bool:
    return not (folder / "config.json").is_file() and (
        (folder / FILE_NAME).is_file() or (folder / "checkpoints").is_dir()
    )


def open_source(source: str, ckpt: str = "best") -> Source:
    """Load what is to be shrunk.

    Args:
        source: Run folder, model folder, hub name or ``package:NAME``.
        ckpt: Checkpoint of a run: ``best``, ``last`` or a file.

    Raises:
        ValueError: There is no such run, checkpoint or model.
    """
    folder = Path(source).expanduser()
    if _is_run(folder):
        return _open_run(folder, ckpt)
    if ckpt != "best":
        raise ValueError(
            f"Expected a run folder, with {FILE_NAME} and checkpoints, for --ckpt {ckpt} but got {source}; leave "
            "--ckpt out for a model folder."
        )
    place = Path(resolve_model(source))
    model = load(source)
    library = written_by(model.config)
    if library is not None:
        raise ValueError(
            f"Expected a model with float weights in {source} but they are rounded in the format of {library}; give "
            "the model that it was made from."
        )
    facts = read_manifest(place) or {}
    kept = {key: facts[key] for key in (*_LASTING, "pruning") if facts.get(key) is not None}
    return Source(source, model, _tokenizer(place), kept)


def _open_run(run: Path, ckpt: str) -> Source:
    file = run / "checkpoints" / f"{ckpt}.ckpt" if ckpt in ("best", "last") else Path(ckpt)
    if not file.is_file():
        there = sorted(path.name for path in (run / "checkpoints").glob("*.ckpt"))
        raise ValueError(
            f"Expected a checkpoint at {file} but there are {', '.join(there) or 'none'} in the run; give one of "
            "them with --ckpt, or run fit first."
        )
    manifest = read_manifest(run / "model") or {}
    facts = {key: manifest[key] for key in _LASTING if manifest.get(key) is not None}
    config = read_config(run / FILE_NAME) if (run / FILE_NAME).is_file() else {}
    model = (config.get("model") or {}).get("init_args") or {}
    facts = {**{key: model[key] for key in ("method", "recipe") if model.get(key)}, **facts}
    if ckpt != "best":
        facts.pop("metrics", None)  # those of the best one
    tokenizer = _tokenizer(run / "model")
    if tokenizer is None:
        named = ((config.get("data") or {}).get("init_args") or {}).get("tokenizer")
        tokenizer = _tokenizer(Path(resolve_model(named))) if named else None
    return Source(f"{run} ({file.name})", rebuild_student(file), tokenizer, facts)


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase | None:
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        return None
    return AutoTokenizer.from_pretrained(str(folder))


def texts_in(path: Path, split: str = "train") -> Iterator[str]:
    """Yield texts to choose a vocabulary from, or to check it with.

    Args:
        path: A text file with one text per line, or a YAML file with a ``data`` section.
        split: Split of the data to read.

    Raises:
        ValueError: The file is missing, or has no such section.
    """
    if path.suffix not in (".yaml", ".yml"):
        if not path.is_file():
            raise ValueError(
                f"Expected a file of texts, one per line, or a YAML file with a data section at {path} but there is "
                "none; correct the path."
            )
        with path.open(encoding="utf-8") as lines:
            yield from (text for line in lines if (text := line.strip()))
        return
    # It imports the libraries of the data.
    from lit_compress.benchmark.run_config import texts_of

    config = read_config(path)
    data = texts_of(config, path, "train").datamodule
    if not data.has_split(split):
        raise ValueError(
            f"Expected a {split} split in the data section of {path} but it names none; add its file."
        )
    # Not the rows of the file: some may be held out of them.
    for texts in data.texts(split).values():
        yield from texts
