"""A canonical Huffman code for small integers, in stretches that are decoded side by side.

The code depends on nothing but the lengths of its words, and no word is longer than 12 bits: a table of 4096 entries
says for any 12 bits which word they begin with. Stretches begin at a whole byte; all of them are decoded at once, a
word of each at a time.
"""

from __future__ import annotations

import heapq
import zlib

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]
#: Integers per stretch.
STRETCH = 1024
_LONGEST = 12
# Stretches that are encoded at once, so that memory stays small.
_AT_ONCE = 1024


def code_lengths(counts: Integers) -> Bytes:
    """Return how many bits the word of each integer has, 0 where it never occurs.

    Args:
        counts: How often each integer occurs; of at most 256.

    Returns:
        Lengths up to 12: those of a Huffman code where it has no longer ones, else nearly.
    """
    used = np.flatnonzero(counts)
    lengths = np.zeros(len(counts), np.uint8)
    weights = counts[used]
    while len(used):
        found = _tree(weights)
        if found.max() <= _LONGEST:
            lengths[used] = found
            break
        weights = (weights + 1) // 2  # rare integers catch up
    return lengths


def encode(integers: Bytes, count: int) -> tuple[Bytes, Bytes, Bytes]:
    """Return integers as words of a Huffman code.

    Args:
        integers: ``(n,)``.
        count: Number of different integers that there could be.

    Returns:
        Lengths of the words ``(count,)``, bytes of each stretch as pairs ``(stretches, 2)``, and the words; behind them
        the checksum of the integers, four bytes.
    """
    lengths = code_lengths(np.bincount(integers, minlength=count))
    words = _words(lengths)
    sizes, parts = [], []
    for start in range(0, len(integers), STRETCH * _AT_ONCE):
        size, part = _encode(integers[start : start + STRETCH * _AT_ONCE], lengths, words)
        sizes.append(size)
        parts.append(part)
    checksum = np.frombuffer(zlib.crc32(integers.tobytes()).to_bytes(4, "little"), np.uint8)
    pairs = np.concatenate([np.zeros(0, "<u2"), *sizes]).astype("<u2").view(np.uint8).reshape(-1, 2)
    return lengths, pairs, np.concatenate([*parts, checksum])


def decode(lengths: Bytes, sizes: Bytes, data: Bytes, count: int) -> Bytes:
    """Undo :func:`encode`.

    Args:
        lengths: Of the words.
        sizes: Bytes of the stretches, as pairs.
        data: The words and the checksum.
        count: Number of integers.

    Raises:
        ValueError: This is not what it returned.
    """
    each = np.ascontiguousarray(sizes).view("<u2").reshape(-1).astype(np.int64)
    ends = each.cumsum()
    whole = int(ends[-1]) if len(ends) else 0
    if len(each) != -(-count // STRETCH) or len(data) != whole + 4 or not _is_code(lengths):
        raise _damaged()
    table = _table(lengths)
    wide = np.concatenate([data[:whole], np.zeros(3, np.uint8)]).astype(np.int32)
    # At every byte, the 24 bits from there on.
    wide = wide[:-2] << 16 | wide[1:-1] << 8 | wide[2:]
    places = (ends - each) * 8
    out = np.empty((len(each), STRETCH), np.uint8)
    for step in range(min(STRETCH, count)):
        live = len(each) if (len(each) - 1) * STRETCH + step < count else len(each) - 1
        now = places[:live]
        entry = table[wide[now >> 3] >> (12 - (now & 7)) & 4095]
        out[:live, step] = entry >> 4
        now += entry & 15
        # A damaged stretch may run beyond the end of all.
        np.minimum(now, whole * 8, out=now)
    found = out.reshape(-1)[:count]
    if not np.array_equal(-(-places // 8), ends) or zlib.crc32(found.tobytes()).to_bytes(
        4, "little"
    ) != bytes(data[whole:]):
        raise _damaged()
    return found


def _tree(weights: Integers) -> Integers:
    """Return the depth of every leaf of the tree that joins the two lightest again and again."""
    depths = np.zeros(len(weights), np.int64)
    heap = [(int(weight), number, [number]) for number, weight in enumerate(weights)]
    heapq.heapify(heap)
    while len(heap) > 1:
        first, second = heapq.heappop(heap), heapq.heappop(heap)
        leaves = first[2] + second[2]
        depths[leaves] += 1
        heapq.heappush(heap, (first[0] + second[0], min(first[1], second[1]), leaves))
    return np.maximum(depths, 1)  # a single one takes a bit too


def _words(lengths: Bytes) -> Integers:
    """Return the words of the canonical code: counted upwards, short ones first."""
    words = np.zeros(len(lengths), np.int64)
    word, before = 0, 0
    for number in _ordered(lengths):
        word <<= int(lengths[number]) - before
        words[number], before = word, int(lengths[number])
        word += 1
    return words


def _ordered(lengths: Bytes) -> Integers:
    order = np.argsort(lengths, kind="stable")
    return order[lengths[order] > 0]


def _is_code(lengths: Bytes) -> bool:
    """Whether every beginning of bits is a word or goes on to one: only a single word leaves room."""
    used = lengths[lengths > 0].astype(np.int64)
    if not len(used):
        return True
    room = int((1 << np.maximum(_LONGEST - used, 0)).sum())
    return int(used.max()) <= _LONGEST and (room == 1 << _LONGEST or used.tolist() == [1])


def _table(lengths: Bytes) -> npt.NDArray[np.int32]:
    """Return for any 12 bits ``16 * integer + length`` of the word that they begin with."""
    order = _ordered(lengths)
    entries = order.astype(np.int32) << 4 | lengths[order].astype(np.int32)
    spans = 1 << (_LONGEST - lengths[order].astype(np.int64))
    table = np.zeros(1 << _LONGEST, np.int32)
    found = np.repeat(entries, spans)
    table[: len(found)] = found
    return table


def _encode(integers: Bytes, lengths: Bytes, words: Integers) -> tuple[Integers, Bytes]:
    each = lengths[integers].astype(np.int64)
    starts = np.arange(0, len(integers), STRETCH)
    bits = np.add.reduceat(each, starts)
    sizes = -(-bits // 8)
    # Every stretch begins at a whole byte.
    before = each.cumsum() - each
    stretch = np.arange(len(integers)) // STRETCH
    first = (sizes.cumsum() - sizes) * 8
    places = before - before[starts][stretch] + first[stretch]
    single = np.zeros(int(sizes.sum()) * 8, np.uint8)
    shown = words[integers]
    for bit in range(int(lengths.max())):
        long = each > bit
        single[places[long] + bit] = shown[long] >> (each[long] - 1 - bit) & 1
    return sizes, np.packbits(single)


def _damaged() -> ValueError:
    return ValueError(
        "Expected indices that lit-compress has coded but they do not decode to what they were; the file is damaged: "
        "copy it again, or quantize the model again."
    )
