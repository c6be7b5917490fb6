"""Learning byte pairs from 5 MB of words: the trainer that variants of BPE build on, beside Hugging Face's own.

Both learn from the same text with the same pre-tokenizer, on one thread, in turns, and must find the same vocabulary.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import pytest

from components.tokenizers.text import bpe, bpe_trainer
from components.tokenizers.text.byte_level import BYTES
from components.tokenizers.text.piecewise import piece_counts
from components.training.determinism import machine_class

pytestmark = pytest.mark.benchmark_bar

ROOT = Path(__file__).parents[2]
SYMBOLS, ROUNDS, BAR = 5_000_000, 3, 0.3


@pytest.fixture(scope="module")
def text(book_symbols: str) -> str:
    found = book_symbols[:SYMBOLS]
    assert len(found) == SYMBOLS
    return found


@pytest.mark.timeout(900)
@pytest.mark.parametrize("vocabulary_size", [1024, 8192])
def test_learning_byte_pairs_keeps_three_tenths_of_the_librarys_speed(benchmark, text, vocabulary_size):
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    vocabularies = {}

    def interleaved() -> None:
        began = time.perf_counter()
        counted = piece_counts([text], bpe.WORD_PIECES)
        vocabularies["ours"] = bpe_trainer.learn(counted, vocabulary_size, alphabet=BYTES).vocabulary
        middle = time.perf_counter()
        vocabularies["peer"] = bpe.train([text], vocabulary_size, alphabet=BYTES, pieces=bpe.WORD_PIECES).vocabulary
        seconds["ours"].append(middle - began)
        seconds["peer"].append(time.perf_counter() - middle)

    before = os.environ.get("RAYON_NUM_THREADS")
    os.environ["RAYON_NUM_THREADS"] = "1"
    try:
        benchmark.pedantic(interleaved, rounds=ROUNDS)
    finally:
        if before is None:
            del os.environ["RAYON_NUM_THREADS"]
        else:
            os.environ["RAYON_NUM_THREADS"] = before
    assert set(vocabularies["ours"]) == set(vocabularies["peer"])
    rate = {name: SYMBOLS / 1e6 / statistics.median(values) for name, values in seconds.items()}
    ratio = rate["ours"] / rate["peer"]
    benchmark.extra_info.update(
        ours_megabytes_per_second=round(rate["ours"], 3),
        peer_megabytes_per_second=round(rate["peer"], 3),
        ratio=round(ratio, 3),
        bar_ratio=BAR,
        machine=machine_class(),
    )
    assert ratio >= BAR, f"{ratio:.2f} of the library's speed"
