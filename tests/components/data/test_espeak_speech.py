"""Phrases with phonemes, one narrator, foreign sentences, short strings: splits, rules, equal rows, errors."""

import itertools

import numpy as np
import polars as pl
import pytest
import torch

from components.data import espeak_phrases
from components.data.espeak import EspeakError
from components.data.espeak_languages import spoken
from components.data.espeak_narrator import narrated
from components.data.fsdd_strings import strings
from components.data.phonetizer import WORD_END, Phonetizer
from components.data.speech import SAMPLE_RATE, SCHEMA, SpeechError

TEXT = ("the old man of the sea saw a ship on the sea . the ship of the old man was on the sea . " * 20).split()
RARE = [f"{first}{second}{vowel}n" for first, second, vowel in itertools.product("bdfg", "lr", "aeo")]


def test_phonemes_carry_stress_and_words_are_parted():
    with Phonetizer() as phonetizer:
        assert phonetizer.phonemes("red house") == ["r", "'E", "d", WORD_END, "h", "'aU", "s"]
        assert phonetizer.phonemes("red house") == phonetizer.phonemes("red house")
        with pytest.raises(EspeakError, match="no phonemes"):
            phonetizer.phonemes(" ")
    with pytest.raises(EspeakError, match="no voice"):
        Phonetizer("xx-nowhere")


@pytest.fixture(scope="module")
def phrases():
    text = [word for place, rare in enumerate(RARE) for word in (*TEXT[place : place + 9], rare, "sea")] + TEXT
    return text, espeak_phrases.phrases(text, {"train": 40, "dev": 5, "test": 12})


def test_every_test_phrase_has_a_word_set_aside_and_no_other_phrase_does(phrases):
    text, table = phrases
    apart = espeak_phrases.held_out_words(text)
    assert 0 < len(apart) <= len(set(RARE)) // 5 + 2
    for split, sentence in table.select("split", "text").iter_rows():
        assert bool(apart & set(sentence.split())) == (split == "test")


def test_phrases_are_short_different_and_stand_in_the_text(phrases):
    text, table = phrases
    assert table["text"].n_unique() == len(table) == 57
    for sentence in table["text"]:
        words = sentence.split()
        assert len(words) <= 4
        assert len(sentence) <= 24
        assert any(text[place : place + len(words)] == words for place in range(len(text)))
    assert table.schema == espeak_phrases.SCHEMA


def test_phrases_are_refused_where_the_text_has_too_few(phrases):
    with pytest.raises(espeak_phrases.PhraseError, match="no new phrase"):
        espeak_phrases.phrases(["a", "sea"], {"train": 9})


def test_the_narrator_says_different_short_sentences_the_same_way_every_time():
    table = narrated(TEXT, {"train": 6, "test": 3}, vocabulary_size=8)
    assert table.schema == SCHEMA
    assert table["text"].n_unique() == 9
    assert table["speaker"].n_unique() == 1
    assert table["samples"].list.len().max() <= 1.5 * SAMPLE_RATE
    assert table.equals(narrated(TEXT, {"train": 6, "test": 3}, vocabulary_size=8))
    with pytest.raises(SpeechError, match="no new sentence"):
        narrated(["the"] * 5, {"train": 9}, vocabulary_size=1)


def test_foreign_sentences_have_a_voice_and_a_split_for_each_language():
    table = spoken({"german": ["ein Hund", "eine Frau", "zu viel"], "czech": ["muž", "pes jde"]}, 2)
    assert table.schema == SCHEMA
    assert table["split"].to_list() == ["german", "german", "czech", "czech"]
    assert table["speaker"].to_list() == ["de-35", "de-65", "cs-35", "cs-65"]
    with pytest.raises(SpeechError, match="czech has 1"):
        spoken({"czech": ["pes"]}, 2)


def test_strings_have_one_to_three_digits_of_one_speaker_and_takes_of_their_split(monkeypatch):
    names = [f"{digit}_{speaker}_{take}" for digit in range(10) for speaker in ("ann", "bob") for take in range(50)]
    sound = np.random.default_rng(0).normal(0, 300, 800).astype(np.int16)
    waves = [torch.from_numpy(sound).float() / (1 << 15)] * len(names)
    monkeypatch.setattr("components.data.fsdd.names", lambda table: names)
    monkeypatch.setattr("components.data.fsdd.waveforms", lambda column: waves)
    recordings = pl.DataFrame({"speaker": ["ann", "bob"], "audio": [b"", b""]})
    table = strings(recordings, {"train": 30, "dev": 6, "test": 6})
    takes = {"train": range(8, 50), "dev": range(5, 8), "test": range(5)}
    for split, text, sources in table.select("split", "text", "sources").iter_rows():
        assert 1 <= len(text.split()) == len(sources) <= 3
        assert len({source.split("_")[1] for source in sources}) == 1
        assert all(int(source.rpartition("_")[2]) in takes[split] for source in sources)
    assert {len(sources) for sources in table["sources"]} == {1, 2, 3}
    monkeypatch.setattr("components.data.fsdd.names", lambda table: [f"{name}9" for name in names])
    with pytest.raises(SpeechError, match="missing"):
        strings(recordings, {"test": 1})
