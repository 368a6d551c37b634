"""The Huffman code against the best of all codes, the entropy, and injected damage."""

import itertools

import numpy as np
import pytest

from lit_compress.quantization.clustering.huffman import STRETCH, code_lengths, decode, encode
from lit_compress.quantization.packing import packed_bytes


def skewed(count, clusters=16, skew=1.0, seed=0):
    share = np.exp(-skew * np.arange(clusters))
    return np.random.default_rng(seed).choice(clusters, count, p=share / share.sum()).astype(np.uint8)


@pytest.mark.parametrize("seed", range(5))
def test_no_code_is_shorter(seed):
    counts = np.random.default_rng(seed).integers(1, 50, 5)
    lengths = code_lengths(counts)
    # All codes of five words: Kraft's inequality says which lengths there are.
    best = min(
        sum(count * length for count, length in zip(counts, choice, strict=True))
        for choice in itertools.product(range(1, 6), repeat=5)
        if sum(2.0**-length for length in choice) <= 1
    )
    assert int((counts * lengths).sum()) == best


def test_within_a_bit_of_the_entropy_and_smaller_than_packed():
    integers = skewed(200_000)
    lengths, sizes, data = encode(integers, 16)
    share = np.bincount(integers) / len(integers)
    entropy = -(share[share > 0] * np.log2(share[share > 0])).sum()
    bits = 8 * (len(data) + sizes.size + len(lengths)) / len(integers)
    assert entropy <= bits < entropy + 0.2
    assert bits * len(integers) / 8 < 0.6 * packed_bytes(len(integers), 4)


@pytest.mark.parametrize("count", [0, 1, STRETCH - 1, STRETCH, STRETCH + 1, 5 * STRETCH + 7])
@pytest.mark.parametrize("clusters", [1, 2, 16, 256])
def test_what_is_coded_comes_back(count, clusters):
    integers = skewed(count, clusters, skew=0.2)
    assert np.array_equal(decode(*encode(integers, clusters), count), integers)


def test_rare_integers_have_words_of_no_more_than_12_bits():
    counts = 2 ** np.arange(40, dtype=np.int64)
    lengths = code_lengths(counts)
    assert lengths.max() == 12 and lengths.min() == 1
    assert sum(2.0 ** -int(length) for length in lengths) <= 1
    integers = np.repeat(np.arange(20), 2 ** np.arange(20).clip(max=12)).astype(np.uint8)
    assert np.array_equal(decode(*encode(integers, 20), len(integers)), integers)


def test_refuses_every_flipped_bit_and_every_cut():
    integers = skewed(3 * STRETCH)
    parts = encode(integers, 16)
    draw = np.random.default_rng(0)
    for which in range(3):
        for place in draw.choice(parts[which].size, min(40, parts[which].size), replace=False):
            damaged = [part.copy() for part in parts]
            damaged[which].reshape(-1)[place] ^= np.uint8(1 << draw.integers(8))
            try:
                found = decode(*damaged, len(integers))
            except ValueError as error:
                assert "the file is damaged" in str(error)
            else:  # bits behind the end of a stretch say nothing
                assert which == 2 and np.array_equal(found, integers)
    with pytest.raises(ValueError, match="the file is damaged"):
        decode(parts[0], parts[1], parts[2][:-1], len(integers))
    with pytest.raises(ValueError, match="the file is damaged"):
        decode(*parts, len(integers) + STRETCH)
