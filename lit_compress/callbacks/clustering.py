"""Weight clustering in training as a callback."""

from __future__ import annotations

from dataclasses import asdict

import lightning.pytorch as pl
import torch
from torch import nn
from torch.optim import Optimizer

from lit_compress.callbacks.transform import TransformCallback, model_of, own_group
from lit_compress.pruning.gates import gates_of
from lit_compress.pruning.masks import refuse_tied
from lit_compress.quantization.choice import choose
from lit_compress.quantization.clustering.clustered_weights import (
    apply_clustered_weights,
    begin_clustering,
    clustered_weights_of,
)
from lit_compress.quantization.clustering.codebook import Codebook
from lit_compress.quantization.clustering.kmeans import check_init
from lit_compress.schedules import Progress


class WeightClustering(TransformCallback):
    """Let the weights of a matrix share a few values that are learned (Deep Compression, arXiv:1510.00149).

    From ``cluster_at`` on every weight is computed as the nearest centroid of its codebook; the first centroids are
    those of k-means. Centroids learn from the sum of the gradients of their weights, with an Adam of their own, which
    does not mind that large clusters have large sums; weights go on training too, and so may change their cluster. At
    the end of fit indices and codebooks are stored: 16 clusters take four bits per weight. ``lit_compress.load`` gives
    a model that computes exactly what was trained, in floats.

    All projections and embeddings are clustered, the head of the task too.

    Args:
        clusters: Values per codebook of the projections, 2 to 256.
        embedding_clusters: Those of the embeddings, or 0, which leaves them as they are.
        rows: Consecutive outputs of a projection that share a codebook; all of the matrix where ``None``.
        embedding_rows: Consecutive rows of an embedding that do; all where ``None``.
        init: How k-means begins: ``kmeans++``, ``linear`` or ``density``.
        keep_zeros: Hold one centroid of each codebook at exactly 0 for the weights that are 0, so that what was pruned
            stays pruned.
        centroid_bits: Bits of a centroid, 2 to 8, with a scale per codebook; float32 where ``None``.
        entropy: Whether indices are stored with a Huffman code where that is smaller.
        centroid_lr: Learning rate of the centroids; it follows the schedule of the module's optimizer.
        cluster_at: Fraction of the fit from which weights are clustered, at the latest at its last step.
        include: Parts of the names of the projections and embeddings to cluster, such as ``attention``; all where
            ``None``.
        exclude: Parts of the names of those to leave as they are.

    Raises:
        ValueError: A setting is out of range.
    """

    def __init__(
        self,
        clusters: int = 16,
        embedding_clusters: int = 16,
        rows: int | None = None,
        embedding_rows: int | None = 256,
        init: str = "kmeans++",
        keep_zeros: bool = False,
        centroid_bits: int | None = None,
        entropy: bool = False,
        centroid_lr: float = 5e-5,
        cluster_at: float = 0.1,
        include: list[str] | None = None,
        exclude: list[str] | None = None,
    ) -> None:
        super().__init__()
        if not 0.0 <= cluster_at < 1.0:
            raise ValueError(f"Expected 0 <= cluster_at < 1, a fraction of the fit, but got {cluster_at}.")
        check_init(init)
        self.codebook = Codebook(clusters, rows, keep_zeros, centroid_bits, entropy)
        self.embedding_codebook = (
            Codebook(embedding_clusters, embedding_rows, keep_zeros, centroid_bits, entropy)
            if embedding_clusters
            else None
        )
        if centroid_lr <= 0:
            raise ValueError(
                f"Expected centroid_lr above 0 (learning rate of the values) but got {centroid_lr}."
            )
        self.init, self.centroid_lr, self.cluster_at = init, centroid_lr, cluster_at
        self.include, self.exclude = include, list(exclude or [])

    # -- structure -----------------------------------------------------------------------------------

    def apply(self, model: nn.Module) -> None:
        """Cluster matrices and embeddings; see ``TransformCallback.apply``."""
        projections, embeddings = choose(model, self.include, self.exclude)
        matrices = [f"{name}.weight" for name in projections]
        tables = [f"{name}.weight" for name in embeddings] if self.embedding_codebook else []
        refuse_tied(model, [*matrices, *tables])
        apply_clustered_weights(model, matrices, asdict(self.codebook), "projections")
        if tables and self.embedding_codebook:
            apply_clustered_weights(model, tables, asdict(self.embedding_codebook), "embeddings")

    # -- training ------------------------------------------------------------------------------------

    def own_optimizer(self, model: nn.Module) -> Optimizer:
        """Return the optimizer of the centroids."""
        centroids = [step.centroids for _, step in clustered_weights_of(model)]
        return torch.optim.Adam([own_group(centroids, self.centroid_lr, follow=True)])

    def idle(self, model: nn.Module) -> list[nn.Parameter]:
        """Return the centroids of matrices that are not clustered yet; see ``TransformCallback.idle``."""
        return [step.centroids for _, step in clustered_weights_of(model) if not step.rounds]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse gates, whose units could not be cut out of codebooks; see ``TransformCallback.on_fit_start``."""
        if gates_of(model_of(pl_module)) is not None:
            raise ValueError(
                "Expected clustering alone or with masks on single weights but another callback closes units of the "
                "model; prune in a first fit, and cluster its folder in a second one."
            )
        super().on_fit_start(trainer, pl_module)

    def move(self, model: nn.Module, progress: Progress) -> None:
        """Begin to cluster."""
        if self.settled(progress):
            begin_clustering(model, self.init)

    def settled(self, progress: Progress) -> bool:
        """Return whether weights are clustered: a checkpoint from before would not compute what it was judged by."""
        return progress.fraction >= self.cluster_at or progress.step >= progress.total_steps - 1

    def figures(self, model: nn.Module) -> dict[str, float]:
        """Return the bits per weight of what is clustered, without the codebooks, and whether it is yet."""
        found = [step for _, step in clustered_weights_of(model)]
        bits = sum(step.size * step.codebook.bits for step in found)
        return {
            "compress/weight_bits": bits / sum(step.size for step in found),
            "compress/clusters": float(found[0].rounds),
        }
