from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_models import byte_rows, small_tokenizers

from components.language.byte_sampling import SamplingError, generate, reshape
from components.language.byte_stream import ByteStream
from components.language.random_token_model import RandomTokenModel, enumerate_texts

TOKENIZER = small_tokenizers()["bpe"]
MODEL = RandomTokenModel(TOKENIZER, 0, only_valid=True)
ROWS = byte_rows(TOKENIZER, MODEL.next, exact=True)
distributions = st.lists(st.floats(0.01, 1), min_size=2, max_size=6).map(
    lambda weights: np.array(weights) / sum(weights)
)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(distributions, st.floats(0.2, 3))
def test_temperature_takes_powers(probabilities, temperature):
    expected = probabilities ** (1 / temperature)
    assert reshape(np.log(probabilities), temperature) == pytest.approx(expected / expected.sum())


@settings(deadline=None, max_examples=50, derandomize=True)
@given(distributions, st.floats(0.01, 1))
def test_the_nucleus_is_the_smallest_set_of_likeliest_symbols_with_that_much_probability(probabilities, top_p):
    kept = reshape(np.log(probabilities), top_p=top_p) > 0
    assert probabilities[kept].sum() >= top_p - 1e-9
    least = np.where(kept, probabilities, np.inf).min()
    assert probabilities[kept].sum() - least < top_p + 1e-9
    assert kept.all() or least >= probabilities[~kept].max()


def test_impossible_symbols_stay_so_and_strange_settings_are_refused():
    with np.errstate(divide="ignore"):
        logs = np.log([0.5, 0.0, 0.5])
    assert reshape(logs, 2.0)[1] == 0
    assert reshape(np.log([0.2, 0.7, 0.1]), 0).tolist() == [0, 1, 0]
    for settings_ in ({"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.5}):
        with pytest.raises(SamplingError, match="expected T >= 0"):
            reshape(logs, **settings_)


def test_generated_texts_have_the_token_models_own_distribution():
    truth = enumerate_texts(MODEL.next, TOKENIZER.vocabulary, MODEL.end, 2)
    generator = np.random.default_rng(0)
    found = Counter(generate(ByteStream(ROWS), 2, generator) for _ in range(800))
    for text in ("", "a", "b"):
        share = truth.ends[text]
        assert found[text] / 800 == pytest.approx(share, abs=4 * np.sqrt(share / 800))
    for text in ("aa", "ab", "ba", "bb"):
        share = truth.begins[text]
        assert found[text] / 800 == pytest.approx(share, abs=4 * np.sqrt(share / 800))


def test_greedy_generation_follows_the_likeliest_byte_and_stops_when_told_to():
    stream, expected = ByteStream(ROWS, "ab"), ""
    while len(expected) < 6 and (chosen := stream.log_probabilities().argmax()) < 2:
        expected += "ab"[chosen]
        stream.append("ab"[chosen])
    generator = np.random.default_rng(0)
    assert generate(ByteStream(ROWS, "ab"), 6, generator, temperature=0) == expected
    stopped = generate(ByteStream(ROWS, "ab"), 50, generator, stop=lambda text: len(text) == 1)
    assert len(stopped) <= 1
