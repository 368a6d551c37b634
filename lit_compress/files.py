"""Folders that are written whole or not at all, files that are known by their bytes, and files that grow by lines."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Write a folder beside its place, and put it there when the body has ended well.

    What was in the place is untouched until then, also by a full disk or a kill; then it is replaced.

    Args:
        path: The place, absolute.

    Yields:
        A new folder to write into.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = path.with_name(f".{path.name}.new"), path.with_name(f".{path.name}.old")
    if old.exists() and not path.exists():  # killed between the two renames
        old.rename(path)
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    try:
        temporary.mkdir()
        yield temporary
        if path.exists():
            path.rename(old)
        temporary.rename(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def keep_source(source: str | Path, place: Path) -> None:
    """Refuse a place where a new folder would replace the folder that it is made of.

    Args:
        source: What the new folder is made of; a name that is no folder cannot be lost.
        place: The place of the new folder.

    Raises:
        ValueError: It is the source, or a folder around it.
    """
    found = Path(source).expanduser()
    if not found.exists() or not place.exists():
        return
    # The same folder has many names: links, relative paths, letters of either case.
    where = found.resolve()
    if any(folder.samefile(place) for folder in (where, *where.parents)):
        raise ValueError(
            f"Expected a new folder with --out but {place} is, or holds, {source}, which would be lost; choose another "
            "folder with --out."
        )


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a kill or a full disk leaves the old one, or the new one.

    Args:
        path: The file; folders above it are made.
        text: What it will hold.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Two processes may write the same file.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Let what the body cannot write be refused with the name of the file, which a write itself does not know.

    Args:
        path: The file.

    Raises:
        OSError: The disk is full, or the file grew beyond a limit.
    """
    try:
        yield
    except OSError as error:
        if error.filename is not None:  # it could not even be opened
            raise
        raise OSError(f"Expected to write {path} but got: {error.strerror}; check the disk.") from error


def describe_file(path: Path) -> dict[str, Any]:
    """Return ``bytes`` and ``sha256`` of a file, read piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Return the JSON objects of a file, one per line; lines that a kill cut short are left out.

    Args:
        path: The file; where it is missing there are none.
    """
    if not path.is_file():
        return []
    found = []
    # Not splitlines(): it also splits at characters that JSON allows inside strings.
    for line in path.read_bytes().split(b"\n"):
        try:
            found.append(json.loads(line))
        except ValueError:  # also where the cut goes through a letter
            continue
    return [record for record in found if isinstance(record, dict)]
