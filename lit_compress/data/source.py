"""Where labelled text comes from."""

from __future__ import annotations

from abc import ABC, abstractmethod

from datasets import Dataset

SPLITS = ("train", "validation", "test")


class TextSource(ABC):
    """Rows of text and labels in up to three splits: ``train``, ``validation`` and ``test``.

    Subclasses read one kind of storage; checking the rows is the data module's work.
    """

    @abstractmethod
    def load(self, split: str) -> Dataset | None:
        """Read one split.

        Args:
            split: ``train``, ``validation`` or ``test``.

        Returns:
            The rows in their stored order, or None where the source has no such split.
        """

    @abstractmethod
    def describe(self, split: str) -> str:
        """Name the storage of a split as error messages show it: a path, or a hub name."""

    @abstractmethod
    def fingerprint(self, split: str) -> str:
        """Return a string that changes when the rows of the split change."""
