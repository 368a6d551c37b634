"""Optional dependencies: refused with the line that installs them."""

from __future__ import annotations

import sys
from importlib.util import find_spec


def require(extra: str, purpose: str, *modules: str) -> None:
    """Refuse where optional packages are missing.

    Args:
        extra: The extra of lit-compress that brings them, such as ``"onnx"``.
        purpose: What they are needed for, as in "the plots of the report".
        modules: Names under which they are imported.

    Raises:
        ImportError: Names what is missing and the command that installs it.
    """
    missing = [name for name in modules if not _is_there(name)]
    if missing:
        raise ImportError(
            f"Expected {' and '.join(missing)} for {purpose} but got no such package; "
            f'run pip install "lit-compress[{extra}]".'
        )


def _is_there(module: str) -> bool:
    # None in sys.modules is how Python marks a module that must not be imported; find_spec refuses its name.
    return sys.modules[module] is not None if module in sys.modules else find_spec(module) is not None
