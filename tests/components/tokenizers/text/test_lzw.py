import pytest
from sample_texts import chain_texts, english

from components.tokenizers.text.encoders import minimal
from components.tokenizers.text.lzw import LempelZivError, learn, load, train


def test_the_dictionary_is_that_of_the_compressor():
    # Welch's own scheme on "abababab": ab, ba, aba, then abab ... worked by hand.
    assert learn(["ababababab"], 6) == ("a", "b", "ab", "ba", "aba", "abab")
    assert learn(["aaaaaaaaaa"], 4, alphabet="b") == ("a", "b", "aa", "aaa")


@pytest.mark.parametrize("text", [chain_texts()[0] * 3, english(100)])
def test_every_token_without_its_last_symbol_is_a_token(text):
    vocabulary = learn([text], 50)
    assert len(set(vocabulary)) == 50
    assert all(token[:-1] in vocabulary for token in vocabulary if len(token) > 1)


def test_larger_dictionaries_begin_with_the_smaller_ones():
    assert learn(chain_texts(), 200)[:30] == learn(chain_texts(), 30)


def test_both_encoders_give_the_text_back(tmp_path):
    tokenizer = train(chain_texts(), 64)
    text = "".join(chain_texts(3)[:10])
    assert tokenizer.decode(tokenizer.encode(text)) == text
    fewest = minimal(tokenizer.trie, tokenizer.trie.codes(text)).tolist()
    assert tokenizer.decode(fewest) == text
    assert len(fewest) <= len(tokenizer.encode(text))
    tokenizer.save(tmp_path / "tokenizer.json")
    assert load(tmp_path / "tokenizer.json").vocabulary == tokenizer.vocabulary


def test_a_text_that_ends_too_early_gives_fewer_tokens():
    assert learn(["abab"], 9) == ("a", "b", "ab", "ba")


def test_what_cannot_be_learned_is_refused():
    with pytest.raises(LempelZivError, match="3 symbols"):
        learn(["abc"], 2)
    with pytest.raises(LempelZivError, match="leave 'pieces' empty"):
        train(["abab"], 3, pieces=r"\w+")
