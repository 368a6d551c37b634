"""The folder of an export: everything that another machine needs, without this library."""

from __future__ import annotations

import ast
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig

import lit_compress
from lit_compress.benchmark.artefacts import Artefact
from lit_compress.benchmark.runtimes.base import Builder
from lit_compress.export.trained import notes_of
from lit_compress.files import describe_file, keep_source, whole_folder
from lit_compress.models.checkpoint import is_language_model
from lit_compress.models.manifest import read_manifest

#: What tells an export from other folders.
EXPORT = "export.json"
_INFER = Path(__file__).with_name("infer")
# What tokenizer libraries and Optimum read; whatever else lies in a model folder stays there.
_BESIDE = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")
_NO_TOKENIZER = (
    "There is no infer.py: the model folder has no tokenizer.json, and nothing that one can be made of; save the "
    "tokenizer there with tokenizer.save_pretrained and export again."
)


def check_export_place(path: Path, source: str | Path) -> None:
    """Refuse a place for an export that something else occupies.

    Args:
        path: The place.
        source: The model folder.

    Raises:
        ValueError: There is a file, a folder that is neither empty nor an export, or the source.
    """
    keep_source(source, path)
    if path.is_dir() and (not any(path.iterdir()) or (path / EXPORT).is_file()):
        return
    if path.exists():
        raise ValueError(
            f"Expected a new folder, or an export to replace, at {path} but something else is there; "
            "move it away or choose another folder with --out."
        )


def write_export(
    path: Path, artefact: Artefact, way: Builder, config: PreTrainedConfig, parity: Mapping[str, Any]
) -> Path:
    """Write the folder of an export: it is complete, or what was there before is untouched.

    Args:
        path: The folder; an export that is already there is replaced.
        artefact: What was built and checked.
        way: What built it.
        config: The configuration of the model.
        parity: How near it is to the original.

    Returns:
        The folder.

    Raises:
        ValueError: Something that is no export is in the place.
        OSError: It could not be written.
    """
    path = path.absolute()
    check_export_place(path, artefact.folder)
    format, _, precision = way.name.partition("-")
    classifies = not is_language_model(config)
    with whole_folder(path) as part:
        files = sorted(file for file in artefact.path.iterdir() if file.name != "facts.json")
        for file in files:
            shutil.copy2(file, part / file.name)
        for name in _BESIDE:
            if (artefact.folder / name).is_file():
                shutil.copy2(artefact.folder / name, part / name)
        script = infer_script(format, classifies)
        if script is not None and classifies and not _has_tokenizer(artefact.folder, part):
            script = None
        settings: dict[str, Any] = {
            "library": f"lit-compress {lit_compress.__version__}",
            "format": format,
            "precision": precision,
            "model_type": config.model_type,
            "labels": _labels(artefact.folder, config) if classifies else [],
            "pad_token_id": config.pad_token_id,
            "max_length": artefact.facts["max_positions"],
            "truncation_side": _truncation_side(part),
            "libraries": {name: version(name) for name in ("torch", "transformers", *way.libraries)},
            "parity": dict(parity),
            "notes": [*notes_of(artefact.folder, way.name), *filter(None, [way.note(artefact.path)])],
            "files": {file.name: describe_file(part / file.name) for file in files},
        }
        needed: list[str] = []
        if script is not None:
            (part / "infer.py").write_text(script, encoding="utf-8")
            needed = requirements(format, way.bound_to, classifies)
        elif _script(format, classifies).is_file():
            settings["notes"].append(_NO_TOKENIZER)
        (part / EXPORT).write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        (part / "README.md").write_text(_readme(settings, needed), encoding="utf-8")
    return path


def _truncation_side(part: Path) -> str:
    """Return from which end of a text tokens are cut: tokenizer.json does not tell."""
    path = part / "tokenizer_config.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found.get("truncation_side", "right")


def read_export(path: Path) -> dict[str, Any]:
    """Return what export.json in the folder of an export tells."""
    return json.loads((path / EXPORT).read_text(encoding="utf-8"))


