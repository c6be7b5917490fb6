"""Encoding a text with 8,192 byte-level tokens: ours beside Hugging Face `tokenizers` called directly, and tiktoken.

Byte pairs run through the library here, too; the two other ways to cut a text are ours, over arrays. All use the same
tokens on the same text, of which every symbol is ASCII, because tiktoken's pieces are made of characters and ours of
bytes. Tiktoken is optional and no part of the lock; without it that row is skipped:

    pip install --no-deps --target peers tiktoken==0.14.0
    PYTHONPATH=peers make bench
"""

from __future__ import annotations

from pathlib import Path

import limits
import pytest
import turns

from components.tokenizers.text import bpe, encoders
from components.tokenizers.text.byte_level import BYTES, to_bytes
from components.tokenizers.text.trie import VocabularyTrie

pytestmark = pytest.mark.benchmark_bar

ROOT = Path(__file__).parents[2]
VOCABULARY, TRAINING, SYMBOLS, ROUNDS = 8192, 2_000_000, 1_000_000, 5
BAR = 0.8


@pytest.fixture(scope="module")
def text(book_symbols: str) -> str:
    found = book_symbols.encode("ascii", "ignore").decode()[: TRAINING + SYMBOLS]
    assert len(found) == TRAINING + SYMBOLS
    return found


@pytest.fixture(scope="module")
def tokenizer(text) -> bpe.BytePairTokenizer:
    return bpe.train([text[:TRAINING]], VOCABULARY, alphabet=BYTES, pieces=bpe.WORD_PIECES)


def test_encoding_beside_the_library_with_the_same_tokens(one_thread, text, tokenizer, benchmark):
    held_out = text[TRAINING:]
    trie = VocabularyTrie(tokenizer.vocabulary)
    library = tokenizer._tokenizer
    works = {
        "peer": lambda: library.encode(held_out).ids,
        "bpe": lambda: tokenizer.encode(held_out),
        "greedy": lambda: encoders.greedy(trie, trie.codes(held_out)),
        "minimal": lambda: encoders.minimal(trie, trie.codes(held_out)),
    }
    found = {name: work() for name, work in works.items()}
    assert found["bpe"] == found["peer"]
    assert all(tokenizer.decode(list(found[name])) == held_out for name in ("greedy", "minimal"))
    assert len(found["minimal"]) <= min(len(found["bpe"]), len(found["greedy"]))
    times = turns.in_turns(benchmark, works, ROUNDS)
    rates = {name: turns.facts(times[name], times["peer"], amount=SYMBOLS / 1e6) for name in works if name != "peer"}
    benchmark.extra_info.update(
        rates, limit=limits.bytes_per_second() / 1e6, tokens={name: len(ids) for name, ids in found.items()}
    )
    print(benchmark.extra_info)
    assert rates["bpe"]["ratio"] >= BAR


def test_encoding_beside_tiktoken_with_the_same_tokens(one_thread, text, tokenizer, benchmark):
    tiktoken = pytest.importorskip("tiktoken", reason="the peer is not installed")
    held_out = text[TRAINING:]
    peer = tiktoken.Encoding(
        name="benchmark",
        pat_str=bpe.WORD_PIECES,
        # A rank decides which pair is merged first; tokens are in the order in which they were learned.
        mergeable_ranks={to_bytes(token): rank for rank, token in enumerate(tokenizer.vocabulary)},
        special_tokens={},
    )
    assert peer.encode_ordinary(held_out) == tokenizer.encode(held_out)
    works = {"ours": lambda: tokenizer.encode(held_out), "peer": lambda: peer.encode_ordinary(held_out)}
    times = turns.in_turns(benchmark, works, ROUNDS)
    benchmark.extra_info.update(turns.facts(times["ours"], times["peer"], amount=SYMBOLS / 1e6))
    print(benchmark.extra_info)
