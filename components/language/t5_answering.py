"""Answering with an encoder-decoder: the question is its source, the answer its target.

Letters: N questions, B of a batch, P tokens of the longest question, A of the longest answer, V tokens of the
vocabulary, K wanted tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from components.language.answering import CHUNK, IGNORED, Answers, QuestionTokens, Rows
from components.language.t5 import T5, T5Config, read_hub
from components.nn.transformer import KeyValueCache
from components.tokenizers.text.numeric import NOTHING


class EncoderDecoderAnswerer(nn.Module):
    """Answers with an encoder-decoder: the question is its source, the answer its target.

    Args:
        model: The model.
    """

    def __init__(self, model: T5) -> None:
        super().__init__()
        self.model = model

    def arrange(self, questions: QuestionTokens) -> Rows:
        """Return the rows that `forward` reads: source (N, P) and labels (N, A)."""
        lengths = torch.maximum(questions.prompt_lengths, questions.answer_lengths)
        labels = questions.answers.masked_fill(questions.answers == NOTHING, IGNORED)
        return {"inputs": questions.prompts, "labels": labels, "lengths": lengths}

    def forward(self, rows: Rows) -> Tensor:
        """Return the logits of the labels, (B, T, V)."""
        source = rows["inputs"]
        return self.model(source.clamp(min=0), source != NOTHING, rows["labels"])

    def extra_loss(self, rows: Rows) -> Tensor | None:
        """Return what the model asks for beside the loss on its logits; nothing."""
        return None

    @torch.no_grad()
    def answer(self, questions: QuestionTokens, count: int, wanted: Tensor) -> Answers:
        """Answer with the likeliest token at each step; arguments as of CausalAnswerer."""
        device = self.model.device
        wanted = wanted.to(device)
        tokens, logits = [], []
        for prompts in questions.prompts.split(CHUNK):
            prompts = prompts.to(device)
            states, hidden = self.model.encode(prompts.clamp(min=0), prompts != NOTHING)
            cache = KeyValueCache(count)
            given = prompts.new_full((len(prompts), 1), self.model.config.start_token)
            found, scores = [], []
            for _ in range(count):
                last = self.model.decode(given, states, hidden, cache)[:, -1]
                given = last.argmax(-1, keepdim=True)
                found.append(given)
                scores.append(last.index_select(-1, wanted).float())
            tokens.append(torch.cat(found, 1).cpu())
            logits.append(torch.stack(scores, 1).cpu())
        return Answers(torch.cat(tokens), logits=torch.cat(logits))


def build(tokenizer: Any, *, context: int, width: int, layers: int, heads: int) -> EncoderDecoderAnswerer:
    """Build an untrained T5 of the usual proportions (heads share the width, the MLP has four times as much).

    T5 has no limit of positions, so the context is not used. The vocabulary is rounded up to a multiple of 128, as the
    released one is, and the padding token 0 starts the decoder.
    """
    size = -(-len(tokenizer.vocabulary) // 128) * 128
    return EncoderDecoderAnswerer(T5(T5Config(size, width, layers, heads, width // heads, 4 * width)))


def load(directory: Path) -> EncoderDecoderAnswerer:
    """Read a pretrained T5 as it lies on the Hugging Face Hub."""
    return EncoderDecoderAnswerer(read_hub(directory))
