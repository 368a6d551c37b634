"""Where prepared data lies on disk."""

from __future__ import annotations

from pathlib import Path

import datasets.config


def cache_folder(cache_dir: str | None) -> Path:
    """Return the folder for prepared data.

    Args:
        cache_dir: Folder chosen by the user; None means a folder below the cache of the datasets library.

    Returns:
        The path; it need not exist.
    """
    return Path(cache_dir or Path(datasets.config.HF_DATASETS_CACHE) / "lit_compress").expanduser()
