"""Fewer bits: grids of numbers, ranges, fake quantization in training, and packed storage."""

from lit_compress.quantization.scheme import Scheme

__all__ = ["Scheme"]
