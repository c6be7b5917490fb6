import functools
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_texts import english
from token_models import byte_rows, small_tokenizers, untrained, word_tokenizer

from components.language.byte_conversion import cover
from components.language.byte_stream import ByteStream
from components.language.generation import PrefixSession
from components.language.random_token_model import RandomTokenModel, enumerate_texts
from components.language.token_healing import TokenPrompt
from components.language.token_rows import NothingFollows
from components.language.token_tree import TokenTree
from components.tokenizers.text.validity import Validity

SMALL = small_tokenizers()
WORDS = word_tokenizer()
names = st.sampled_from(sorted(SMALL))


def texts(longest: int) -> list[str]:
    return ["".join(letters) for size in range(longest + 1) for letters in itertools.product("ab", repeat=size)]


@functools.cache
def valid_model(name: str, seed: int) -> RandomTokenModel:
    return RandomTokenModel(SMALL[name], seed, only_valid=True)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("exact", [True, False])
def test_every_next_byte_is_that_of_enumerating_all_token_sequences(name, exact):
    # Unigram lies outside the paper's proof; its encodings' beginnings are encodings, which is what the proof needs.
    model = valid_model(name, 0)
    rows = byte_rows(SMALL[name], model.next, exact=exact)
    truth = enumerate_texts(model.next, SMALL[name].vocabulary, model.end, 7)
    for text in texts(6):
        stream = ByteStream(rows, text)
        assert np.exp(stream.log_probabilities()) == pytest.approx(truth.next(text, "ab"), abs=1e-12)


def enumerate_truncated(model, tokenizer, longest):
    """Enumeration of the model with invalid sequences zeroed by re-encoding, the rest and the end renormalised."""
    validity = Validity(tokenizer, memory=tuple)

    @functools.cache
    def row(tokens):
        allowed = [*validity.continuations(validity.state(tokens)), True]
        kept = model.next(tokens).exp() * torch.tensor(allowed)
        return (kept / kept.sum()).log()

    return enumerate_texts(row, tokenizer.vocabulary, model.end, longest)


@pytest.mark.parametrize("name", SMALL)
def test_with_full_truncation_any_model_becomes_the_byte_process_of_its_valid_part(name):
    tokenizer = SMALL[name]
    model = RandomTokenModel(tokenizer, 5, only_valid=False)
    truth = enumerate_truncated(model, tokenizer, 6)
    rows = byte_rows(tokenizer, model.next, exact=True)
    for text in texts(5):
        stream = ByteStream(rows, text)
        assert np.exp(stream.log_probabilities()) == pytest.approx(truth.next(text, "ab"), abs=1e-12)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(names, st.text("ab", max_size=9), st.integers(0, 5))
def test_the_covers_sum_is_the_product_of_the_conditionals_and_nothing_is_normalised_away(name, text, seed):
    rows = byte_rows(SMALL[name], RandomTokenModel(SMALL[name], seed, only_valid=False).next, exact=True)
    stream, total = ByteStream(rows), 0.0
    for symbol in text:
        conditional = stream.log_probabilities()
        assert np.exp(conditional).sum() == pytest.approx(1, abs=1e-12)
        total += conditional["ab".index(symbol)]
        stream.append(symbol)
        assert stream.log_mass == pytest.approx(total, abs=1e-9)


@settings(deadline=None, max_examples=40, derandomize=True)
@given(names, st.text("ab", min_size=1, max_size=9), st.booleans(), st.integers(1, 8))
def test_a_streams_cover_is_the_definitions_and_no_member_extends_another(name, text, exact, start):
    tokenizer = SMALL[name]
    rows = byte_rows(tokenizer, RandomTokenModel(tokenizer, 0, only_valid=False).next, exact=exact)
    stream = ByteStream(rows, text[:start])
    for symbol in text[start:]:
        stream.append(symbol)
    head = tuple(tokenizer.encode(text)[: tokenizer.certain_tokens(text)])
    members = [(*head, *member.tokens) for member in stream.cover()]
    assert len(set(members)) == len(members)
    for member in members:
        assert tokenizer.decode(member).startswith(text)
        assert not tokenizer.decode(member[:-1]).startswith(text) or member == head
        assert not any(other != member and other[: len(member)] == member for other in members)
    if exact and len(head) < len(tokenizer.encode(text)):
        assert set(members) == set(cover(tokenizer, Validity(tokenizer), text))


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("name", [*SMALL, "words"])
def test_streaming_is_a_fresh_cover_after_each_of_50_random_bytes(name, exact):
    tokenizer = WORDS if name == "words" else SMALL[name]
    rows = byte_rows(tokenizer, RandomTokenModel(tokenizer, 2, only_valid=False).next, exact=exact)
    alphabet = rows.vocabulary.alphabet
    generator = np.random.default_rng(0)
    text = english(3) if name == "words" else "ab"
    stream = ByteStream(rows, text)
    for _ in range(50):
        # Half likely bytes, so that pieces grow, half any.
        likely = np.exp(stream.log_probabilities()[:-1])
        weights = likely / likely.sum() if generator.random() < 0.5 else None
        symbol = str(generator.choice(list(alphabet), p=weights))
        stream.append(symbol)
        text += symbol
        fresh = ByteStream(rows, text)
        assert stream.log_probabilities() == pytest.approx(fresh.log_probabilities(), abs=1e-9)
        one, other = ({member.tokens for member in each.cover()} for each in (stream, fresh))
        assert one == other


