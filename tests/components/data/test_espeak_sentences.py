"""Words by the trigrams of a text, spoken by espeak-ng: times, voices, splits, and the same bytes in any process."""

import hashlib
import itertools
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from components.data.espeak import EspeakError, Synthesiser
from components.data.espeak_sentences import HELD_OUT, SEEN, readable, spoken_sentences
from components.data.sentences import SentencesError, Trigrams, vocabulary
from components.data.speech import SCHEMA, SpeechError

TEXT = ("the old man of the sea saw a ship on the sea . the ship of the old man was on the sea . " * 20).split()
DIGEST = """
import hashlib
from components.data.espeak import Synthesiser
digest = hashlib.sha256()
for voice in ("en-us+f2", "en+m3"):
    with Synthesiser() as synthesiser:
        for text in ("the old man", "one of the ships", "the old man"):
            digest.update(synthesiser.say(text, voice, 160, 50).samples.tobytes())
print(digest.hexdigest())
"""


def test_the_vocabulary_is_the_commonest_words_that_can_be_said():
    words = ["the"] * 5 + ["<unk>"] * 9 + ["km"] * 9 + ["m"] * 9 + ["a"] * 4 + ["1999"] * 9 + ["sea", "ant", "i"]
    assert vocabulary(words, 3) == ["a", "ant", "the"]
    with pytest.raises(SentencesError, match="needs 9"):
        vocabulary(words, 9)


def test_every_third_word_is_drawn_as_often_as_it_follows_its_pair():
    text = ["a", "b", "c", "a", "b", "c", "a", "b", "d", "x"]
    order = Trigrams(text, ["a", "b", "c", "d"])
    draws = np.random.default_rng(0)
    ends = Counter()
    for _ in range(4_000):
        words = order.sentence(3, draws).split()
        if words[:2] == ["a", "b"]:
            ends[words[2]] += 1
    assert set(ends) == {"c", "d"}
    assert ends["c"] / ends.total() == pytest.approx(2 / 3, abs=0.04)
    # After "b d" and after "d" nothing follows inside the vocabulary: the next word is drawn alone.
    assert len(order.sentence(30, draws).split()) == 30
    with pytest.raises(SentencesError, match="no word"):
        Trigrams(text, ["z"])


@pytest.fixture(scope="module")
def table():
    return spoken_sentences(
        TEXT,
        {"train": 12, "dev": 4, "test": 4, "held_out": 4},
        vocabulary_size=8,
        seen=SEEN[:3],
        held_out=HELD_OUT[:2],
    )


def test_rows_have_the_schema_and_voices_are_held_out(table):
    assert dict(table.schema) == SCHEMA
    assert table["split"].to_list() == ["train"] * 12 + ["dev"] * 4 + ["test"] * 4 + ["held_out"] * 4
    heard = {split: set(part["speaker"]) for (split,), part in table.group_by("split")}
    assert heard["train"] == {voice.name for voice in SEEN[:3]}
    assert heard["held_out"] == {voice.name for voice in HELD_OUT[:2]}
    assert table["utterance"].to_list()[:2] == ["train/00000", "train/00001"]
    words = set(itertools.chain.from_iterable(text.split() for text in table["text"]))
    assert words <= set(vocabulary(TEXT, 8))


def test_words_and_phonemes_lie_one_after_the_other_inside_the_sound(table):
    for row in table.iter_rows(named=True):
        assert [word["word"] for word in row["words"]] == row["text"].split()
        for spans in (row["words"], row["phonemes"]):
            assert all(span["start"] < span["end"] for span in spans)
            assert all(one["end"] <= other["start"] for one, other in itertools.pairwise(spans))
            assert spans[-1]["end"] <= len(row["samples"])
        assert readable(row["text"], len(row["samples"]))
        # What is said is louder than the pause behind it.
        samples = np.array(row["samples"], float)
        last = row["words"][-1]
        assert np.abs(samples[last["start"] : last["end"]]).mean() > np.abs(samples[last["end"] :]).mean()


def test_no_long_sentence_of_training_is_tested(table):
    taught = set(table.filter(table["split"] == "train")["text"])
    for text in table.filter(table["split"] != "train")["text"]:
        assert len(text.split()) < 4 or text not in taught


def test_the_voices_of_the_data_set_are_sixty_or_more_with_variants_of_their_own_held_out():
    names = [voice.name for voice in (*SEEN, *HELD_OUT)]
    assert len(set(names)) == len(names)
    assert len(SEEN) >= 60
    variants = [{voice.name.split("+")[1] for voice in part} for part in (SEEN, HELD_OUT)]
    assert not variants[0] & variants[1]
    assert all(30 <= voice.pitch <= 70 for voice in (*SEEN, *HELD_OUT))
    with Synthesiser() as synthesiser:
        assert all(len(synthesiser.say("a", name, 160, 50).samples) for name in names)


def test_two_processes_give_the_same_bytes_whatever_was_said_before():
    digest = hashlib.sha256()
    for voice in ("en-us+f2", "en+m3"):
        with Synthesiser() as synthesiser:
            for text in ("the old man", "one of the ships", "the old man"):
                digest.update(synthesiser.say(text, voice, 160, 50).samples.tobytes())
    other = subprocess.run([sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == digest.hexdigest()


def test_a_common_pair_that_espeak_says_as_one_is_divided():
    with Synthesiser() as synthesiser:
        spoken = synthesiser.say("one of the ships", "en-us", 160, 50)
    assert [word for word, _, _ in spoken.words] == ["one", "of", "the", "ships"]
    assert all(one[2] == other[1] for one, other in itertools.pairwise(spoken.words))


def test_unknown_voices_and_splits_and_too_fast_speech_are_named():
    with Synthesiser() as synthesiser, pytest.raises(EspeakError, match="no voice 'xx-yy'"):
        synthesiser.say("a", "xx-yy", 160, 50)
    with pytest.raises(SpeechError, match="unknown splits \\['valid'\\]"):
        spoken_sentences(TEXT, {"valid": 1}, vocabulary_size=8)
    assert readable("see", 4 * 320)
    assert not readable("see", 4 * 320 - 1)
