"""Text data: sources, reading and checking, tokenising, batching."""

from lit_compress.data.datamodule import TextClassificationDataModule
from lit_compress.data.files import Files
from lit_compress.data.source import TextSource

__all__ = ["Files", "TextClassificationDataModule", "TextSource"]
