"""How numbers are rounded: how many bits, around zero or not, and which of them share a scale."""

from __future__ import annotations

from dataclasses import dataclass

import torch

#: Which numbers share a scale.
SHARED = ("tensor", "rows", "channel", "group")
_GROUPED = ("rows", "group")
_BITS = range(2, 9)


@dataclass(frozen=True)
class Scheme:
    """A linear quantizer: ``round(x / scale) + zero_point``, cut off at the ends of a range of integers.

    Zero is always represented exactly, so that what was pruned stays pruned.

    Args:
        bits: Bits per number, 2 to 8.
        symmetric: Whether the integers lie around zero, ``-(2**(bits-1) - 1)`` to ``2**(bits-1) - 1``, with
            ``zero_point`` 0; else they are ``0`` to ``2**bits - 1``. With two bits a symmetric weight is -1, 0 or 1.
        per: What shares a scale: the whole ``tensor``; ``group_size`` consecutive outputs, ``rows`` of the matrix
            (Q-BERT, arXiv:1909.05840; where ``group_size`` divides the width of a head no group has rows of two
            heads); what makes up one output ``channel`` (the row of an embedding); or ``group_size`` consecutive
            inputs of one output, a ``group``.
        group_size: Outputs that share a scale for ``per: rows``, inputs for ``per: group``; for nothing else.

    Raises:
        ValueError: A value is out of range, or they do not fit together.
    """

    bits: int = 8
    symmetric: bool = True
    per: str = "channel"
    group_size: int | None = None

    def __post_init__(self) -> None:
        if self.bits not in _BITS:
            raise ValueError(
                f"Expected bits from {_BITS[0]} to {_BITS[-1]} but got {self.bits}; correct bits (--bits, "
                "--embedding-bits, --activation-bits or --centroid-bits)."
            )
        if self.per not in SHARED:
            raise ValueError(f"Expected per to be one of {', '.join(SHARED)} but got {self.per!r}.")
        if (self.per in _GROUPED) != (self.group_size is not None):
            raise ValueError(
                "Expected group_size (inputs that share a scale with per: group, outputs with per: rows) with one of "
                f"these and with nothing else but got per={self.per!r}, group_size={self.group_size}."
            )
        if self.group_size is not None and self.group_size < 1:
            raise ValueError(
                f"Expected group_size >= 1 but got {self.group_size}; correct group_size (--group-size), or leave it "
                "out for one scale per output."
            )

    @property
    def lowest(self) -> int:
        """The least integer."""
        return -(2 ** (self.bits - 1) - 1) if self.symmetric else 0

    @property
    def highest(self) -> int:
        """The largest integer."""
        return 2 ** (self.bits - 1) - 1 if self.symmetric else 2**self.bits - 1

    @property
    def scale_dtype(self) -> torch.dtype:
        """Type in which scales are stored; float32 for each of some 32 weights would be a bit more per weight."""
        return torch.float16 if self.per == "group" else torch.float32

    def __str__(self) -> str:
        kind = "" if self.symmetric else "u"
        shared = {"group": f"group of {self.group_size}", "rows": f"{self.group_size} rows"}.get(
            self.per, self.per
        )
        return f"{kind}int{self.bits} per {shared}"
