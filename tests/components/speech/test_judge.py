"""The judge on disk, its two ways of reading, and words it does not know."""

import pytest
import torch

from components.bases import save_base, specification
from components.speech.judge import CTCJudge, JudgeError, load_judge, save_judge
from components.speech.recogniser import CTCRecogniser

SIZES = {"alphabet": " abn", "channels": 8, "hidden": 6, "bands": 10}


def judge() -> CTCJudge:
    torch.manual_seed(0)
    return CTCJudge(CTCRecogniser(**SIZES), ["an", "ban", "nab"], ["ban an", "nab"], beams=8)


def test_transcripts_are_words_of_the_lexicon_and_do_not_depend_on_the_company():
    waves = [torch.randn(samples) for samples in (4_000, 900, 2_345)]
    found = judge().transcribe(waves)
    assert all(word in ("an", "ban", "nab") for text in found for word in text.split())
    assert [judge().transcribe([wave])[0] for wave in waves] == found
    assert [judge().spell([wave])[0] for wave in waves] == judge().spell(waves)


def test_a_judge_is_read_back_as_it_was_or_with_other_words(tmp_path):
    one = judge()
    save_judge(tmp_path, one)
    save_base(tmp_path, one.recogniser, specification("components.speech.recogniser", **SIZES), "card")
    again, other = load_judge(tmp_path), load_judge(tmp_path, words=["a", "b"], texts=["a b"])
    assert (again.words, again.texts, again.beams) == (one.words, one.texts, one.beams)
    waves = [torch.randn(3_000)]
    assert again.transcribe(waves) == one.transcribe(waves)
    assert set(other.transcribe(waves)[0].split()) <= {"a", "b"}
    with pytest.raises(JudgeError, match="together"):
        load_judge(tmp_path, words=["a"])
    with pytest.raises(JudgeError, match="rebuild-base ctc-judge"):
        load_judge(tmp_path / "nowhere")


def test_a_text_with_a_word_outside_the_lexicon_is_refused():
    with pytest.raises(JudgeError, match="'bana'"):
        CTCJudge(CTCRecogniser(**SIZES), ["an"], ["an bana"])
