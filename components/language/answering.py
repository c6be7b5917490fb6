"""Questions with short answers: training on the answers alone, and answering greedily.

    decoder only       start q_1 .. q_P a_1 .. a_A     labels  . .. . a_1 .. a_A end
    encoder-decoder    source q_1 .. q_P               labels  a_1 .. a_A end

A model is wrapped by an answerer (causal_answering, xval, t5_answering). All have the same methods, so that what is
trained and measured does not depend on the kind of model:

    arrange(questions) -> rows        forward(rows) -> logits of the labels        extra_loss(rows) -> scalar or None
    answer(questions, count, wanted) -> greedy answers

Letters: N questions, B of a batch, P tokens of the longest question, A of the longest answer with its end, T of the
longest sequence, V tokens of the vocabulary, K tokens whose logits are wanted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from components.errors import TesseraError
from components.tokenizers.text.numeric import NOTHING, Encoded

CHUNK = 1024
"""Most questions that are answered at once."""

IGNORED = -100
"""Label of positions that count in no loss (the default of `F.cross_entropy`)."""

Rows = dict[str, Tensor]
"""What a model reads of some questions and answers, by name; `lengths` (N,) says how much of each row is in use."""


class AnsweringError(TesseraError):
    """Questions and answers do not fit together or into a model."""


@dataclass(frozen=True)
class QuestionTokens:
    """Encoded questions and answers, on the CPU.

    Attributes:
        prompts: Ids, (N, P), NOTHING behind the end.
        prompt_lengths: (N,).
        answers: Ids with the end token, (N, A), NOTHING behind it.
        answer_lengths: (N,).
        prompt_values: Values beside the ids, (N, P), None where the tokenizer has none.
        answer_values: (N, A), likewise.
    """

    prompts: Tensor
    prompt_lengths: Tensor
    answers: Tensor
    answer_lengths: Tensor
    prompt_values: Tensor | None = None
    answer_values: Tensor | None = None

    def __len__(self) -> int:
        return len(self.prompts)


@dataclass(frozen=True)
class Answers:
    """Greedy answers, on the CPU.

    Attributes:
        tokens: (N, A) ids.
        values: Values beside the ids, (N, A); None where the model writes none.
        logits: Logits of the wanted tokens at each step, (N, A, K); None where none are wanted.
    """

    tokens: Tensor
    values: Tensor | None = None
    logits: Tensor | None = None


def question_tokens(questions: Encoded, answers: Encoded, end_token: int | None) -> QuestionTokens:
    """Put encoded questions and answers together.

    Args:
        questions: N of them.
        answers: N of them.
        end_token: Put behind every answer; None where all answers are equally long and need no end.
    """
    if len(questions.ids) != len(answers.ids):
        raise AnsweringError(f"{len(questions.ids)} questions but {len(answers.ids)} answers; expected as many.")
    ids, lengths = torch.from_numpy(answers.ids), torch.from_numpy(answers.lengths)
    values = None if answers.values is None else torch.from_numpy(answers.values)
    if end_token is not None:
        ids = F.pad(ids, (0, 1), value=NOTHING).scatter(1, lengths[:, None], end_token)
        values = None if values is None else F.pad(values, (0, 1), value=1.0)
        lengths = lengths + 1
    asked = None if questions.values is None else torch.from_numpy(questions.values)
    prompts, prompt_lengths = torch.from_numpy(questions.ids), torch.from_numpy(questions.lengths)
    return QuestionTokens(prompts, prompt_lengths, ids, lengths, asked, values)


def right_aligned(encoded: Encoded, width: int, fill: int) -> Encoded:
    """Move texts to the right end of rows of one width, so that all answers begin at one place.

    Args:
        encoded: N texts.
        width: Tokens of a row.
        fill: Token in front of a text (a space).

    Raises:
        AnsweringError: A text has more tokens.
    """
    longest = int(encoded.lengths.max(initial=0))
    if longest > width:
        raise AnsweringError(f"a question has {longest} tokens; expected at most {width}. Enlarge the context.")
    place = np.arange(width) - (width - encoded.lengths[:, None])
    behind = np.maximum(place, 0)
    ids = np.where(place >= 0, np.take_along_axis(np.pad(encoded.ids, ((0, 0), (0, width))), behind, 1), fill)
    values = encoded.values
    if values is not None:
        moved = np.take_along_axis(np.pad(values, ((0, 0), (0, width))), behind, 1)
        values = np.where(place >= 0, moved, 1).astype(np.float32)
    return Encoded(ids, np.full(len(ids), width, np.int64), values)


def joined(prompts: Tensor, lengths: Tensor, answers: Tensor, answer_lengths: Tensor, fill: float) -> Tensor:
    """Put each row's answer directly behind its question, (N, T), `fill` behind both."""
    width = int((lengths + answer_lengths).max())
    place = torch.arange(width) - lengths[:, None]  # 0 where the answer begins
    behind = answers.gather(1, place.clamp(0, answers.shape[1] - 1))
    ahead = F.pad(prompts, (0, max(0, width - prompts.shape[1])))[:, :width]
    row = behind.where(place >= 0, ahead)
    return row.masked_fill(place >= answer_lengths[:, None], fill)


def take(rows: Rows, chosen: Tensor) -> Rows:
    """Take some rows, and cut off columns behind the longest of them."""
    width = int(rows["lengths"][chosen].max())
    return {name: part[chosen] if part.dim() == 1 else part[chosen, :width] for name, part in rows.items()}


def draw(rows: Rows, count: int, generator: torch.Generator) -> Rows:
    """Draw rows with replacement for a training step."""
    return take(rows, torch.randint(len(rows["lengths"]), (count,), generator=generator))


def by_length(prompts: Tensor, lengths: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (row numbers, prompts of one length without padding) until every row was given."""
    for length in lengths.unique().tolist():
        for rows in torch.nonzero(lengths == length)[:, 0].split(CHUNK):
            yield rows, prompts[rows, :length]


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of -ln P(label) over labelled positions, in nats.

    Args:
        logits: (B, T, V).
        labels: (B, T) token ids, IGNORED where nothing is predicted.
    """
    return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=IGNORED)
