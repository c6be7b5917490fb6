import itertools

import numpy as np
import pytest
from token_models import byte_rows, small_tokenizers

from components.language.byte_stream import ByteStream
from components.language.random_token_model import RandomTokenModel
from components.language.token_healing import TokenPrompt, greedy_tokens

TOKENIZERS = small_tokenizers()
TEXTS = ["".join(letters) for size in range(1, 6) for letters in itertools.product("ab", repeat=size)]


def setting(name: str, seed: int = 0):
    tokenizer = TOKENIZERS[name]
    model = RandomTokenModel(tokenizer, seed, only_valid=False)
    return tokenizer, model, byte_rows(tokenizer, model.next, exact=False)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_direct_prompting_sums_tokens_by_their_first_byte(name):
    tokenizer, model, rows = setting(name)
    for text in TEXTS:
        row = model.next(tokenizer.encode(text)).exp().tolist()
        expected = [
            sum(share for token, share in zip(tokenizer.vocabulary, row, strict=False) if token[0] == c) for c in "ab"
        ]
        got = np.exp(TokenPrompt(rows, text, healed=False).log_probabilities())
        assert got == pytest.approx([*expected, row[-1]])


@pytest.mark.parametrize("name", TOKENIZERS)
def test_healing_is_what_follows_when_the_last_token_is_drawn_again_among_those_that_begin_with_it(name):
    tokenizer, model, rows = setting(name)
    for text in TEXTS:
        tokens = tokenizer.encode(text)
        removed = tokenizer.vocabulary[tokens[-1]]
        shorter, whole = (model.next(part).exp().tolist() for part in (tokens[:-1], tokens))
        chosen = {token: shorter[i] for i, token in enumerate(tokenizer.vocabulary) if token.startswith(removed)}
        total = sum(chosen.values())
        expected = np.zeros(3)
        for token, share in chosen.items():
            if token != removed:
                expected["ab".index(token[len(removed)])] += share / total
                continue
            expected[2] += share / total * whole[-1]
            for follower, spelled in enumerate(tokenizer.vocabulary):
                expected["ab".index(spelled[0])] += share / total * whole[follower]
        got = np.exp(TokenPrompt(rows, text, healed=True).log_probabilities())
        assert got == pytest.approx(expected)


def test_an_empty_prompt_has_nothing_to_take_back():
    _, _, rows = setting("bpe")
    healed, direct = (TokenPrompt(rows, healed=flag).log_probabilities() for flag in (True, False))
    assert healed == pytest.approx(direct)
    assert direct == pytest.approx(ByteStream(rows).log_probabilities())


def test_a_prompt_is_encoded_anew_behind_every_byte():
    _, _, rows = setting("max prefix")
    for healed in (False, True):
        growing = TokenPrompt(rows, "a", healed=healed)
        for end, symbol in enumerate("bbabaab", start=2):
            growing.append(symbol)
            fresh = TokenPrompt(rows, "abbabaab"[:end], healed=healed)
            assert growing.log_probabilities() == pytest.approx(fresh.log_probabilities())


@pytest.mark.parametrize("healed", [False, True])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_greedy_decoding_takes_the_likeliest_allowed_token_each_time(name, healed):
    tokenizer, model, rows = setting(name, 1)
    for text in TEXTS:
        tokens = tokenizer.encode(text)
        removed = tokenizer.vocabulary[tokens.pop()] if healed else ""
        expected = ""
        while len(expected) < 12:
            row = model.next(tokens).exp().numpy()
            allowed = [token.startswith(removed) for token in tokenizer.vocabulary]
            best = int((row[:-1] * allowed).argmax())
            if not removed and row[-1] > row[best]:
                break
            tokens.append(best)
            expected += tokenizer.vocabulary[best][len(removed) :]
            removed = ""
        got = ""
        for string in greedy_tokens(rows, text, healed=healed):
            got += string
            if len(got) >= 12:
                break
        assert got == expected


def test_where_the_end_is_no_choice_greedy_decoding_goes_on():
    _, model, _ = setting("bpe")

    def mostly_ends(tokens):
        row = model.next(tokens).exp() * 0.01
        row[-1] = 0.99
        return row.log()

    rows = byte_rows(TOKENIZERS["bpe"], mostly_ends, exact=False)
    assert list(greedy_tokens(rows, "ab", healed=False)) == []
    strings = greedy_tokens(rows, "ab", healed=False, ends=False)
    assert all(next(strings) for _ in range(5))
