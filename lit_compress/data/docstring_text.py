"""First paragraphs of the docstrings in a package's source files, without importing it."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import importlib.util
import platform
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

_MIN_WORDS, _MAX_WORDS = 5, 60
# Test code documents itself, vendored code is another library.
_SKIPPED = {"tests", "test", "testing", "_vendor", "vendor", "vendored", "_vendored_packages"}
_SIGNATURE = re.compile(r"[\w.]+\(.*\)(\s*->.*)?")
# What people write instead of the import name.
_ALIASES = {
    "huggingface_hub": ("huggingface", "hugging face", "hf", "🤗"),
    "lightning": ("pl",),
    "matplotlib": ("mpl", "plt"),
    "networkx": ("nx",),
    "numpy": ("np",),
    "pandas": ("pd",),
    "pyarrow": ("pa", "arrow"),
    "sklearn": ("scikit-learn", "scikit learn"),
    "torch": ("pytorch",),
    "transformers": ("huggingface", "hugging face", "hf", "🤗"),
    "wandb": ("w&b", "weights & biases", "weights and biases"),
}
MASK = "LIB"
Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def source_root(package: str) -> Path:
    """Return the folder of an installed package, found without importing it.

    Raises:
        ValueError: There is no such package, or it is a single module.
    """
    # A dotted name would import its parent.
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"Expected an installed package in source.packages but got {package!r}; install it, or remove it "
            "from the list (give import names, such as sklearn)."
        )
    return Path(next(iter(spec.submodule_search_locations)))


def package_version(package: str) -> str:
    """Return the version of the distribution that a package belongs to.

    Raises:
        ValueError: There is no such package, or no distribution that it belongs to, so that its texts could
            change unnoticed.
    """
    source_root(package)
    if package in sys.stdlib_module_names:
        return platform.python_version()
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        names = importlib.metadata.packages_distributions().get(package, [])
    if not names:
        raise ValueError(
            f"Expected an installed distribution for the package {package!r} in source.packages but it has "
            "no version; install it with pip, or remove it from the list."
        )
    return importlib.metadata.version(names[0])


def source_files(root: Path, seed: int) -> list[Path]:
    """Return the source files below a folder in an order that only the seed and their names decide."""

    def place(path: Path) -> bytes:
        return hashlib.sha256(f"{seed} {path.relative_to(root).as_posix()}".encode()).digest()

    files = (path for path in root.rglob("*.py") if not _SKIPPED & set(path.relative_to(root).parts))
    return sorted(files, key=place)


def first_paragraphs(path: Path) -> Iterator[str]:
    """Yield the first paragraph of every docstring of 5 to 60 words in a file, as one line.

    A file that is no valid Python (templates, code for other versions) yields nothing.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    for documented in _documented(tree):
        text = " ".join((ast.get_docstring(documented) or "").strip().split("\n\n")[0].split())
        words = sum(any(letter.isalpha() for letter in word) for word in text.split())
        if _MIN_WORDS <= words <= _MAX_WORDS and ">>>" not in text and not _SIGNATURE.fullmatch(text):
            yield text


def _documented(tree: ast.Module) -> Iterator[Documented]:
    """Yield what can have a docstring; walking statements only takes a third of the time of ast.walk."""
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, Documented):
            yield node
        for field in ("body", "orelse", "handlers", "finalbody", "cases"):
            stack.extend(getattr(node, field, ()))


def name_pattern(packages: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern for the names of the packages, also as the head of a word such as ``TorchModel``."""
    names = {name for package in packages for name in (package, *_ALIASES.get(package, ()))}
    names |= {name.replace("_", "-") for name in names}
    words = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.compile(rf"(?<![A-Za-z0-9])(?i:{words})(?![a-z0-9])")


def comparable(text: str) -> str:
    """Return the letters of a text: texts that are equal in this form count as the same."""
    return " ".join(re.sub(r"[\W\d_]+", " ", text.lower()).split())
