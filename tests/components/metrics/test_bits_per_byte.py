import math

import numpy as np
import pytest
from token_models import byte_rows, small_tokenizers

from components.language.byte_stream import ByteStream
from components.language.random_token_model import RandomTokenModel
from components.metrics.bits_per_byte import BitsPerByteError, bits, bits_per_byte, per_text

TOKENIZERS = small_tokenizers()


def test_a_uniform_model_of_bytes_needs_8_bits_per_byte():
    text_bytes = np.array([10, 300, 1])
    assert bits_per_byte(bits(-text_bytes * math.log(256)), text_bytes) == pytest.approx(8)
    assert bits(math.log(0.25)) == pytest.approx(2)


def test_long_texts_count_more_and_the_values_per_text_average_to_the_ratio():
    text_bits, text_bytes = np.array([10.0, 300.0]), np.array([10, 100])
    assert bits_per_byte(text_bits, text_bytes) == pytest.approx(310 / 110)
    assert per_text(text_bits, text_bytes).mean() == pytest.approx(310 / 110)


def test_the_values_per_text_vary_as_the_ratio_does_under_resampling():
    generator = np.random.default_rng(0)
    text_bytes = generator.integers(50, 400, size=200)
    text_bits = text_bytes * generator.normal(2, 0.5, size=200)
    drawn = generator.integers(200, size=(4000, 200))
    ratios = text_bits[drawn].sum(1) / text_bytes[drawn].sum(1)
    values = per_text(text_bits, text_bytes)
    assert values.std(ddof=1) / math.sqrt(200) == pytest.approx(ratios.std(), rel=0.08)


def test_texts_without_bytes_and_unequal_numbers_are_refused():
    with pytest.raises(BitsPerByteError, match="at least one byte"):
        bits_per_byte(np.array([1.0]), np.array([0]))
    with pytest.raises(BitsPerByteError, match="2 numbers of bits for 1 texts"):
        per_text(np.array([1.0, 2.0]), np.array([3]))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_token_model_and_its_bytes_agree_on_texts_up_to_the_invalid_mass(name):
    tokenizer = TOKENIZERS[name]
    model = RandomTokenModel(tokenizer, 0, only_valid=False)
    exact, plain = (byte_rows(tokenizer, model.next, exact=flag) for flag in (True, False))
    for text in ("abba", "babbaabbab", "a"):
        stream, of_bytes = ByteStream(exact), 0.0
        for symbol in text:
            of_bytes += bits(stream.log_probabilities()["ab".index(symbol)])
            stream.append(symbol)
        of_bytes += bits(stream.log_probabilities()[-1])
        tokens, of_tokens, invalid = tokenizer.encode(text), 0.0, 0.0
        for end in range(len(tokens) + 1):
            truncated, row = exact.after(tokens[:end]), plain.after(tokens[:end])
            rank = exact.vocabulary.rank[tokens[end]] if end < len(tokens) else None
            of_tokens += bits(math.log(row.end if rank is None else row.tokens[rank]))
            invalid += bits(math.log(row.end / truncated.end))
        assert of_tokens - invalid == pytest.approx(of_bytes, abs=1e-9)
        assert invalid > 0
