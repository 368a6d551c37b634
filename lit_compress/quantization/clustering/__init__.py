"""Weights that share few values: k-means, codebooks in training and on disk, and their Huffman code."""
