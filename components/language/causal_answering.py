"""Answering with a decoder-only model: question and answer are one sequence.

Letters: N questions, B of a batch, T tokens of the longest sequence, V tokens of the vocabulary, K wanted tokens.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.language.answering import IGNORED, AnsweringError, Answers, QuestionTokens, Rows, by_length, joined
from components.language.causal_lm import CausalLM, CausalLMConfig
from components.nn.transformer import KeyValueCache


class CausalAnswerer(nn.Module):
    """Answers with a decoder-only model.

    Args:
        model: The model.
    """

    def __init__(self, model: CausalLM) -> None:
        super().__init__()
        self.model = model

    def arrange(self, questions: QuestionTokens) -> Rows:
        """Return the rows that `forward` reads: inputs and labels, (N, T), and how long they are, (N,).

        Raises:
            AnsweringError: A question with its answer is longer than the model's context.
        """
        lengths = questions.prompt_lengths + questions.answer_lengths
        context = self.model.config.context
        if int(lengths.max()) > context:
            raise AnsweringError(
                f"a question with its answer has {int(lengths.max())} tokens, the model {context} positions; shorten "
                "the question or enlarge `context`."
            )
        sizes = (questions.prompt_lengths, questions.answers, questions.answer_lengths)
        sequence = joined(questions.prompts, *sizes, fill=0)
        labels = joined(torch.full_like(questions.prompts, IGNORED), *sizes, fill=IGNORED)
        rows = {"inputs": self.model.with_start(sequence[:, :-1]), "labels": labels, "lengths": lengths}
        if questions.answer_values is not None:
            sizes = (questions.prompt_lengths, questions.answer_values, questions.answer_lengths)
            values = joined(questions.prompt_values, *sizes, fill=1.0)
            rows |= {"input_values": F.pad(values[:, :-1], (1, 0), value=1.0), "values": values}
        return rows

    def forward(self, rows: Rows) -> Tensor:
        """Return the logits of the labels, (B, T, V)."""
        return self.model(rows["inputs"])

    def extra_loss(self, rows: Rows) -> Tensor | None:
        """Return what the model asks for beside the loss on its logits of the last `forward`; here nothing."""
        return None

    @torch.no_grad()
    def answer(self, questions: QuestionTokens, count: int, wanted: Tensor) -> Answers:
        """Answer with the likeliest token at each step.

        Questions of one length are answered together, so that no padding stands between a question and its answer.

        Args:
            questions: The questions; their answers are not read.
            count: Tokens to write.
            wanted: Ids whose logits are kept, (K,).
        """
        size = (len(questions), count)
        tokens, logits = torch.empty(size, dtype=torch.int64), torch.empty(*size, len(wanted))
        wanted = wanted.to(self.model.device)
        for rows, prompts in by_length(questions.prompts, questions.prompt_lengths):
            cache = KeyValueCache(self.model.config.context)
            given = self.model.with_start(prompts.to(self.model.device))
            found, scores = [], []
            for _ in range(count):
                last = self.model(given, cache)[:, -1]
                given = last.argmax(-1, keepdim=True)
                found.append(given)
                scores.append(last.index_select(-1, wanted).float())
            tokens[rows], logits[rows] = torch.cat(found, 1).cpu(), torch.stack(scores, 1).cpu()
        return Answers(tokens, logits=logits)


def build(tokenizer: Any, *, context: int, width: int, layers: int, heads: int) -> CausalAnswerer:
    """Build an untrained answerer for a tokenizer's vocabulary, on torch's default device."""
    return CausalAnswerer(CausalLM(CausalLMConfig(len(tokenizer.vocabulary), context, width, layers, heads)))
