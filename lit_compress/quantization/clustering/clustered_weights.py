"""Weights that share few values in every forward pass, as parametrizations: weight clustering in training.

The values are parameters, the centroids (Deep Compression, Han et al., arXiv:1510.00149). Which weight has which of
them follows from the weight itself, which goes on training too, and is found anew in every forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lit_compress.models.parametrized import register, steps_of
from lit_compress.models.transforms import record
from lit_compress.quantization.clustering.codebook import Codebook, blocks_of, codebooks_in, from_blocks
from lit_compress.quantization.clustering.kmeans import kmeans
from lit_compress.quantization.clustering.nearest import nearest
from lit_compress.quantization.fake_weights import before_rounding, output_axis, touched
from lit_compress.quantization.stage import ROUND, Staged

#: Name of the transform.
CLUSTERED_WEIGHTS = "clustered_weights"


class ClusteredWeight(Staged):
    """Parametrization of a matrix: every weight becomes the nearest centroid of its codebook.

    The gradient of a centroid is the sum of those of its weights; the weight behind them gets its own, as if nothing
    had been done to it (straight-through).

    Args:
        shape: Shape of the matrix, as it is stored.
        codebook: How many centroids, and for which weights.
        output_axis: Axis along which the outputs lie.
    """

    #: Masks and gates of the same tensor come before, see :func:`~lit_compress.models.parametrized.register`.
    comes_last = True

    def __init__(self, shape: torch.Size, codebook: Codebook, output_axis: int = 0) -> None:
        super().__init__()
        self.codebook, self.output_axis = codebook, output_axis
        #: Weights in the matrix.
        self.size = shape.numel()
        count = codebooks_in(shape, codebook.rows, output_axis)
        #: ``(codebooks, clusters)``, in any order; without the one that is held at zero.
        self.centroids = nn.Parameter(torch.zeros(count, codebook.clusters - codebook.keep_zeros))

    @torch.no_grad()
    def begin(self, weight: Tensor, init: str) -> None:
        """Take the first centroids from the weight as it is before clustering.

        Args:
            weight: The weight.
            init: See :func:`~lit_compress.quantization.clustering.kmeans.kmeans`.
        """
        blocks = self._blocks(weight.detach())
        left = self.size
        for number, block in enumerate(blocks):
            values = block[:left]  # the last one may be filled up
            left -= len(values)
            draw = torch.Generator().manual_seed(number)
            found = kmeans(values, self.codebook.clusters, init, self.codebook.keep_zeros, generator=draw)
            if self.codebook.keep_zeros:
                zero = int((found == 0).nonzero()[0, 0])
                found = torch.cat([found[:zero], found[zero + 1 :]])
            self.centroids[number] = found

    def ordered(self) -> Tensor:
        """Return the centroids, the one at zero with them, ``(codebooks, clusters)``, ascending."""
        found: Tensor = self.centroids
        if self.codebook.keep_zeros:
            found = torch.cat([found, found.new_zeros(len(found), 1)], 1)
        return found.sort(1).values

    def values(self) -> Tensor:
        """Return the values of the codebooks: :meth:`ordered` as they are stored."""
        return self.codebook.rounded(self.ordered())

    def indices(self, weight: Tensor) -> Tensor:
        """Return which of :meth:`values` each weight becomes, ``(codebooks, weights)`` in int32."""
        values = self.values().detach()
        return nearest(self._blocks(weight.detach()), values.float(), self.codebook.keep_zeros)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the weight with few values; as it is where clustering has not begun."""
        if not self.rounds:
            return touched(weight, self.centroids)
        values = self.values()
        places = self.indices(weight)
        if len(values) > 1:
            places += (
                torch.arange(len(values), dtype=torch.int32, device=places.device)[:, None] * values.shape[1]
            )
        found = from_blocks(places, weight, self.output_axis)
        return _Shared.apply(weight, values, found)

    def _blocks(self, weight: Tensor) -> Tensor:
        return blocks_of(weight.float(), self.codebook.rows, self.output_axis)


class _Shared(torch.autograd.Function):
    """Looks values up; the gradient of a value is the sum of those of its weights."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, values: Tensor, places: Tensor) -> Tensor:
        flat = places.reshape(-1)
        ctx.save_for_backward(flat)
        ctx.values = values.shape, values.dtype
        return values.reshape(-1).index_select(0, flat).view(weight.shape).to(weight.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (places,) = ctx.saved_tensors
        shape, dtype = ctx.values
        to_weight = gradients[0] if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return to_weight, None, None
        sums = torch.zeros(shape.numel(), dtype=dtype, device=places.device)
        sums.index_add_(0, places, gradients[0].reshape(-1).to(dtype))
        return to_weight, sums.view(shape), None


def apply_clustered_weights(
    model: nn.Module, tensors: Sequence[str], codebook: Mapping[str, Any], part: str = "weight"
) -> None:
    """Compute matrices from codebooks, from the stage on that says so.

    Args:
        model: Changed in place, once.
        tensors: Names of the matrices below the model.
        codebook: Arguments of :class:`~lit_compress.quantization.clustering.codebook.Codebook`.
        part: Name of this set, where a model has several.

    Raises:
        ValueError: A matrix is rounded or clustered already.
    """
    arguments = {"tensors": list(tensors), "codebook": dict(codebook), "part": part}
    if not record(model, CLUSTERED_WEIGHTS, arguments):
        return
    for name in tensors:
        path, _, tensor = name.rpartition(".")
        module = model.get_submodule(path)
        weight: Tensor = getattr(module, tensor)
        step = ClusteredWeight(weight.shape, Codebook(**codebook), output_axis(module)).train(module.training)
        try:
            register(module, tensor, step.to(weight.device))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error


def begin_clustering(model: nn.Module, init: str, tell: Callable[[str, float], None] | None = None) -> None:
    """Begin to cluster what is not clustered yet, with the centroids of k-means.

    Args:
        model: Changed in place.
        init: See :func:`~lit_compress.quantization.clustering.kmeans.kmeans`.
        tell: Told what is done, and which share of it.

    Raises:
        ValueError: A weight is no number.
    """
    found = [(name, step) for name, step in clustered_weights_of(model) if not step.rounds]
    for number, (name, step) in enumerate(found):
        if tell is not None:
            tell(f"clustering {name}", number / len(found))
        try:
            step.begin(before_rounding(model, name), init)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        step.set_stage(ROUND)


def clustered_weights_of(model: nn.Module) -> Iterator[tuple[str, ClusteredWeight]]:
    """Yield the name of every tensor that is clustered, with what clusters it."""
    return steps_of(model, ClusteredWeight)
