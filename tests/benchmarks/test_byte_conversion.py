"""What exact bytes cost beyond the model, with a real vocabulary: 32,768 byte-level BPE tokens learned from books.

The clock runs while bytes stream and stops inside the model, which is a small random network: its predictions do not
matter, and everything else is done over the whole vocabulary. Rows of valid continuations start empty, as in a first
text.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

import pytest
import torch

from components.data.corpora import training_documents
from components.data.registry import load_declarations, materialise
from components.language.byte_stream import ByteStream
from components.language.causal_lm import CausalLM, CausalLMConfig
from components.language.generation import PrefixSession
from components.language.token_rows import ByteVocabulary, TokenRows
from components.tokenizers.text import bpe
from components.tokenizers.text.byte_level import BYTES, SPACED_PIECES, to_symbols
from components.tokenizers.text.continuations import continuations_of
from components.training.determinism import machine_class

ROOT = Path(__file__).parents[2]
VOCABULARY, PROMPT, BYTES_PER_ROUND, ROUNDS = 32_768, 300, 100, 8
MILLISECONDS_PER_BYTE, CALLS_PER_BYTE = 5.0, 1.1


@pytest.fixture(scope="module")
def text_and_tokenizer(tmp_path_factory) -> tuple[str, bpe.BytePairTokenizer]:
    books = ROOT / "data" / "books"
    if not (books / "meta.json").is_file():
        books = tmp_path_factory.mktemp("data") / "books"
        declared = load_declarations(ROOT / "params" / "data.yaml")["books"]
        materialise("books", declared, books, mirror=os.environ.get("TESSERA_MIRROR"))
    texts = [to_symbols(text) for text in training_documents(books)]
    return texts[0], bpe.train(texts, VOCABULARY, alphabet=BYTES, pieces=SPACED_PIECES)


@pytest.mark.benchmark_bar
@pytest.mark.timeout(600)
@pytest.mark.parametrize("exact", [True, False], ids=["exact", "fast"])
def test_a_byte_costs_one_call_and_at_most_five_milliseconds_more(benchmark, text_and_tokenizer, exact):
    text, tokenizer = text_and_tokenizer
    assert len(tokenizer.vocabulary) == VOCABULARY
    vocabulary, continuations = ByteVocabulary(tokenizer), continuations_of(tokenizer) if exact else None
    torch.manual_seed(0)
    network = CausalLM(CausalLMConfig(VOCABULARY + 1, 512, 64, 2, 4, tied=True, positions="rotary")).eval()
    beyond, first_calls, later_calls, in_model = [], [], 0, 0.0

    def start(place: int) -> tuple[tuple[ByteStream, PrefixSession, str], dict]:
        session = PrefixSession(network)

        def next_token(tokens):
            nonlocal in_model
            begin = time.perf_counter()
            row = session.next(tokens)
            in_model += time.perf_counter() - begin
            return row

        rows = TokenRows(next_token, vocabulary, continuations=continuations, end=VOCABULARY)
        stream = ByteStream(rows, text[place : place + PROMPT])
        first_calls.append(session.calls)
        return (stream, session, text[place + PROMPT : place + PROMPT + BYTES_PER_ROUND]), {}

    places = iter(range(5_000, 5_000 + 20_000 * (ROUNDS + 1), 20_000))

    def run(stream: ByteStream, session: PrefixSession, following: str) -> None:
        nonlocal later_calls, in_model
        calls, in_model = session.calls, 0.0
        begin = time.perf_counter()
        for symbol in following:
            stream.log_probabilities()
            stream.append(symbol)
        beyond.append((time.perf_counter() - begin - in_model) / len(following))
        later_calls += session.calls - calls

    benchmark.pedantic(run, setup=lambda: start(next(places)), rounds=ROUNDS)
    milliseconds = 1000 * statistics.median(beyond)
    per_byte = later_calls / (ROUNDS * BYTES_PER_ROUND)
    benchmark.extra_info.update(
        milliseconds_per_byte_beyond_the_model=round(milliseconds, 3),
        calls_per_byte=per_byte,
        most_first_calls=max(first_calls),
        longest_token=vocabulary.words.longest,
        machine=machine_class(),
    )
    print(benchmark.extra_info)
    assert milliseconds <= MILLISECONDS_PER_BYTE
    assert per_byte <= CALLS_PER_BYTE
    assert max(first_calls) <= vocabulary.words.longest
