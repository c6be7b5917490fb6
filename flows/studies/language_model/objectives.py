"""What answering networks are trained on: cross entropy of the answer, and what an arm puts beside or in its place."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn

from components.language.answering import Rows, cross_entropy
from components.training.loop import Series


class AnswerObjective:
    """Loss on the logits of answer tokens, L = CE + weight * number loss, as `fit` calls it.

    Args:
        params: With number_loss, number_weight, shuffled_values and smoothing.
        tokenizer: With `vocabulary` and `number_tokens`.
        seed: Decides the permutation where the values of digits are shuffled.
        device: Where to compute.
    """

    def __init__(self, params: Any, tokenizer: Any, seed: int, device: str) -> None:
        tokens, size = tokenizer.number_tokens, len(tokenizer.vocabulary)
        if params.shuffled_values:
            tokens = tokens.shuffled(seed)
        self._text_loss, self._number_loss, self._weight = cross_entropy, None, params.number_weight
        if params.number_loss != "none":
            module = importlib.import_module("components.language.number_loss")
            self._number_loss = module.build(tokens, size, params.number_loss).to(device)
        if params.smoothing:
            module = importlib.import_module("components.language.label_smoothing")
            self._text_loss = module.build(tokens, size, params.smoothing).to(device)

    def __call__(self, network: nn.Module, rows: Rows, generator: torch.Generator) -> tuple[Tensor, Series]:
        """Return the loss of a batch and its parts."""
        logits = network(rows)
        value = self._text_loss(logits, rows["labels"])
        series = {"cross_entropy": value}
        if self._number_loss is not None:
            series["number_loss"] = self._number_loss(logits, rows["labels"])
            value = value + self._weight * series["number_loss"]
        if (extra := network.extra_loss(rows)) is not None:
            series["squared_error"] = extra
            value = value + extra
        return value, series


def regression_objective(network: nn.Module, rows: Rows, generator: torch.Generator) -> tuple[Tensor, Series]:
    """Return the loss of a network that writes a number and no text."""
    return network.loss(rows["inputs"], rows["targets"]), {}
