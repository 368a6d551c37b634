"""A teacher that answers from disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_compress.models.cache_format import CacheArray, check_identity, damaged, file_checksum, read_meta
from lit_compress.outputs import Capture, Outputs


class CachedTeacher:
    """Looks up the answers of a batch by ``example_id``, whatever the order and the company of its rows.

    Args:
        path: Folder of a finished cache.
        capture: Everything that ``outputs`` may be asked for; a part of what the cache holds.
        parts: Identity that the cache must have, see ``teacher_cache``; not compared where ``None``.
        verify: Whether to compare the checksum of every file (about a second per gigabyte).

    Raises:
        ValueError: The folder is no cache, is damaged, or belongs to something else.
    """

    def __init__(
        self,
        path: str | Path,
        capture: Capture,
        parts: Mapping[str, str] | None = None,
        verify: bool = True,
    ) -> None:
        self.path = Path(path)
        self.capture = capture
        self.meta = read_meta(self.path)
        check_identity(self.path, self.meta, self.meta["parts"] if parts is None else parts, capture)
        if "sha256" not in self.meta:
            raise ValueError(damaged(self.path, "it was never finished"))
        self._check_files(verify)
        needed = {name: set(layers) for name, layers in capture.to_dict().items()}
        self._arrays = {
            (array.name, array.layer): self._map(array)
            for array in self.meta["arrays"]
            if array.layer is None or array.layer in needed[array.name]
        }
        self._specs = {(array.name, array.layer): array for array in self.meta["arrays"]}
        self._index_rows()

    def _check_files(self, verify: bool) -> None:
        for array in self.meta["arrays"]:
            file, size = self.path / array.file, self.meta["counts"].size(array)
            found = file.stat().st_size if file.is_file() else None
            if found != size:
                state = "is missing" if found is None else f"has {found} bytes"
                raise ValueError(damaged(self.path, f"{array.file} {state} instead of {size} bytes"))
            if verify and file_checksum(file) != self.meta["sha256"].get(array.file):
                raise ValueError(damaged(self.path, f"the checksum of {array.file} is wrong"))

    def _map(self, array: CacheArray) -> Tensor:
        count = getattr(self.meta["counts"], array.per)
        elements = count * array.entry_bytes // array.torch_dtype.itemsize
        if elements == 0:
            return torch.empty(0, dtype=array.torch_dtype)
        # shared=False maps copy-on-write: a stray in-place operation can never reach the file.
        flat = torch.from_file(
            str(self.path / array.file), shared=False, size=elements, dtype=array.torch_dtype
        )
        # Entries of a pair array are (heads,) + pair; a row of it starts at heads times its first pair.
        return flat.view(count, *array.shape) if array.per != "pair" else flat.view(count, -1)

    def _index_rows(self) -> None:
        ids = self._arrays["example_id", None].numpy()
        self._lengths = self._arrays["length", None].numpy().astype(np.int64)
        self._row_of = np.full(int(ids.max(initial=-1)) + 1, -1, dtype=np.int64)
        self._row_of[ids] = np.arange(len(ids))
        self._starts = {
            "token": np.cumsum(self._lengths) - self._lengths,
            "pair": np.cumsum(self._lengths**2) - self._lengths**2,
        }

    def to(self, device: torch.device | str) -> CachedTeacher:
        """Return this teacher; answers go to the device of the batch that they are for."""
        return self

    def outputs(self, batch: Mapping[str, Any], capture: Capture | None = None) -> Outputs:
        """Answer a batch.

        Args:
            batch: A batch of the data module with ``example_id``.
            capture: What this step needs, a part of the capture of the constructor; all of it where ``None``.

        Returns:
            Float32 tensors on the batch's device, zero at padding.

        Raises:
            ValueError: A row is not in the cache, or has another number of tokens there.
        """
        capture = self.capture if capture is None else capture
        rows = self._find(batch["example_id"])
        mask = batch.get("teacher_attention_mask", batch.get("attention_mask"))
        device = batch["example_id"].device
        answer: dict[str, Any] = {"logits": self._arrays["logits", None][torch.from_numpy(rows)].to(device)}
        states = capture.to_dict()
        if any(states.values()):
            width = self._check_lengths(rows, mask, batch["example_id"])
        for name, layers in states.items():
            answer[name] = {layer: self._padded(name, layer, rows, width).to(device) for layer in layers}
        return Outputs(**answer, mask=None if mask is None else mask.bool())

    def _find(self, example_id: Tensor) -> np.ndarray:
        ids = example_id.cpu().numpy()
        known = (ids >= 0) & (ids < len(self._row_of))
        rows = np.full(len(ids), -1)
        rows[known] = self._row_of[ids[known]]
        if (rows < 0).any():
            missing = ids[rows < 0]
            raise ValueError(
                f"Expected the rows of this batch in the teacher cache {self.path} but {len(missing)} are "
                f"missing (first example_id: {missing[0]}); train on the split "
                f"'{self.meta['parts']['split']}' that the cache was made of, or give teacher.cache another "
                "path."
            )
        return rows

    def _check_lengths(self, rows: np.ndarray, mask: Tensor | None, example_id: Tensor) -> int:
        """Return the padded width of the batch."""
        if mask is None:
            raise ValueError(
                "Expected an attention_mask in the batch to place cached states but got none; "
                "leave teacher.cache out for models without one."
            )
        given = mask.sum(1).cpu().numpy()
        wrong = np.flatnonzero(given != self._lengths[rows])
        if len(wrong):
            first = wrong[0]
            raise ValueError(
                f"Expected {self._lengths[rows][first]} tokens in example_id {int(example_id[first])}, as in "
                f"the teacher cache {self.path}, but the batch has {given[first]}; the text or its "
                "tokenisation changed: delete the cache or give teacher.cache another path."
            )
        return mask.shape[1]

    def _padded(self, name: str, layer: int, rows: np.ndarray, width: int) -> Tensor:
        """Read one array for the rows of a batch into a padded tensor.

        The type is given because the ``-true`` precisions of a trainer change torch's default one.
        One copy per row, which converts on the way, is four times as fast as one gather over all tokens.
        """
        array, spec = self._arrays[name, layer], self._specs[name, layer]
        starts, lengths = self._starts[spec.per][rows].tolist(), self._lengths[rows].tolist()
        if spec.per == "pair":
            padded = torch.zeros(len(rows), *spec.shape, width, width, dtype=torch.float32)
            for row, start, n in zip(padded, starts, lengths, strict=True):
                row[:, :n, :n].copy_(array[start : start + n * n].view(*spec.shape, n, n))
            return padded
        padded = torch.zeros(len(rows), width, *spec.shape, dtype=torch.float32)
        for row, start, n in zip(padded, starts, lengths, strict=True):
            row[:n].copy_(array[start : start + n])
        return padded.transpose(1, 2) if len(spec.shape) == 2 else padded

    def __deepcopy__(self, memo: dict[int, Any]) -> CachedTeacher:
        """Weight-averaging callbacks copy whole modules; one read-only cache serves all copies."""
        return self
