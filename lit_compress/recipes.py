"""The recipes that come with the library, and the cards they open with."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

CARD_KEYS = ("paper", "idea", "parts", "command", "expected", "deviations")


@dataclass(frozen=True)
class Recipe:
    """A recipe file and its card.

    Args:
        name: Path below the recipe folder without suffix, such as ``distil/pkd_skip``.
        path: The YAML file.
        title: First line of the card.
        card: The other entries of the card.
    """

    name: str
    path: Path
    title: str
    card: dict[str, str]


def recipe_folder() -> Path:
    """Return the folder of the recipes: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).resolve().parent
    for folder in (package / "_recipes", package.parent / "recipes"):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        f"Expected the recipes in {package / '_recipes'}; the installation is incomplete."
    )


def read_card(path: Path) -> tuple[str, dict[str, str]]:
    """Return the title and the entries of the comment block that a recipe opens with.

    Raises:
        ValueError: There is no card, or one of its entries is missing.
    """
    block = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        block.append(line[1:].strip())
    if not block:
        raise ValueError(f"Expected {path} to open with a card (comment lines) but it does not.")
    card: dict[str, str] = {}
    key = ""
    for line in block[1:]:
        start, colon, rest = line.partition(":")
        if colon and start in CARD_KEYS:
            key, line = start, rest
        if key and line:
            card[key] = f"{card.get(key, '')} {line.strip()}".strip()
    missing = [k for k in CARD_KEYS if k not in card]
    if missing:
        raise ValueError(
            f"Expected the card of {path} to have {', '.join(CARD_KEYS)} but {missing[0]} is missing."
        )
    return block[0], card


def list_recipes(folder: Path | None = None) -> list[Recipe]:
    """Return all recipes (without overlays), sorted by name."""
    folder = folder or recipe_folder()
    found = []
    for path in sorted(folder.rglob("*.yaml")):
        if "overlays" not in path.relative_to(folder).parts:
            title, card = read_card(path)
            found.append(Recipe(path.relative_to(folder).with_suffix("").as_posix(), path, title, card))
    return found


def copy_recipe(name: str, target: Path) -> Path:
    """Copy a recipe to a new file, for editing.

    Raises:
        ValueError: The name is unknown, or the target is there already.
    """
    recipes = {r.name: r for r in list_recipes()}
    if name not in recipes:
        near = difflib.get_close_matches(name, recipes, n=1, cutoff=0.5)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise ValueError(
            f"Expected the name of a recipe but got '{name}'.{hint} See lit-compress recipes ls."
        )
    if target.is_dir():
        target = target / f"{Path(name).name}.yaml"
    if target.exists():
        raise ValueError(f"Expected a new file but {target} exists; choose another name or delete it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(recipes[name].path.read_text(encoding="utf-8"), encoding="utf-8")
    return target


def index_markdown() -> str:
    """Return ``recipes/README.md``, generated from the cards."""
    lines = [
        "# Recipes",
        "",
        "Generated from the cards by `python scripts/make_recipe_index.py`; edit the recipes, not this page.",
        "",
        "Several `--config` merge from left to right. Mappings merge, **lists are replaced**: an overlay that adds a "
        "callback writes `callbacks+:`. The `objectives` of a later file replace all earlier ones too, so write them "
        "in full there; one is added on the command line by `--model.objectives.pkd=PKD "
        "--model.objectives.pkd.weight=100`. A single value is changed on the command line by its path, such as "
        "`--model.objectives.soft.weight=0.3`. What a merge really says: `--print_config=skip_default`.",
        "",
        "Recipes whose command begins with `lit-compress quantize` round a finished model without training. One "
        "`--config` holds a method and its options, and options on the command line win.",
        "",
        "| recipe | idea | paper |",
        "|---|---|---|",
    ]
    recipes = list_recipes()
    lines += [f"| [{r.name}]({r.name}.yaml) | {r.card['idea']} | {r.card['paper']} |" for r in recipes]
    lines += ["", "## Overlays", "", "| overlay | what it does |", "|---|---|"]
    for path in sorted((recipe_folder() / "overlays").glob("*.yaml")):
        first = path.read_text(encoding="utf-8").splitlines()[0]
        what = first.lstrip("# ").removeprefix("Overlay:").strip()
        lines.append(f"| [{path.stem}](overlays/{path.name}) | {what} |")
    for recipe in recipes:
        lines += ["", f"## {recipe.name}", "", recipe.title, ""]
        lines += [f"- **{key}**: {_code(key, recipe.card[key])}" for key in CARD_KEYS]
    return "\n".join(lines) + "\n"


def _code(key: str, text: str) -> str:
    return f"`{text}`" if key == "command" else text
