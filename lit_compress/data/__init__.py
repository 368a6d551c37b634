"""Text data: sources, reading and checking, tokenising, batching."""

from lit_compress.data.augment import Augmentation
from lit_compress.data.datamodule import TextClassificationDataModule
from lit_compress.data.docstrings import Docstrings
from lit_compress.data.files import Files
from lit_compress.data.hub import Hub
from lit_compress.data.source import TextSource

__all__ = ["Augmentation", "Docstrings", "Files", "Hub", "TextClassificationDataModule", "TextSource"]
