"""Questions and answers as rows of a network, and greedy answers against a loop without caches and padding."""

import numpy as np
import pytest
import torch

from components.language import causal_answering, t5_answering
from components.language.answering import (
    IGNORED,
    AnsweringError,
    cross_entropy,
    draw,
    question_tokens,
    right_aligned,
    take,
)
from components.tokenizers.text.numeric import NOTHING, CharacterTokenizer, Encoded

TOKENIZER = CharacterTokenizer()
QUESTIONS = ["3 + 4", "what is 17?", "9"]
ANSWERS = ["7", "17", "-9"]
WANTED = torch.tensor(TOKENIZER.number_tokens.ids)


def tokens(end=TOKENIZER.end_token):
    return question_tokens(TOKENIZER.encode_all(QUESTIONS), TOKENIZER.encode_all(ANSWERS), end)


def causal():
    torch.manual_seed(0)
    made = causal_answering.build(TOKENIZER, context=20, width=16, layers=2, heads=2).eval()
    torch.nn.init.normal_(made.model.embedding.weight)
    return made


def encoder_decoder():
    torch.manual_seed(0)
    return t5_answering.build(TOKENIZER, context=20, width=16, layers=2, heads=2).eval()


def test_only_the_answer_and_its_end_are_labels():
    made = causal()
    rows = made.arrange(tokens())
    for row, (question, answer) in enumerate(zip(QUESTIONS, ANSWERS, strict=True)):
        label = rows["labels"][row].tolist()
        asked, answered = TOKENIZER.encode(question), [*TOKENIZER.encode(answer), TOKENIZER.end_token]
        length = len(asked) + len(answered)
        assert label[:length] == [IGNORED] * len(asked) + answered
        assert set(label[length:]) <= {IGNORED}
        assert rows["inputs"][row, :length].tolist() == [made.model.start_token, *asked, *answered[:-1]]
        assert rows["lengths"][row] == length


def test_the_loss_of_a_row_is_the_mean_over_its_answer_whatever_stands_beside_it():
    made = causal()
    rows = made.arrange(tokens())
    with torch.no_grad():
        alone = [
            cross_entropy(made(part), part["labels"]) for part in (take(rows, torch.tensor([i])) for i in range(3))
        ]
        together = cross_entropy(made(rows), rows["labels"])
    counts = [len(answer) + 1 for answer in ANSWERS]
    mean = sum(value.item() * count for value, count in zip(alone, counts, strict=True)) / sum(counts)
    assert together.item() == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize("make", [causal, encoder_decoder])
def test_greedy_answers_are_those_of_one_question_at_a_time_without_a_cache(make):
    made = make()
    found = made.answer(tokens(), 4, WANTED)
    for row, question in enumerate(QUESTIONS):
        asked = torch.tensor([TOKENIZER.encode(question)])
        written: list[int] = []
        for step in range(4):
            with torch.no_grad():
                if make is causal:
                    logits = made.model(made.model.with_start(torch.cat([asked, torch.tensor([written]).long()], 1)))
                else:
                    labels = torch.tensor([[*written, 0]])
                    logits = made.model(asked, torch.ones_like(asked, dtype=torch.bool), labels)
            last = logits[0, -1]
            assert found.tokens[row, step] == last.argmax()
            assert torch.allclose(found.logits[row, step], last[WANTED], atol=1e-4)
            written.append(int(last.argmax()))


def test_an_encoder_decoder_learns_from_the_same_questions():
    made = encoder_decoder().train()
    rows = made.arrange(tokens())
    assert rows["labels"][0].tolist() == [*TOKENIZER.encode("7"), TOKENIZER.end_token, IGNORED]
    optimiser = torch.optim.Adam(made.parameters(), lr=1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        cross_entropy(made(rows), rows["labels"]).backward()
        optimiser.step()
    assert TOKENIZER.decode_all(made.eval().answer(tokens(), 4, WANTED).tokens.numpy()) == ANSWERS
    assert made.model.vocabulary_size == 128


def test_right_aligned_questions_end_at_one_place():
    encoded = TOKENIZER.encode_all(QUESTIONS)
    space = TOKENIZER.vocabulary.index(" ")
    moved = right_aligned(encoded, 14, space)
    assert TOKENIZER.decode_all(moved.ids) == [question.rjust(14) for question in QUESTIONS]
    assert moved.lengths.tolist() == [14] * 3
    values = np.where(encoded.ids == NOTHING, 0, np.arange(encoded.ids.size).reshape(encoded.ids.shape))
    moved = right_aligned(Encoded(encoded.ids, encoded.lengths, values.astype(np.float32)), 14, space)
    for row, length in enumerate(encoded.lengths.tolist()):
        assert moved.values[row].tolist() == [1.0] * (14 - length) + values[row, :length].tolist()
    with pytest.raises(AnsweringError, match="has 11 tokens; expected at most 10"):
        right_aligned(encoded, 10, space)


def test_answers_without_an_end_token_have_none():
    rows = causal().arrange(question_tokens(TOKENIZER.encode_all(["a", "b"]), TOKENIZER.encode_all(["12", "34"]), None))
    assert rows["labels"].tolist() == [[IGNORED, *TOKENIZER.encode("12")], [IGNORED, *TOKENIZER.encode("34")]]


def test_drawing_is_decided_by_the_generator_and_cuts_off_what_no_row_uses():
    rows = causal().arrange(tokens())
    one, two = (draw(rows, 5, torch.Generator().manual_seed(3)) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in rows)
    short = take(rows, torch.tensor([2]))
    assert short["inputs"].shape == short["labels"].shape == (1, 4)


def test_what_does_not_fit_is_refused():
    with pytest.raises(AnsweringError, match="3 questions but 1 answers"):
        question_tokens(TOKENIZER.encode_all(QUESTIONS), TOKENIZER.encode_all(["1"]), 0)
    small = causal_answering.build(TOKENIZER, context=8, width=8, layers=1, heads=1)
    with pytest.raises(AnsweringError, match="has 14 tokens, the model 8 positions"):
        small.arrange(tokens())
