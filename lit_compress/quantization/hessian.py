"""Second-order information of a linear layer, and its factor: what GPTQ and SparseGPT share."""

from __future__ import annotations

import torch
from torch import Tensor


class InputStatistics:
    """What a linear layer reads, summed up over batches: the Hessian of its squared error, and sizes of each input.

    Args:
        features: Inputs of the layer.
        device: Where the layer is.
    """

    def __init__(self, features: int, device: torch.device | str = "cpu") -> None:
        self._sum = torch.zeros(features, features, dtype=torch.float64, device=device)
        self._sizes = torch.zeros(features, dtype=torch.float64, device=device)
        self.count = 0

    @torch.no_grad()
    def add(self, inputs: Tensor, mask: Tensor | None = None) -> None:
        """Take a batch into account.

        Args:
            inputs: ``(…, features)``.
            mask: True where a token counts, of the shape without the last axis; all where ``None``.
        """
        rows = inputs.detach().reshape(-1, inputs.shape[-1])
        if mask is not None:
            rows = rows[mask.reshape(-1).bool()]
        # Sums of a batch in float32 are fast, sums over batches in float64 exact.
        rows = rows.float()
        self._sum += (rows.t() @ rows).double()
        self._sizes += rows.abs().sum(0).double()
        self.count += len(rows)

    def hessian(self) -> Tensor:
        """Return ``2 X^T X / n``, ``(features, features)`` in float64.

        Raises:
            ValueError: Nothing was seen, or values are no numbers.
        """
        if not self.count:
            raise ValueError("Expected texts to calibrate with but the layer has read none.")
        if not bool(self._sum.isfinite().all()):
            raise ValueError(
                "Expected finite activations but the layer has read infinities or NaN; check the model and the texts."
            )
        return 2 * self._sum / self.count

    def norms(self) -> Tensor:
        """Return the Euclidean norm of each input over all tokens, ``(features,)`` in float64."""
        return self._sum.diagonal().sqrt()

    def magnitudes(self) -> Tensor:
        """Return the mean magnitude of each input over all tokens, ``(features,)`` in float64."""
        return self._sizes / self.count


def inverse_factor(hessian: Tensor, damp: float) -> tuple[Tensor, Tensor]:
    """Return the upper Cholesky factor of the inverse of a damped Hessian.

    Its row ``j``, divided by its diagonal, is how the later weights of an output best make up for an error of weight
    ``j`` once all earlier ones are fixed (Frantar et al., arXiv:2210.17323, section 3).

    Args:
        hessian: ``(features, features)``, symmetric.
        damp: What is added to the diagonal, as a share of its mean.

    Returns:
        The factor ``(features, features)``, and which inputs are always zero, ``(features,)``.

    Raises:
        ValueError: The Hessian cannot be inverted.
    """
    matrix = hessian.clone()
    diagonal = matrix.diagonal()
    dead = diagonal == 0
    diagonal[dead] = 1.0
    diagonal += damp * diagonal.mean()
    try:
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix))
        return torch.linalg.cholesky(inverse, upper=True), dead
    except torch.linalg.LinAlgError as error:
        raise ValueError(
            f"Expected inputs that span the layer but their Hessian cannot be inverted with damp={damp}; calibrate "
            "with more texts."
        ) from error
