import numpy as np
import polars as pl
import pytest

from components.data import sentence_pool
from components.data.errors import DataError

POOLED = {
    "multi30k": [f"m{row}" for row in range(90)],
    "ud": [f"u{row}" for row in range(12)],
    "wikitext2": [f"w{row}" for row in range(40)],
}


def test_samples_share_no_sentence_and_take_equal_shares_as_far_as_a_corpus_goes():
    parts = [sentence_pool.sample(POOLED, number, 20, 4) for number in range(4)]
    assert [len(part) for part in parts] == [20] * 4
    assert len({text for part in parts for text in part}) == 80
    for part in parts:
        assert {letter: sum(text[0] == letter for text in part) for letter in "muw"} == {"u": 3, "w": 8, "m": 9}


def test_too_many_samples_are_refused():
    with pytest.raises(DataError, match="4 samples of 60 sentences are wanted"):
        sentence_pool.sample(POOLED, 0, 60, 4)
    with pytest.raises(DataError, match="expected 0 to 3"):
        sentence_pool.sample(POOLED, 4, 20, 4)


@pytest.fixture
def wiki(tmp_path):
    body = "".join(
        f" = Title {article} = \n \n"
        + "".join(
            f" One two @-@ three four five <unk> six{article}{row} . Seven eight nine ten eleven twelve {row} . \n"
            " \n = = Part = = \n"
            for row in range(4)
        )
        for article in range(5)
    )
    pl.DataFrame({"split": ["test"], "text": [body]}).write_parquet(tmp_path / "text.parquet")
    return tmp_path


def test_sentences_with_unknown_words_are_left_out_and_hyphens_are_joined(wiki):
    found = sentence_pool.articles(wiki)
    assert list(found) == [f"Title {article}" for article in range(5)]
    assert found["Title 0"][0].startswith("One two-three four")
    assert sentence_pool.sentences_of("wikitext2", wiki) == [
        f"Seven eight nine ten eleven twelve {row} ." for row in range(4)
    ]


def test_passages_lose_the_first_sentence_that_becomes_a_query(wiki):
    drawn = sentence_pool.passages(wiki, groups=3, each=2, queries=4, words=4, generator=np.random.default_rng(0))
    assert len(drawn.documents) == 6
    assert all(text == "Seven eight nine ten" for text in drawn.documents)
    assert np.bincount(drawn.groups).tolist() == [2, 2, 2]
    assert len(set(drawn.relevant.tolist())) == len(drawn.queries) == 4
    assert all("two-three" in text and "<unk>" not in text for text in drawn.queries)
    with pytest.raises(DataError, match="5 articles have as many"):
        sentence_pool.passages(wiki, groups=6, each=2, queries=4, words=4, generator=np.random.default_rng(0))


def test_frequent_words_are_counted_in_lower_case_and_known_to_the_vocabulary():
    pooled = {"ud": ["The dog , the cat", "a dog"], "multi30k": ["THE end"]}
    assert sentence_pool.frequent_words(pooled, 2, {"the", "dog", "cat", ","}) == ["the", "dog"]


def test_the_pool_holds_sentences_of_the_asked_length_in_one_order(tmp_path, wiki):
    found = sentence_pool.pool({"wikitext2": wiki}, (7, 8))
    assert sorted(found["wikitext2"]) == [f"Seven eight nine ten eleven twelve {row} ." for row in range(4)]
    assert found == sentence_pool.pool({"wikitext2": wiki}, (7, 8))
    assert sentence_pool.pool({"wikitext2": wiki}, (1, 3)) == {"wikitext2": []}
    with pytest.raises(DataError, match="none of multi30k"):
        sentence_pool.sentences_of("books", tmp_path)
