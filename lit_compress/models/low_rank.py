"""A linear layer as the product of two smaller ones."""

from __future__ import annotations

from torch import Tensor, nn


class LowRankLinear(nn.Module):
    """Linear layer ``y = P (Q x) + b`` with ``Q`` in ``reduce`` and ``P`` and ``b`` in ``expand``.

    Args:
        in_features: Inputs.
        out_features: Outputs.
        rank: Inner dimension.
        bias: Whether there is a bias.
    """

    #: Whether it stands for a GPT-2 ``Conv1D``, whose weight is transposed.
    transposed = False

    def __init__(self, in_features: int, out_features: int, rank: int, bias: bool = True) -> None:
        super().__init__()
        self.reduce = nn.Linear(in_features, rank, bias=False)
        self.expand = nn.Linear(rank, out_features, bias=bias)

    def forward(self, states: Tensor) -> Tensor:
        """Return ``(..., out_features)`` for ``(..., in_features)``."""
        return self.expand(self.reduce(states))

    @property
    def in_features(self) -> int:
        """Inputs."""
        return self.reduce.in_features

    @property
    def out_features(self) -> int:
        """Outputs."""
        return self.expand.out_features

    @property
    def rank(self) -> int:
        """Inner dimension."""
        return self.reduce.out_features

    @property
    def weight(self) -> Tensor:
        """The product of the factors, with the axes of the layer it stands for; made anew with each access."""
        product = self.expand.weight @ self.reduce.weight
        return product.T if self.transposed else product

    @property
    def bias(self) -> nn.Parameter | None:
        """The bias of the outputs."""
        return self.expand.bias


def ends(module: nn.Module, path: str) -> tuple[str, str]:
    """Return the paths of the linear layers that hold the inputs and the outputs of a projection.

    Args:
        module: A projection, low-rank or not.
        path: Its path below the model.
    """
    if isinstance(module, LowRankLinear):
        return f"{path}.reduce", f"{path}.expand"
    return path, path