def test_kept_keys_and_values_change_nothing_and_the_model_is_called_once_per_byte():
    network = untrained(len(WORDS.vocabulary) + 1)
    session = PrefixSession(network)
    exact = byte_rows(WORDS, session.next, exact=True)
    longest = exact.vocabulary.words.longest
    prompt, following = english(12)[:43], english(12)[43:73]
    kept = ByteStream(exact, prompt)
    assert 1 <= session.calls <= longest
    uncached = byte_rows(WORDS, lambda tokens: PrefixSession(network).next(tokens), exact=True)
    fresh = ByteStream(uncached, prompt)
    calls = session.calls
    for symbol in following:
        assert kept.log_probabilities() == pytest.approx(fresh.log_probabilities(), abs=1e-9)
        kept.append(symbol)
        fresh.append(symbol)
    assert session.calls - calls <= 1.1 * len(following)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(names, st.text("ab", min_size=1, max_size=12), st.booleans())
def test_the_first_cover_takes_at_most_as_many_calls_as_the_longest_token_has_bytes(name, text, exact):
    tokenizer = SMALL[name]
    session = PrefixSession(untrained(len(tokenizer.vocabulary) + 1, context=20))
    rows = byte_rows(tokenizer, session.next, exact=exact)
    stream = ByteStream(rows, text)
    assert session.calls <= rows.vocabulary.words.longest
    before = session.calls
    stream.append("a")
    assert session.calls <= before + 1


@pytest.mark.parametrize("name", SMALL)
def test_the_model_is_asked_behind_beginnings_of_members_only(name):
    tokenizer = SMALL[name]
    model = RandomTokenModel(tokenizer, 0, only_valid=False)
    asked = []

    def next_token(tokens):
        asked.append(tuple(tokens))
        return model.next(tokens)

    rows = byte_rows(tokenizer, next_token, exact=True)
    for text in texts(6):
        asked.clear()
        stream = ByteStream(rows, text)
        whole = tokenizer.encode(text)
        head = tuple(whole[: tokenizer.certain_tokens(text)])
        members = [tuple(whole), *((*head, *member.tokens[:-1]) for member in stream.cover()[1:])]
        assert all(any(member[: len(tokens)] == tokens for member in members) for tokens in asked)


def test_nothing_before_the_last_sure_boundary_is_ever_taken_back():
    asked = []
    model = RandomTokenModel(WORDS, 0, only_valid=False)

    def next_token(tokens):
        asked.append(list(tokens))
        return model.next(tokens)

    text = english(8)
    stream = ByteStream(byte_rows(WORDS, next_token, exact=True), text)
    for symbol in " hat ten":
        head = WORDS.encode(text)[: WORDS.certain_tokens(text)]
        asked.clear()
        stream.append(symbol)
        assert asked
        assert all(tokens[: len(head)] == head for tokens in asked)
        text += symbol


def test_one_pass_over_the_tree_of_all_encodings_gives_the_same_stream():
    network = untrained(len(WORDS.vocabulary) + 1)
    text = english(10)[:50]
    tree = TokenTree(network, (WORDS.encode(text[:end]) for end in range(len(text) + 1)))
    one = ByteStream(byte_rows(WORDS, tree.next, exact=True))
    other = ByteStream(byte_rows(WORDS, PrefixSession(network).next, exact=True))
    for symbol in text:
        assert one.log_probabilities() == pytest.approx(other.log_probabilities(), abs=1e-9)
        one.append(symbol)
        other.append(symbol)


@pytest.mark.parametrize("name", SMALL)
def test_where_the_encoding_alone_covers_the_prompt_equally_truncated_tokens_say_the_same(name):
    tokenizer = SMALL[name]
    rows = byte_rows(tokenizer, RandomTokenModel(tokenizer, 4, only_valid=False).next, exact=True)
    alone = 0
    for text in texts(6):
        stream, direct = ByteStream(rows, text), TokenPrompt(rows, text, healed=False)
        same = np.allclose(stream.log_probabilities(), direct.log_probabilities(), atol=1e-9)
        if len(stream.cover()) == 1:
            alone += 1
            assert same
        elif name == "bpe" and len(text) > 2:
            assert not same
    assert alone >= 1


def test_a_context_conditions_and_is_covered_by_nothing():
    tokenizer = SMALL["bpe"]
    model = RandomTokenModel(tokenizer, 0, only_valid=False)
    context = [model.end, 1, 0]
    behind = byte_rows(tokenizer, model.next, exact=True, context=context)
    shifted = byte_rows(tokenizer, lambda tokens: model.next([*context, *tokens]), exact=True)
    for text in ("", "a", "abab"):
        expected = ByteStream(shifted, text).log_probabilities()
        assert ByteStream(behind, text).log_probabilities() == pytest.approx(expected)
    without = ByteStream(byte_rows(tokenizer, model.next, exact=True), "abab").log_probabilities()
    assert not np.allclose(without, expected)


def test_a_text_of_thousands_of_bytes_does_not_underflow():
    tokenizer = SMALL["bpe"]
    row = RandomTokenModel(tokenizer, 0, only_valid=False).next([])
    stream = ByteStream(byte_rows(tokenizer, lambda tokens: row, exact=True))
    for symbol in "ab" * 400 + "b" * 100:
        stream.append(symbol)
    assert stream.log_mass < math.log(1e-300)
    assert np.exp(stream.log_probabilities()).sum() == pytest.approx(1)


def test_a_text_that_a_model_excludes_is_refused():
    tokenizer = SMALL["max prefix"]
    model = valid_model("max prefix", 0)

    def no_b(tokens):
        row = model.next(tokens).clone()
        row[[i for i, token in enumerate(tokenizer.vocabulary) if "b" in token]] = -math.inf
        return row

    stream = ByteStream(byte_rows(tokenizer, no_b, exact=True), "aa")
    assert np.exp(stream.log_probabilities())[1] == 0
    stream.append("b")
    with pytest.raises(NothingFollows, match="probability"):
        stream.log_probabilities()
