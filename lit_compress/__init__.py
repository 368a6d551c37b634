"""Make transformer models small and fast while they train, with PyTorch Lightning."""

__version__ = "0.1.0"
