import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_texts import english
from token_models import byte_rows, small_tokenizers, word_tokenizer

from components.language.random_token_model import RandomTokenModel
from components.language.token_rows import ByteVocabulary, GrowingText, NothingFollows, TokenRows, encodings
from components.tokenizers.text.validity import is_valid

TOKENIZERS = {**small_tokenizers(), "words": word_tokenizer()}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_growing_text_has_the_encoding_of_its_text_and_never_takes_a_boundary_back(name):
    tokenizer = TOKENIZERS[name]
    text = english(40) if name == "words" else "abbaabababbbaabbaaabbabab"
    growing, before = GrowingText(tokenizer), 0
    for end, symbol in enumerate(text, start=1):
        head = list(growing.head)
        moved = growing.append(symbol)
        assert growing.tokens() == tokenizer.encode(text[:end])
        assert growing.head == [*head, *moved]
        assert tokenizer.decode(growing.head) + growing.rest == text[:end]
        assert len(growing.head) >= before
        before = len(growing.head)
    assert GrowingText(tokenizer, text).tokens() == tokenizer.encode(text)
    assert before > 0 or name in ("bpe", "other bpe")


def test_encodings_of_all_beginnings_are_listed_from_the_one_asked_for():
    tokenizer = TOKENIZERS["words"]
    text = english(6)
    expected = [tokenizer.encode(text[:end]) for end in range(5, len(text) + 1)]
    assert list(encodings(tokenizer, text, 5)) == expected


@pytest.mark.parametrize("name", small_tokenizers())
def test_full_truncation_keeps_valid_tokens_and_the_end_and_renormalises(name):
    tokenizer = TOKENIZERS[name]
    model = RandomTokenModel(tokenizer, 0, only_valid=False)
    rows = byte_rows(tokenizer, model.next, exact=True)
    order = rows.vocabulary.words.order
    for tokens in (tokenizer.encode(text) for text in ("", "a", "abba", "babab")):
        given_row, row = model.next(tokens).exp().numpy(), rows.after(tokens)
        kept = np.array([is_valid(tokenizer, [*tokens, token]) for token in range(len(order))])
        total = given_row[:-1][kept].sum() + given_row[-1]
        assert row.tokens == pytest.approx((given_row[:-1] * kept / total)[order])
        assert row.end == pytest.approx(given_row[-1] / total)


def test_truncation_never_costs_bits_on_encoded_text():
    tokenizer = TOKENIZERS["bpe"]
    model = RandomTokenModel(tokenizer, 1, only_valid=False)
    exact, plain = (byte_rows(tokenizer, model.next, exact=flag) for flag in (True, False))
    tokens = tokenizer.encode("abbabaababbba")
    for place, token in enumerate(tokens):
        rank = exact.vocabulary.rank[token]
        assert exact.after(tokens[:place]).tokens[rank] >= plain.after(tokens[:place]).tokens[rank]


def test_special_tokens_are_no_part_of_a_row_and_a_context_is_no_part_of_the_text():
    tokenizer = TOKENIZERS["max prefix"]
    asked = []
    size = len(tokenizer.vocabulary)

    def next_token(tokens):
        asked.append(list(tokens))
        return torch.arange(1.0, size + 4).double().log().log_softmax(-1)

    rows = TokenRows(next_token, ByteVocabulary(tokenizer), end=size + 2, context=[size, size + 1])
    row = rows.after([0])
    assert asked == [[size, size + 1, 0]]
    assert row.end == pytest.approx((size + 3) / sum(range(1, size + 4)))
    assert row.tokens.sum() == pytest.approx(sum(range(1, size + 1)) / sum(range(1, size + 4)))


def test_a_model_that_leaves_nothing_valid_is_refused():
    tokenizer = TOKENIZERS["max prefix"]
    size = len(tokenizer.vocabulary)

    def only_b_behind_a(tokens):
        row = torch.full((size + 1,), -math.inf, dtype=torch.float64)
        row[1] = 0.0
        return row

    rows = byte_rows(tokenizer, only_b_behind_a, exact=True)
    with pytest.raises(NothingFollows, match="'a'"):
        rows.after([0])  # a b is encoded as ab


@settings(deadline=None, max_examples=40, derandomize=True)
@given(st.sampled_from(sorted(small_tokenizers())), st.text("ab", max_size=6), st.text("ab", min_size=1, max_size=3))
def test_whether_anything_is_possible_is_known_without_the_model(name, text, rest):
    tokenizer = TOKENIZERS[name]

    def never(tokens):
        raise AssertionError("the model was asked")

    rows = byte_rows(tokenizer, never, exact=True)
    tokens = tokenizer.encode(text)
    found = any(
        spelled.startswith(rest) and is_valid(tokenizer, [*tokens, token])
        for token, spelled in enumerate(tokenizer.vocabulary)
    )
    assert rows.possible(tokens, *rows.vocabulary.words.below(rest)) == found
