"""What a stream of tokens costs: entropies, Huffman codes, and general-purpose compressors.

    H    = -sum_t p(t) log2 p(t)                      bits per token, each by itself
    H_n  = H(t_1 .. t_n) - H(t_1 .. t_n-1)            bits per token, n - 1 tokens before it given
    L    = sum_t p(t) length(t),   H <= L < H + 1     a Huffman code
    saving = 1 - L / ceil(log2 V)                     against codes of one length

Entropies are estimated from counts. The plug-in estimate is too low by about (m - 1) / (2 N ln 2) bits where m types
occur among N tokens; Miller and Madow add that back.

Letters: `V` symbols, `N` occurrences, `R` distributions computed at once.

Sources: Shannon 1948 (block entropies); Miller 1955 (correction); Huffman 1952; van Leeuwen 1976 (two queues).
"""

from __future__ import annotations

import heapq
import itertools
import lzma
import math
import zlib

import numpy as np

from components.errors import TesseraError


class CodingError(TesseraError):
    """A stream has nothing to code."""


def entropy(counts: np.ndarray) -> np.ndarray:
    """Return the plug-in entropy in bits of counts (..., V), (...)."""
    counts = np.asarray(counts, dtype=np.float64)
    total = counts.sum(-1)
    logs = np.log2(counts, out=np.zeros_like(counts), where=counts > 0)
    return np.log2(total) - (counts * logs).sum(-1) / total


def miller_madow(counts: np.ndarray) -> np.ndarray:
    """Return the entropy in bits of counts (..., V) with Miller and Madow's correction, (...)."""
    counts = np.asarray(counts)
    live = (counts > 0).sum(-1)
    return entropy(counts) + (live - 1) / (2 * math.log(2) * counts.sum(-1))


def conditional_entropies(blocks: list[np.ndarray]) -> list[float]:
    """Return H_1, H_2, ... from the counts of blocks of 1, 2, ... tokens, each corrected.

    Once most blocks occur a single time the estimates say more about the length of the stream than about its law.
    """
    heights = [0.0, *(float(miller_madow(counts)) for counts in blocks)]
    return [after - before for before, after in itertools.pairwise(heights)]


def huffman_lengths(counts: np.ndarray) -> np.ndarray:
    """Return the length in bits of each symbol's Huffman code, int64 (V,); 0 for symbols that do not occur.

    A single symbol needs no bits.

    Raises:
        CodingError: No symbol occurs.
    """
    counts = np.asarray(counts)
    live = np.flatnonzero(counts)
    if not len(live):
        raise CodingError("no symbol occurs; a code needs at least one.")
    parents = np.full(2 * len(live) - 1, -1)
    queue = [(int(count), node) for node, count in enumerate(counts[live].tolist())]
    heapq.heapify(queue)
    for node in range(len(live), 2 * len(live) - 1):
        first, second = heapq.heappop(queue), heapq.heappop(queue)
        parents[[first[1], second[1]]] = node
        heapq.heappush(queue, (first[0] + second[0], node))
    depths = np.zeros(len(parents), dtype=np.int64)
    # A parent is made after its children, so from the root down every depth is known when it is asked for.
    for node in range(len(parents) - 2, -1, -1):
        depths[node] = depths[parents[node]] + 1
    lengths = np.zeros(len(counts), dtype=np.int64)
    lengths[live] = depths[: len(live)]
    return lengths


def huffman_mean_length(counts: np.ndarray) -> np.ndarray:
    """Return L, bits per symbol of a Huffman code, of many distributions at once: counts (R, V) to (R,).

    L N is the sum of the weights of all inner nodes. With the symbols sorted, inner nodes are made in ascending order,
    so the two lightest nodes stand at the heads of two queues.
    """
    counts = np.asarray(counts, dtype=np.float64)
    rows, size = np.arange(len(counts)), counts.shape[1]
    leaves = np.concatenate([np.sort(counts, axis=1), np.full((len(counts), 1), np.inf)], axis=1)
    leaf = (counts == 0).sum(1)
    merges = size - leaf - 1
    inner = np.full((len(counts), size + 1), np.inf)
    head = np.zeros(len(counts), dtype=np.int64)
    total = np.zeros(len(counts))
    for made in range(int(merges.max(initial=0))):
        weight = np.zeros(len(counts))
        for _ in range(2):
            light_leaf, light_inner = leaves[rows, leaf], inner[rows, head]
            take = light_leaf <= light_inner
            weight += np.where(take, light_leaf, light_inner)
            # A distribution whose tree is complete stays at its ends.
            leaf = np.minimum(leaf + take, size)
            head = np.minimum(head + ~take, size)
        active = made < merges
        inner[active, made] = weight[active]
        total[active] += weight[active]
    return total / counts.sum(1)


def fixed_length(vocabulary_size: int) -> int:
    """Return ceil(log2 V), bits of a code of one length."""
    return max(1, math.ceil(math.log2(vocabulary_size)))


def huffman_saving(counts: np.ndarray, vocabulary_size: int, tokens: int = 1) -> float:
    """Return which share of fixed-length bits a Huffman code saves, `1 - L / (tokens ceil(log2 V))`.

    Args:
        counts: Occurrences of each symbol, (V,); of runs of tokens where `tokens` is more than 1.
        vocabulary_size: V of single tokens.
        tokens: Tokens of a symbol.
    """
    counts = np.asarray(counts)
    mean = float((huffman_lengths(counts) * counts).sum() / counts.sum())
    return 1 - mean / (tokens * fixed_length(vocabulary_size))


def compressed_share(tokens: np.ndarray, vocabulary_size: int, compressor: str) -> float:
    """Return the size that a general compressor leaves, as a share of fixed-length bits.

    Tokens are written as one byte each where the vocabulary fits, else as two or four, low byte first.

    Args:
        tokens: The stream, (N,).
        vocabulary_size: V.
        compressor: "gzip" (Deflate, level 9) or "lzma".

    Raises:
        CodingError: The stream is empty, or there is no such compressor.
    """
    if not len(tokens):
        raise CodingError("the stream is empty; there is nothing to compress.")
    kind = "<u1" if vocabulary_size <= 1 << 8 else "<u2" if vocabulary_size <= 1 << 16 else "<u4"
    written = np.asarray(tokens).astype(kind).tobytes()
    if compressor == "gzip":
        size = len(zlib.compress(written, 9))
    elif compressor == "lzma":
        size = len(lzma.compress(written, format=lzma.FORMAT_ALONE, preset=6))
    else:
        raise CodingError(f"compressor {compressor!r} does not exist; expected gzip or lzma.")
    return 8 * size / (len(tokens) * fixed_length(vocabulary_size))
