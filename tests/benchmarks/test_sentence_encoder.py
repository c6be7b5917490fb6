"""Encoding of sentences, from texts to vectors in their order, beside the bare network on ready batches.

The peer is the same network of MiniLM's size on batches that are already sorted, padded and on the device: what
tokenizing, sorting, batching and restoring the order cost is the difference. The scan for sticky tokens makes its texts
on the way, which counts too. One thread (and a GPU where there is one).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import numpy as np
import pytest
import torch
from turns import in_turns

from components.analysis.sticky_scoring import distance_curves, prepare
from components.encoders.random_sentence import redraw, word_piece_tokenizer
from components.encoders.sentence import SentenceEncoder, length_sorted_batches
from components.nn.bert import BertConfig

pytestmark = pytest.mark.benchmark_bar

BAR = 0.9
TEXTS, WORDS = 512, (6, 24)
TOKENS, COPIES = 32, (1, 4, 8)
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    tokenizer = word_piece_tokenizer([f"w{number}" for number in range(30_517)])
    made = SentenceEncoder(BertConfig(30_522, 384, 6, 12, 1_536), tokenizer)
    redraw(made, seed=0)
    return made.eval().requires_grad_(False)


def sentence(generator: np.random.Generator, words: int) -> str:
    return " ".join(f"w{number}" for number in generator.integers(0, 30_517, words))


def compared(benchmark, ours: Callable[[], object], peer: Callable[[], object], count: int, device: str) -> float:
    times = in_turns(benchmark, {"ours": ours, "peer": peer}, rounds=5, device=device)
    own, other = times["ours"], times["peer"]
    share = statistics.median(bare / one for one, bare in zip(own, other, strict=True))
    benchmark.extra_info.update(
        device=device,
        sentences_per_second=round(count / statistics.median(own)),
        peer_sentences_per_second=round(count / statistics.median(other)),
        ratio=round(share, 3),
        bar_ratio=BAR,
        peer="the network alone on sorted batches",
    )
    print(benchmark.extra_info)
    return share


def bare(encoder: SentenceEncoder, rows: list[list[int]], batch_size: int) -> Callable[[], object]:
    """Return the network's work on batches that are ready."""
    batches = [
        (tokens.ids.to(encoder.device), None if bool(tokens.mask.all()) else tokens.mask.to(encoder.device))
        for _, tokens in length_sorted_batches(rows, batch_size)
    ]

    @torch.inference_mode()
    def work() -> list[torch.Tensor]:
        return [encoder(ids, mask) for ids, mask in batches]

    return work


@pytest.mark.parametrize("device", DEVICES)
def test_encoding_texts_costs_little_more_than_the_network_alone(encoder, device, benchmark):
    encoder.to(device)
    generator = np.random.default_rng(0)
    texts = [sentence(generator, int(words)) for words in generator.integers(*WORDS, TEXTS)]
    work = bare(encoder, encoder.token_ids(texts), 64)
    assert compared(benchmark, lambda: encoder.encode(texts, 64), work, TEXTS, device) >= BAR


@pytest.mark.parametrize("device", DEVICES)
def test_a_scan_costs_little_more_than_the_network_alone_on_its_texts(encoder, device, benchmark):
    encoder.to(device)
    generator = np.random.default_rng(0)
    tokens = [f"w{number}" for number in range(TOKENS)]
    first, second = ([sentence(generator, words) for words in (7, 11)] for _ in range(2))
    edits = prepare(encoder, first, second, COPIES, generator)
    texts = [token.join(pieces) for token in tokens for pair in edits.pieces for pieces in pair]
    work = bare(encoder, encoder.token_ids(texts), 64)
    assert compared(benchmark, lambda: distance_curves(encoder, tokens, edits), work, len(texts), device) >= BAR
