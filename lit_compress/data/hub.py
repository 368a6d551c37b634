"""Labelled text from a data set on the Hugging Face hub."""

from __future__ import annotations

from functools import cached_property

from datasets import Dataset, DatasetDict, load_dataset

from lit_compress.data.source import SPLITS, TextSource


class Hub(TextSource):
    """Read a data set by its hub name; it is downloaded once and never runs code of its own.

    Args:
        name: Name on the hub, such as ``nyu-mll/glue``.
        config: Configuration of the data set, such as ``sst2``.
        train: Its split to train on.
        validation: Its split to validate on.
        test: Its split to test on.
        revision: Branch, tag or commit (default: the newest).
    """

    def __init__(
        self,
        name: str,
        config: str | None = None,
        train: str | None = "train",
        validation: str | None = "validation",
        test: str | None = None,
        revision: str | None = None,
    ) -> None:
        self.name, self.config, self.revision = name, config, revision
        self.splits = dict(zip(SPLITS, (train, validation, test), strict=True))

    def load(self, split: str) -> Dataset | None:
        """Read one split; see :meth:`TextSource.load`.

        Raises:
            ValueError: The data set, its configuration or its split is not there, or the hub is out of reach.
        """
        name = self.splits[split]
        if name is None:
            return None
        if name not in self._all:
            raise ValueError(
                f"Expected the split {name!r} in {self._title()} but it has {', '.join(self._all)}; set "
                f"source.{split} to one of these, or to null."
            )
        return self._all[name]

    def describe(self, split: str) -> str:
        """Return the hub name with configuration and split."""
        return f"{self._title()}, split {self.splits[split]!r}"

    def fingerprint(self, split: str) -> str:
        """Return the fingerprint that the datasets library derives from the downloaded files."""
        data = self.load(split)
        return f"{self._title()} {self.splits[split]} {None if data is None else data._fingerprint}"

    def _title(self) -> str:
        config = f"/{self.config}" if self.config else ""
        revision = f"@{self.revision}" if self.revision else ""
        return f"the hub data set {self.name}{config}{revision}"

    @cached_property
    def _all(self) -> DatasetDict:
        try:
            found = load_dataset(self.name, self.config, revision=self.revision)
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(
                f"Expected {self._title()} but it cannot be loaded ({reason}); check source.name, "
                "source.config and the network, or read local copies with the source Files."
            ) from error
        assert isinstance(found, DatasetDict)
        return found
