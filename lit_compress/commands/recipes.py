"""The command line of ``lit-compress recipes``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lit_compress.commands.parser import add_verb


def recipes_ls() -> None:
    """List the recipes that come with the library."""
    from rich.console import Console
    from rich.table import Table

    from lit_compress.recipes import list_recipes

    table = Table("recipe", "idea", "paper")
    for recipe in list_recipes():
        table.add_row(recipe.name, recipe.card["idea"], recipe.card["paper"])
    Console().print(table)


def recipes_cp(name: str, target: str) -> None:
    """Copy a recipe to a new file, to make it your own.

    Args:
        name: Name of the recipe, such as distil/pkd_skip.
        target: The new file; an existing one is not touched.
    """
    from lit_compress.recipes import copy_recipe

    print(copy_recipe(name, Path(target)))


def recipes_validate(files: list[str], merge: bool = False) -> None:
    """Check recipe files: every key and class, without touching data or models.

    Args:
        files: YAML files.
        merge: Whether they are one configuration, later files winning.
    """
    from lit_compress.cli import validate_recipes
    from lit_compress.quantization.recipe import is_quantize_recipe, read_quantize_recipe

    for group in [files] if merge else [[file] for file in files]:
        if len(group) == 1 and is_quantize_recipe(group[0]):
            read_quantize_recipe(group[0])
        else:
            validate_recipes(group)
        print(f"{' + '.join(group)}: valid")


def add_recipes(verbs: Any) -> None:
    """Declare the command line."""
    recipes = verbs.add_parser("recipes", help="the recipes that come with the library")
    actions = recipes.add_subparsers(dest="action", required=True)
    add_verb(actions, "ls", recipes_ls)
    action = add_verb(actions, "cp", recipes_cp)
    action.add_argument("name", help="name of the recipe, such as distil/pkd_skip")
    action.add_argument("target", help="the new file; an existing one is not touched")
    action = add_verb(actions, "validate", recipes_validate)
    action.add_argument(
        "files", nargs="+", help="YAML files; several are merged from left to right with --merge"
    )
    action.add_argument("--merge", action="store_true", help="check all files as one merged configuration")
