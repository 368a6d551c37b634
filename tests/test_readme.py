"""The README says what is there: its Python runs, its commands and links exist."""

import ast
import re
from pathlib import Path

import pytest

from lit_compress.__main__ import _FIT_VERBS, _OTHER_VERBS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_there_are_python_blocks():
    assert len(BLOCKS) >= 3


@pytest.mark.parametrize("block", BLOCKS)
def test_python_blocks_import_what_exists(block):
    tree = ast.parse(block)
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imports
    exec(compile(ast.Module(body=imports, type_ignores=[]), "README.md", "exec"), {})


def test_the_data_and_module_of_the_long_block_can_be_built():
    from lit_compress.modules import Distillation

    block = next(b for b in BLOCKS if "Distillation(" in b)
    lines = block.split("pl.Trainer(")[0]
    scope: dict = {}
    exec(compile(lines, "README.md", "exec"), scope)
    assert isinstance(scope["module"], Distillation)
    assert set(scope["module"].objectives) == {"hard", "soft", "pkd"}


def test_commands_exist():
    verbs = set(re.findall(r"^lit-compress (\w+)", README, re.MULTILINE))
    assert verbs
    assert verbs <= {*_FIT_VERBS, *_OTHER_VERBS}
    recipes = set(re.findall(r"recipes/[\w/]+\.yaml", README))
    assert recipes
    assert all((ROOT / recipe).is_file() for recipe in recipes)
    scripts = set(re.findall(r"scripts/[\w.]+", README))
    assert scripts
    assert all((ROOT / script).is_file() for script in scripts)


def test_links_lead_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    assert all((ROOT / link).exists() for link in links), links
