"""The peer of the language-model benchmarks: a GPT and its loop written plainly, as tutorials write them.

Same sizes, initial scale and optimiser as ours: pre-norm blocks, learned positions, tied output, one fused projection
for queries, keys and values, scaled_dot_product_attention, AdamW with weight decay on matrices, clipping at 1. It
generates by running the model on the whole context for every token.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainBlock(nn.Module):
    """Causal self-attention and an MLP, each behind a norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        batch, length, width = hidden.shape
        projected = self.projection(self.attention_norm(hidden)).split(width, dim=2)
        query, key, value = (part.view(batch, length, self.heads, -1).transpose(1, 2) for part in projected)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        hidden = hidden + self.output(attended.transpose(1, 2).contiguous().view(batch, length, width))
        return hidden + self.contract(F.gelu(self.expand(self.mlp_norm(hidden))))


class PlainGPT(nn.Module):
    """A decoder with learned positions and a tied output layer."""

    def __init__(self, vocabulary_size: int, context: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.context = context
        self.embedding = nn.Embedding(vocabulary_size, width)
        self.positions = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(PlainBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary_size, bias=False)
        self.head.weight = self.embedding.weight
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.embedding(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(self.norm(hidden))

    @torch.no_grad()
    def generate(self, tokens: Tensor, count: int) -> Tensor:
        """Continue greedily, the whole context again for every token."""
        for _ in range(count):
            logits = self(tokens[:, -self.context :])[:, -1]
            tokens = torch.cat([tokens, logits.argmax(-1, keepdim=True)], dim=1)
        return tokens


def plain_loop(model: PlainGPT, draw: Callable[[int], Tensor], steps: int, learning_rate: float) -> list[float]:
    """Train as tutorials do; return the losses."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
    others = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 1e-4}, {"params": others, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.99))
    losses = []
    model.train()
    for step in range(steps):
        windows = draw(step)
        logits = model(windows[:, :-1])
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), windows[:, 1:].reshape(-1))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        losses.append(loss.item())
    return losses
