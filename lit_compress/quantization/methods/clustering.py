"""Weights that share few values, found by k-means."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from transformers import PreTrainedModel

from lit_compress.pruning.masks import refuse_tied
from lit_compress.quantization.choice import choose
from lit_compress.quantization.clustering.clustered_weights import apply_clustered_weights, begin_clustering
from lit_compress.quantization.clustering.codebook import Codebook
from lit_compress.quantization.clustering.codebook_convert import to_codebooks
from lit_compress.quantization.samples import Samples
from lit_compress.quantization.stored import refuse_few_bits

_EMBEDDING_ROWS = 256


@torch.no_grad()
def kmeans(
    model: PreTrainedModel,
    samples: Samples,
    tell: Callable[[str, float], None],
    *,
    clusters: int = 16,
    embedding_clusters: int = 16,
    rows: int | None = None,
    embedding_rows: int | None = _EMBEDDING_ROWS,
    init: str = "kmeans++",
    keep_zeros: bool = False,
    centroid_bits: int | None = None,
    entropy: bool = False,
    include: list[str] | None = None,
    exclude: list[str] | None = None,
) -> dict[str, Any]:
    """Give every weight the nearest of a few values (Deep Compression, arXiv:1510.00149, without its training).

    Args:
        model: Changed in place.
        samples: Not read.
        tell: Told which share of the matrices is done.
        clusters: Values per codebook of the projections, 2 to 256.
        embedding_clusters: Those of the embeddings; 0 leaves them as they are.
        rows: Consecutive outputs of a projection that share a codebook; all of the matrix where ``None``.
        embedding_rows: Consecutive rows of an embedding that do; all where ``None``.
        init: How k-means begins: ``kmeans++``, ``linear`` or ``density``.
        keep_zeros: Hold one value at exactly 0 for the weights that are 0.
        centroid_bits: Bits of a value, 2 to 8, with a scale per codebook; float32 where ``None``.
        entropy: Whether indices are stored with a Huffman code where that is smaller.
        include: Parts of the names of projections and embeddings to cluster; all where ``None``.
        exclude: Parts of the names of those to leave as they are.

    Returns:
        What was done, for the manifest.

    Raises:
        ValueError: A setting is out of range, or does not fit the model.
    """
    if not embedding_clusters and embedding_rows != _EMBEDDING_ROWS:
        raise ValueError(
            f"Expected embeddings that are clustered with --embedding-rows {embedding_rows} but got "
            "--embedding-clusters 0; leave one of them out."
        )
    projections, tables = choose(model, include, exclude or [])
    settings = {"projections": (projections, Codebook(clusters, rows, keep_zeros, centroid_bits, entropy))}
    if embedding_clusters and tables:
        book = Codebook(embedding_clusters, embedding_rows, keep_zeros, centroid_bits, entropy)
        settings["embeddings"] = (tables, book)
    _check(model, [f"{name}.weight" for names, _ in settings.values() for name in names])
    for part, (names, book) in settings.items():
        apply_clustered_weights(model, [f"{name}.weight" for name in names], asdict(book), part)
    begin_clustering(model, init, tell)
    to_codebooks(model)
    facts: dict[str, Any] = {part: str(book) for part, (_, book) in settings.items()}
    return {**facts, "init": init, "keep_zeros": keep_zeros, "entropy": entropy}


def _check(model: PreTrainedModel, tensors: list[str]) -> None:
    refuse_few_bits(model, "of ordinary weights")
    refuse_tied(model, tensors)
