import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from token_models import byte_rows, small_tokenizers

from components.language.byte_ensemble import ByteEnsemble, EnsembleError
from components.language.byte_stream import ByteStream
from components.language.random_token_model import RandomTokenModel
from components.tokenizers.text.max_prefix import MaxPrefixTokenizer

TOKENIZERS = small_tokenizers()


def stream(name: str, seed: int, text: str = "") -> ByteStream:
    tokenizer = TOKENIZERS[name]
    return ByteStream(byte_rows(tokenizer, RandomTokenModel(tokenizer, seed, only_valid=False).next, exact=True), text)


def test_an_ensemble_of_a_model_with_itself_is_the_model():
    ensemble, alone = ByteEnsemble([stream("bpe", 0, "ab"), stream("bpe", 0, "ab")]), stream("bpe", 0, "ab")
    for symbol in "babbaab":
        assert ensemble.log_probabilities() == pytest.approx(alone.log_probabilities())
        ensemble.append(symbol)
        alone.append(symbol)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(st.text("ab", min_size=1, max_size=10), st.floats(0.05, 0.95), st.integers(0, 20))
def test_an_ensemble_of_other_vocabularies_is_the_mean_and_never_costs_more_bits_than_the_members_mean(
    text, first, seed
):
    weights = [first, 1 - first]
    members = [stream("bpe", seed), stream("max prefix", seed + 1)]
    ensemble = ByteEnsemble([stream("bpe", seed), stream("max prefix", seed + 1)], weights)
    bits = np.zeros(2)
    of_ensemble = 0.0
    for symbol in text:
        each = np.stack([member.log_probabilities() for member in members])
        joined = ensemble.log_probabilities()
        assert np.exp(joined) == pytest.approx(np.average(np.exp(each), axis=0, weights=weights))
        place = "ab".index(symbol)
        assert -joined[place] <= -np.average(each[:, place], weights=weights) + 1e-12
        bits, of_ensemble = bits - each[:, place], of_ensemble - joined[place]
        for model in (*members, ensemble):
            model.append(symbol)
    assert of_ensemble <= np.average(bits, weights=weights) + 1e-9


def test_members_of_other_alphabets_and_weights_that_do_not_fit_are_refused():
    tokenizer = MaxPrefixTokenizer(["a", "c"])
    other = ByteStream(byte_rows(tokenizer, RandomTokenModel(tokenizer, 0, only_valid=False).next, exact=True))
    with pytest.raises(EnsembleError, match="same symbols"):
        ByteEnsemble([stream("bpe", 0), other])
    with pytest.raises(EnsembleError, match="at least one member"):
        ByteEnsemble([])
    for weights in ([1.0], [0.7, 0.7], [1.0, 0.0]):
        with pytest.raises(EnsembleError, match="expected positive, sum 1"):
            ByteEnsemble([stream("bpe", 0), stream("bpe", 1)], weights)
