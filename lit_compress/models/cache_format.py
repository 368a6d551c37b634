"""What a teacher cache looks like on disk, and how its identity is checked.

A cache is a folder of flat arrays and a ``meta.json``. Rows stand in the order in which they were computed;
``example_id`` and ``length`` say which they are. States hold real tokens only, so padding costs nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from lit_compress.files import write_whole
from lit_compress.models.architecture import describe
from lit_compress.outputs import Capture

SCHEMA = 1
META = "meta.json"
#: What a cache depends on, in the words of an error message.
_PARTS = {
    "teacher": "the teacher's weights or configuration",
    "precision": "the precision of the teacher (teacher.precision)",
    "data": "the data, the tokenizer or max_length",
    "split": "the split",
    "dtype": "teacher.cache_dtype",
}


@dataclass(frozen=True)
class CacheArray:
    """One array of a cache.

    Args:
        name: Field of ``Outputs``, or ``example_id`` or ``length``.
        layer: Index in that field; ``None`` where the field is one tensor.
        per: What one entry belongs to: a ``row``, a real ``token``, or a ``pair`` of real tokens of a row.
        shape: Shape of one entry; for pairs the heads, which stand before the pair on disk.
        dtype: Torch type on disk.
    """

    name: str
    layer: int | None
    per: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def file(self) -> str:
        """File name in the folder."""
        layer = "" if self.layer is None else f".{self.layer}"
        return f"{self.name}{layer}.{self.dtype}"

    @property
    def entry_bytes(self) -> int:
        """Bytes of one entry."""
        size = torch.empty((), dtype=self.torch_dtype).element_size()
        for extent in self.shape:
            size *= extent
        return size

    @property
    def torch_dtype(self) -> torch.dtype:
        """Torch type on disk."""
        return getattr(torch, self.dtype)


@dataclass
class Counts:
    """How much a cache holds.

    Args:
        row: Rows.
        token: Real tokens of all rows.
        pair: Sum over the rows of their squared token counts.
    """

    row: int = 0
    token: int = 0
    pair: int = 0

    def size(self, array: CacheArray) -> int:
        """Return the bytes of an array."""
        return getattr(self, array.per) * array.entry_bytes


def arrays_of(model: PreTrainedModel, capture: Capture, dtype: str) -> list[CacheArray]:
    """Return the arrays that answer ``capture``.

    Args:
        model: The teacher.
        capture: What the objectives need besides the logits.
        dtype: Torch type of the states on disk.
    """
    labels = int(model.config.num_labels or 1)
    arrays = [
        CacheArray("example_id", None, "row", (), "int64"),
        CacheArray("length", None, "row", (), "int32"),
        # Two classes in float16 would cost a digit of every probability to save two bytes.
        CacheArray("logits", None, "row", (labels,), "float32"),
    ]
    if capture == Capture():
        return arrays
    shape = describe(model)
    heads = (shape.num_heads, shape.head_dim)
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {
        "hidden_states": ("token", (shape.hidden_size,)),
        "attention_scores": ("pair", (shape.num_heads,)),
        **dict.fromkeys(("queries", "keys", "values"), ("token", heads)),
    }
    for name, layers in capture.to_dict().items():
        per, entry = shapes[name]
        arrays += [CacheArray(name, layer, per, entry, dtype) for layer in layers]
    return arrays


def read_meta(folder: Path) -> dict[str, Any]:
    """Read and check the description of a finished or partial cache.

    Args:
        folder: The cache.

    Returns:
        The parsed ``meta.json`` with ``arrays`` as ``CacheArray`` and ``counts`` as ``Counts``.

    Raises:
        ValueError: The folder is no cache, or one that this version cannot read.
    """
    path = folder / META
    if not path.is_file():
        raise ValueError(
            f"Expected a teacher cache in {folder} but it has no {META}, so something else is there; "
            "give teacher.cache the path of a folder that does not exist yet."
        )
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
        if meta["schema"] != SCHEMA:
            raise ValueError(
                f"Expected a teacher cache of schema {SCHEMA} in {folder} but got {meta['schema']}; it was "
                "written by another version: delete the folder to compute it again, or give teacher.cache "
                "another path."
            )
        meta["arrays"] = [CacheArray(**{**a, "shape": tuple(a["shape"])}) for a in meta["arrays"]]
        meta["counts"] = Counts(**meta["counts"])
        meta["capture"] = Capture(**{name: frozenset(layers) for name, layers in meta["capture"].items()})
        _ = {name: meta["parts"][name] for name in _PARTS}
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise ValueError(
            damaged(folder, f"{META} cannot be read ({type(error).__name__}: {error})")
        ) from error
    return meta


def write_meta(folder: Path, meta: Mapping[str, Any]) -> None:
    """Write the description of a cache.

    Args:
        folder: The cache.
        meta: What ``read_meta`` returns.
    """
    plain = {
        "schema": SCHEMA,
        **{name: value for name, value in meta.items() if name != "schema"},
        "capture": meta["capture"].to_dict(),
        "counts": asdict(meta["counts"]),
        "arrays": [asdict(array) for array in meta["arrays"]],
    }
    text = json.dumps(plain, indent=1)
    write_whole(folder / META, text)


def check_identity(folder: Path, meta: Mapping[str, Any], parts: Mapping[str, str], capture: Capture) -> None:
    """Refuse a cache that was computed from anything else.

    Args:
        folder: The cache, for the message.
        meta: Its description.
        parts: The identity that is wanted, by part.
        capture: What the objectives need; a cache may hold more.

    Raises:
        ValueError: Naming every part that differs.
    """
    differs = [
        f"{words} ({str(meta['parts'][part])[:16]} there, {str(parts[part])[:16]} wanted)"
        for part, words in _PARTS.items()
        if meta["parts"][part] != parts[part]
    ]
    held = meta["capture"]
    for field in fields(Capture):
        missing = sorted(getattr(capture, field.name) - getattr(held, field.name))
        if missing:
            differs.append(f"{field.name} {missing} that the objectives need and the cache lacks")
    if differs:
        raise ValueError(
            f"Expected the teacher cache {folder} to belong to this run but it differs in "
            f"{'; '.join(differs)}. It is not used and not changed: delete the folder to compute it again, "
            "or give teacher.cache another path."
        )


def damaged(folder: Path, what: str) -> str:
    """Return the message for a damaged cache."""
    return (
        f"Expected an intact teacher cache in {folder} but {what}; it is damaged and is not used: "
        "delete the folder to compute it again."
    )


def file_checksum(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
