"""Packed questions: what a segment sees, what is predicted where, and that logits are those of separate sequences."""

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.language.causal_lm import CausalLM, CausalLMConfig
from components.multimodal.packed_qa import (
    PackedBatch,
    PackingError,
    joined,
    pack_captions,
    pack_questions,
)
from components.multimodal.vlm import VLM
from components.multimodal.words import UnknownWord, WordVocabulary

WORDS = WordVocabulary(["?", "a", "blue", "is", "it", "no", "red", "the", "what", "yes"])
QUESTIONS = pl.DataFrame(
    {
        "row": [0, 0, 0, 1],
        "type": ["exist", "colour", "exist", "colour"],
        "question": ["is it red?", "what is the red?", "is it blue?", "what is it?"],
        "answer": ["yes", "red", "no", "blue"],
    }
)
TYPES = ("colour", "exist")


def model(rows: int = 2, width: int = 8) -> VLM:
    torch.manual_seed(0)
    language = CausalLM(CausalLMConfig(len(WORDS), 40, width, 2, 2, tied=True, positions="rotary", norm="rms"))
    # Larger embeddings than at the start of a training, so that every token matters.
    torch.nn.init.normal_(language.embedding.weight, std=1.0)
    return VLM(language=language, words=WORDS.entries, rows=rows, feature_width=3, merge=1, encoder="").eval()


def single(question: str, answer: str) -> PackedBatch:
    return pack_questions(
        pl.DataFrame({"row": [0], "type": ["exist"], "question": [question], "answer": [answer]}), 1, WORDS, TYPES
    ).batch(torch.tensor([0]))


def test_a_row_holds_the_questions_of_its_scene_one_after_another():
    packed = pack_questions(QUESTIONS, 2, WORDS, TYPES)
    batch = packed.batch(torch.tensor([0, 1]))
    first = [WORDS.question, *WORDS.encode("is it red?")]
    assert batch.tokens[0, :5].tolist() == first
    assert batch.segments[0].tolist() == [1] * 5 + [2] * 6 + [3] * 5
    assert batch.places[0].tolist() == [*range(5), *range(6), *range(5)]
    assert batch.segments[1].tolist() == [1] * 5 + [0] * 11
    assert batch.at.tolist() == [4, 10, 15, 16 + 4]
    assert [WORDS.tokens[word] for word in batch.targets.tolist()] == ["yes", "red", "no", "blue"]
    assert [TYPES[kind] for kind in batch.kinds.tolist()] == ["exist", "colour", "exist", "colour"]


def test_a_batch_is_no_longer_than_its_longest_row():
    packed = pack_questions(QUESTIONS, 2, WORDS, TYPES)
    assert packed.batch(torch.tensor([1])).tokens.shape == (1, 5)
    assert packed.batch(torch.tensor([1, 0])).tokens.shape == (2, 16)


def test_every_word_of_a_caption_is_predicted_and_then_the_end():
    batch = pack_captions(["a red", "the"], WORDS).batch(torch.tensor([0, 1]))
    assert batch.tokens[0].tolist() == [WORDS.caption, *WORDS.encode("a red")]
    assert batch.targets.tolist() == [*WORDS.encode("a red"), WORDS.end, *WORDS.encode("the"), WORDS.end]
    assert batch.kinds.tolist() == [-1] * 5


def test_joined_texts_stand_behind_one_another_as_further_segments():
    questions = pack_questions(QUESTIONS, 2, WORDS, TYPES, texts=True)
    captions = pack_captions(["a red", "the blue"], WORDS)
    batch = joined(questions, captions).batch(torch.tensor([1]))
    assert batch.segments[0].tolist() == [1] * 5 + [2] * 3
    assert batch.places[0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    told = [*WORDS.encode("what is it?"), *WORDS.encode("blue"), *WORDS.encode("the blue"), WORDS.end]
    assert batch.targets.tolist() == told


@pytest.mark.parametrize("visual", [0, 1, 4])
def test_packed_logits_are_those_of_separate_sequences(visual):
    vlm = model()
    tokens = torch.randn(2, visual, 8)
    packed = pack_questions(QUESTIONS, 2, WORDS, TYPES).batch(torch.tensor([0, 1]))
    with torch.no_grad():
        together = vlm(tokens, packed)
        alone = [
            vlm(tokens[row : row + 1], single(question, answer)) for row, _, question, answer in QUESTIONS.iter_rows()
        ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)


def test_positions_that_did_not_restart_would_show():
    vlm = model()
    packed = pack_questions(QUESTIONS, 2, WORDS, TYPES).batch(torch.tensor([0]))
    running = packed._replace(places=torch.arange(packed.tokens.shape[1])[None])
    with torch.no_grad():
        one, other = vlm(torch.randn(1, 4, 8), packed), vlm(torch.randn(1, 4, 8), running)
    assert (one - other).abs().max() > 1e-3


@settings(deadline=None, max_examples=15)
@given(st.permutations(range(3)))
def test_the_order_of_questions_changes_no_answer(order):
    vlm = model()
    tokens = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(3))
    first = QUESTIONS.head(3)
    with torch.no_grad():
        plain = vlm(tokens, pack_questions(first, 1, WORDS, TYPES).batch(torch.tensor([0])))
        moved = vlm(tokens, pack_questions(first[list(order)], 1, WORDS, TYPES).batch(torch.tensor([0])))
    torch.testing.assert_close(moved, plain[list(order)], rtol=1e-4, atol=1e-5)


def test_what_cannot_be_packed_is_named():
    with pytest.raises(PackingError, match="not one word"):
        pack_questions(QUESTIONS.with_columns(answer=pl.lit("a red")), 2, WORDS, TYPES)
    with pytest.raises(PackingError, match="'colour' are not among"):
        pack_questions(QUESTIONS, 2, WORDS, ("exist",))
    with pytest.raises(PackingError, match="scene 2 has no text"):
        pack_questions(QUESTIONS, 3, WORDS, TYPES)
    with pytest.raises(UnknownWord, match="'green'"):
        pack_captions(["a green"], WORDS)
    with pytest.raises(PackingError, match="2 and 1 scenes"):
        joined(pack_questions(QUESTIONS, 2, WORDS, TYPES), pack_captions(["a red"], WORDS))


def test_words_are_read_back(tmp_path):
    WORDS.save(tmp_path)
    assert WordVocabulary.load(tmp_path).tokens == WORDS.tokens
    assert WORDS.decode(WORDS.encode("is it red?")) == "is it red?"
    with pytest.raises(UnknownWord, match="rebuild it"):
        WordVocabulary.load(tmp_path / "none")
