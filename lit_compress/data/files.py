"""Labelled text in local files."""

from __future__ import annotations

import difflib
import hashlib
from pathlib import Path

from datasets import Dataset

from lit_compress.data.delimited import read_delimited
from lit_compress.data.jsonl import read_jsonl
from lit_compress.data.parquet import read_parquet
from lit_compress.data.source import SPLITS, TextSource

_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


class Files(TextSource):
    """Read csv, tsv, jsonl or parquet files; the suffix decides.

    A csv or tsv file needs a header line. In csv, quotes group cells as spreadsheets write them; in tsv they
    are plain characters, as in the files of GLUE.

    Args:
        train: File with the training rows.
        validation: File with the validation (dev) rows.
        test: File with the test rows.
        folder: Folder that relative file names are looked up in (default: the working directory).
        quotes: Whether quotes group cells (default: yes in csv, no in tsv).
    """

    def __init__(
        self,
        train: str | None = None,
        validation: str | None = None,
        test: str | None = None,
        folder: str | None = None,
        quotes: bool | None = None,
    ) -> None:
        self.paths = dict(zip(SPLITS, (train, validation, test), strict=True))
        self.folder = folder
        self.quotes = quotes
        if not any(self.paths.values()):
            raise ValueError(
                "Expected at least one file but got none; set source.train, source.validation or source.test."
            )

    def load(self, split: str) -> Dataset | None:
        """Read one split; see :meth:`TextSource.load`.

        Raises:
            ValueError: The file is missing, of an unknown kind, or broken; the message names the line.
        """
        path = self._existing(split)
        if path is None:
            return None
        if path.suffix in (".csv", ".tsv"):
            return read_delimited(path, "," if path.suffix == ".csv" else "\t", self.quotes)
        return read_jsonl(path) if path.suffix == ".jsonl" else read_parquet(path)

    def describe(self, split: str) -> str:
        """Return the path of the split's file."""
        return str(self._path(split))

    def fingerprint(self, split: str) -> str:
        """Return a hash of the file's content, so a file that is moved keeps its fingerprint."""
        path = self._existing(split)
        digest = hashlib.sha256(f"{path.suffix if path else None} {self.quotes}".encode())
        if path is not None:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()

    def _path(self, split: str) -> Path | None:
        name = self.paths[split]
        if name is None:
            return None
        return Path(self.folder or ".").expanduser() / Path(name).expanduser()

    def _existing(self, split: str) -> Path | None:
        path = self._path(split)
        if path is None:
            return None
        if path.suffix not in _SUFFIXES:
            raise ValueError(
                f"Expected a file that ends in {', '.join(_SUFFIXES)} but got {path} as source.{split}; "
                "rename the file or convert it (plain text without labels cannot be used here)."
            )
        if not path.is_file():
            raise ValueError(
                f"Expected the {split} file {path.resolve()} but it does not exist{_close_names(path)}; "
                f"correct source.{split} or source.folder."
            )
        return path


def _close_names(path: Path) -> str:
    if not path.parent.is_dir():
        return f" (nor does the folder {path.parent})"
    close = difflib.get_close_matches(path.name, sorted(entry.name for entry in path.parent.iterdir()), 3)
    return f" (did you mean {' or '.join(close)}?)" if close else ""
