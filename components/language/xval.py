"""xVal: a language model that reads a number as one scaled embedding and writes it with a scalar head.

Letters: B sequences, T tokens, D width, V tokens of the vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.language.answering import Answers, QuestionTokens, Rows, by_length
from components.language.causal_answering import CausalAnswerer
from components.language.causal_lm import CausalLM, CausalLMConfig, LanguageModelError
from components.nn.transformer import KeyValueCache


class XValLM(CausalLM):
    """Decoder-only transformer whose [NUM] embedding is multiplied by the number's value.

        (id, value) -- embed(id) * scaled value + position -- transformer (causal) --+-- linear -- next token
                                                                                     +-- MLP ----- next value

    Values are divided by a fixed scale before they enter and multiplied by it when they leave. Tokens that are no
    number carry the value 1 unscaled.

    Args:
        config: Sizes, learned positions.
        number_token: Id of [NUM].

    Raises:
        LanguageModelError: The config asks for tied embeddings or rotary positions.

    Source: Golkar et al. 2023, "xVal: A Continuous Number Encoding for Large Language Models", sections 2.1 and 2.2.
    """

    LARGEST = 5.0  # Numbers are read in [-5, 5], as in the paper.

    def __init__(self, config: CausalLMConfig, number_token: int) -> None:
        if config.tied or config.positions != "learned":
            raise LanguageModelError("xVal is built here with learned positions and an output layer of its own.")
        super().__init__(config)
        self.number_token = number_token
        self.number_head = nn.Sequential(nn.Linear(config.width, config.width), nn.GELU(), nn.Linear(config.width, 1))
        self.register_buffer("scale", torch.ones(()))

    def fit_scale(self, largest: float) -> None:
        """Choose the scale so that the largest absolute number of the training texts is read as 5."""
        self.scale.fill_(max(largest, 1e-6) / self.LARGEST)

    def forward(self, tokens: Tensor, values: Tensor, cache: KeyValueCache | None = None) -> tuple[Tensor, Tensor]:
        """Return what stands behind each token.

        Args:
            tokens: Ids, (B, T), the first one being the start token where the cache is empty.
            values: Value of each token, (B, T); those of tokens that are no number are not read.
            cache: Keys and values of the tokens before; extended in place.

        Returns:
            Logits of the next token, (B, T, V), and its value if it is a number, (B, T).
        """
        past = 0 if cache is None else cache.length
        factor = (values / self.scale).where(tokens == self.number_token, 1.0)
        hidden = self.embedding(tokens) * factor[..., None] + self.positions.weight[past : past + tokens.shape[1]]
        hidden = self.transformer(hidden, cache=cache)
        # Half precision holds three digits: under autocast the head's output is scaled in the values' own.
        return self.output(hidden), self.number_head(hidden)[..., 0].to(values.dtype) * self.scale

    def number_loss(self, predicted: Tensor, values: Tensor, labels: Tensor) -> Tensor:
        """Return the mean squared error of the numbers among the labels, in units of the scale; 0 without any.

        Args:
            predicted: Values from `forward`, (B, T).
            values: True values, (B, T).
            labels: Token ids, (B, T).
        """
        counted = labels == self.number_token
        error = ((predicted - values) / self.scale).float().square().masked_fill(~counted, 0)
        return error.sum() / counted.sum().clamp(min=1)

    @torch.no_grad()
    def answer(self, prompts: Tensor, values: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Continue prompts with the likeliest tokens, feeding predicted numbers back.

        Args:
            prompts: Ids, (B, T).
            values: (B, T).
            count: Tokens to add.

        Returns:
            Tokens and their values, each (B, count).
        """
        cache = KeyValueCache(self.config.context)
        given, beside = self.with_start(prompts), F.pad(values, (1, 0), value=1.0)
        tokens, numbers = [], []
        for _ in range(count):
            logits, predicted = self(given, beside, cache)
            given, beside = logits[:, -1].argmax(-1, keepdim=True), predicted[:, -1:]
            tokens.append(given)
            numbers.append(beside)
        return torch.cat(tokens, 1), torch.cat(numbers, 1)


class XValAnswerer(CausalAnswerer):
    """Answers with xVal's model, whose numbers are values beside the tokens.

    Args:
        model: The model.
    """

    model: XValLM

    def forward(self, rows: Rows) -> Tensor:
        """Return the logits of the labels, (B, T, V); the predicted values are kept for `extra_loss`."""
        logits, self._values = self.model(rows["inputs"], rows["input_values"])
        return logits

    def extra_loss(self, rows: Rows) -> Tensor:
        """Return the squared error of the numbers, whose values no logit says."""
        return self.model.number_loss(self._values, rows["values"], rows["labels"])

    @torch.no_grad()
    def answer(self, questions: QuestionTokens, count: int, wanted: Tensor) -> Answers:
        """Answer with the likeliest token and the predicted value at each step; no logits are kept."""
        tokens = torch.empty(len(questions), count, dtype=torch.int64)
        values = torch.empty(len(questions), count)
        device = self.model.device
        for rows, prompts in by_length(questions.prompts, questions.prompt_lengths):
            beside = questions.prompt_values[rows, : prompts.shape[1]].to(device)
            found = self.model.answer(prompts.to(device), beside, count)
            tokens[rows], values[rows] = found[0].cpu(), found[1].float().cpu()
        return Answers(tokens, values)


def build(tokenizer: Any, *, context: int, width: int, layers: int, heads: int) -> XValAnswerer:
    """Build an untrained answerer for a tokenizer of values, on torch's default device."""
    config = CausalLMConfig(len(tokenizer.vocabulary), context, width, layers, heads)
    return XValAnswerer(XValLM(config, tokenizer.number_token))
