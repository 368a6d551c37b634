"""Make transformer models small and fast while they train, with PyTorch Lightning."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lit_compress.models.checkpoint import load

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    # Imported on first use: the command line must answer --help without torch.
    if name == "load":
        from lit_compress.models.checkpoint import load

        return load
    raise AttributeError(f"module 'lit_compress' has no attribute {name!r}")