def _has_tokenizer(folder: Path, part: Path) -> bool:
    """Whether an export has the tokenizer.json that its infer.py reads; made of another form where there is one."""
    if not (part / "tokenizer.json").is_file():
        # Imported late: it brings the datasets library.
        from lit_compress.data.tokenizer import load_tokenizer

        try:
            load_tokenizer(str(folder), 1, "the model's own tokenizer").save_pretrained(part)
        except (ValueError, ImportError):  # there is none, or what it needs is not installed
            return False
    return (part / "tokenizer.json").is_file()


def _labels(folder: Path, config: PreTrainedConfig) -> list[str]:
    """Return the names of the outputs in order: those of the data, where the folder knows them."""
    names = (read_manifest(folder) or {}).get("label_names")
    # By their numbers: JSON with sorted keys has "10" before "2".
    return [str(name) for name in names or dict(sorted((config.id2label or {}).items())).values()]


def infer_script(format: str, classifies: bool = True) -> str | None:
    """Return the text of the ``infer.py`` of a format; ``None`` where nothing can run it from Python.

    Args:
        format: One of :data:`~lit_compress.export.formats.FORMATS`.
        classifies: Whether the model has labels; else it is a language model.
    """
    own = _script(format, classifies)
    if not own.is_file():
        return None
    if not classifies:
        return own.read_text(encoding="utf-8")
    # Without its docstring, and without the import that stands for what comes before it.
    base = (_INFER / "base.py").read_text(encoding="utf-8").splitlines(keepends=True)[2:]
    shared = "".join(line for line in base if not line.startswith("from lit_compress."))
    return f"{own.read_text(encoding='utf-8').rstrip()}\n\n\n{shared}"


def requirements(format: str, bound_to: Sequence[str] = (), classifies: bool = True) -> list[str]:
    """Return the packages that the ``infer.py`` of a format needs, as pip takes them.

    Args:
        format: One of :data:`~lit_compress.export.formats.FORMATS`.
        bound_to: Libraries that have to be of the minor version that is installed here.
        classifies: Whether the model has labels; else it is a language model.

    Returns:
        The requirements; none where nothing can run the format from Python.
    """
    own = _script(format, classifies)
    if not own.is_file():
        return []
    # Read and not imported: the runtime need not be installed.
    for node in ast.parse(own.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "REQUIREMENTS":
            ranges = {re.split("[<>=]", entry)[0]: entry for entry in ast.literal_eval(node.value)}
            exact = {name: f"{name}=={'.'.join(version(name).split('.')[:2])}.*" for name in bound_to}
            beside = ["tokenizers"] * classifies
            return [*beside, *(exact.get(name, entry) for name, entry in ranges.items())]
    raise ValueError(f"Expected REQUIREMENTS in {own} but there are none.")


def _script(format: str, classifies: bool) -> Path:
    return _INFER / (f"{format}.py" if classifies else f"{format}_language.py")


def _readme(settings: Mapping[str, Any], needed: Sequence[str]) -> str:
    parity = settings["parity"]
    size = sum(entry["bytes"] for entry in settings["files"].values()) / 1e6
    lines = [
        f"# A {settings['model_type']} model for {settings['format']}, {settings['precision']}",
        "",
        f"Exported by [lit-compress](https://pypi.org/project/lit-compress/): {size:,.1f} MB"
        f"{', labels ' * bool(settings['labels'])}{', '.join(settings['labels'])}.",
        "",
    ]
    if parity.get("random_tokens") is not None:
        lines += [
            f"- Difference to the original on random tokens: {parity['random_tokens']:.2g} of its logits"
        ]
    real = parity.get("texts")
    if real:
        same = "" if real["same_label"] is None else f", same label for {100 * real['same_label']:.1f} %"
        lines += [
            f"- On {real['texts']} real texts ({real['data']}): difference {real['error']:.2g} of the logits{same}"
        ]
    lines += [f"- {note}" for note in settings["notes"]]
    if needed:
        packages = " ".join(f'"{name}"' for name in needed)
        lines += ["", "```bash", f"pip install {packages}", 'python infer.py "a text"', "```"]
    return "\n".join(lines) + "\n"
