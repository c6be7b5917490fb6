"""A small training with every kind of state; run as a script it is the process that the loop's tests kill.

python toy.py <output> [--checkpoint DIRECTORY] [--kill STEP]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.metrics.tables import CurveTable
from components.nn.transformer import Transformer, TransformerConfig
from components.training import determinism
from components.training.fingerprint import digest, state_digest
from components.training.loop import Optimisation, fit

OPTIMISATION = Optimisation(steps=60, learning_rate=3e-3, warmup_steps=5, weight_decay=0.1, ema_decay=0.9)


class Toy(nn.Module):
    """Tied and frozen parameters, dropout, batch statistics, a codebook that only after_step changes."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(16, 8)
        self.body = Transformer(TransformerConfig(width=8, layers=1, heads=2, causal=True, dropout=0.1))
        self.statistics = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 16, bias=False)
        self.head.weight = self.embedding.weight
        self.frozen = nn.Parameter(torch.randn(8), requires_grad=False)
        self.register_buffer("codebook", torch.randn(4, 8))
        self.register_buffer("visits", torch.zeros(4, dtype=torch.int64), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.body(self.embedding(tokens) + self.frozen)
        return self.head(self.statistics(hidden.transpose(1, 2)).transpose(1, 2))


def build() -> Toy:
    determinism.reset(7)
    return Toy()


def draw_batch(step: int, generator: torch.Generator) -> dict[str, Tensor]:
    start = torch.randint(16, (8, 1), generator=generator)
    return {"tokens": (start + torch.arange(9) * 3) % 16}


def loss(model: Toy, batch: dict[str, Tensor], generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor | float]]:
    tokens = batch["tokens"]
    noisy = torch.where(torch.rand(tokens.shape, generator=generator) < 0.05, 0, tokens)
    logits = model(noisy[:, :-1])
    value = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
    return value, {"accuracy": (logits.argmax(-1) == tokens[:, 1:]).float().mean(), "constant": 2.0}


def after_step(model: Toy, step: int, generator: torch.Generator) -> None:
    row = int(torch.randint(4, (), generator=generator))
    model.codebook[row].lerp_(torch.randn(8, generator=generator), 0.5)
    model.visits[row] += 1


def train(draw=draw_batch, **options) -> tuple[Toy, CurveTable]:
    model = build()
    options = {"log_every": 5, "checkpoint_seconds": 0.0, **options}
    curves = fit(model, draw, loss, OPTIMISATION, seed=3, after_step=after_step, units={"loss": "nats"}, **options)
    return model, curves


def outcome(model: Toy, curves: CurveTable) -> str:
    """Digest of weights, buffers (also those that are not persistent), curves and what is drawn next."""
    state = dict(model.named_parameters()) | dict(model.named_buffers())
    return digest([state_digest(state), json.dumps(curves.frame().to_dict(as_series=False)), torch.rand(4)])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--kill", type=int)
    arguments = parser.parse_args()

    def draw(step: int, generator: torch.Generator) -> dict[str, Tensor]:
        if step == arguments.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        return draw_batch(step, generator)

    arguments.output.write_text(outcome(*train(draw, checkpoint=arguments.checkpoint)))


if __name__ == "__main__":
    main()
