"""Model folders of weights in codebooks, as folders of ordinary weights: for runtimes, which know no codebooks."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lit_compress.models.checkpoint import load, save_folder
from lit_compress.models.manifest import read_manifest
from lit_compress.models.transforms import forget
from lit_compress.quantization.clustering.codebook_weights import CODEBOOK_WEIGHTS, codebooks_of


@contextmanager
def plain_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder of the same model whose weights are in no codebook: another one for a while, where they are.

    Args:
        folder: A model folder.
    """
    manifest = read_manifest(folder)
    if manifest is None or all(name != CODEBOOK_WEIGHTS for name, _ in manifest["transforms"]):
        yield folder
        return
    model = load(folder)
    for _, stored in list(codebooks_of(model)):
        stored.give_back()
    forget(model, CODEBOOK_WEIGHTS)
    with tempfile.TemporaryDirectory(prefix="lit-compress-") as place:
        plain = save_folder(Path(place) / "model", model, None, manifest)
        for path in folder.iterdir():  # the tokenizer
            if path.is_file() and path.suffix != ".safetensors" and not (plain / path.name).exists():
                shutil.copy2(path, plain / path.name)
        yield plain
