r"""A target as a constraint: the augmented Lagrangian that FLOP and CoFi reach a sparsity with."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Multipliers(nn.Module):
    r"""Multipliers of one constraint, trained by ascent while the gates descend.

    .. math:: \lambda_1 (\hat s - t) + \lambda_2 (\hat s - t)^2

    with the expected sparsity :math:`\hat s` and the target :math:`t` (Wang et al., FLOP, arXiv:1910.04732, section
    3.3; Xia et al., CoFi, arXiv:2204.00408, section 3.1). Both start at 0 and have no limits: while too little is
    removed :math:`\lambda_1` falls below 0, so that removing more lowers the loss, and :math:`\lambda_2` grows as long
    as the target is missed on either side.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lambda_1 = nn.Parameter(torch.zeros(()))
        self.lambda_2 = nn.Parameter(torch.zeros(()))

    def forward(self, expected: Tensor, target: float) -> Tensor:
        """Return the term of the loss.

        Args:
            expected: Expected share that is removed, a scalar.
            target: Share that is to be removed.
        """
        gap = expected.float() - target
        return self.lambda_1 * gap + self.lambda_2 * gap.square()
