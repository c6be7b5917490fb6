"""Likelihood of test sequences under an arm's network, with its own preceding blocks and with those of others.

Letters: B sequences, N tokens that are predicted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from components.diffusion.block import block_nats
from components.diffusion.likelihood import BoundEstimator
from components.diffusion.schedules import LinearSchedule
from components.language.count_models import BigramCounts, UnigramCounts
from components.metrics.tables import MetricTable
from components.training.determinism import derive_seed
from flows.studies.context import StageContext
from flows.studies.discrete_diffusion.e2d2 import networks
from flows.studies.discrete_diffusion.e2d2.params import EvaluateParams
from flows.studies.discrete_diffusion.e2d2.tasks import Characters, Examples, Task

_ROWS = 64  # sequences of one pass
_DRAWS = 7  # random stream of this stage


@dataclass(frozen=True)
class Nats:
    """-ln p of each sequence per token, float64 (B,), and the variance of their mean that random masks leave."""

    values: Tensor
    variance: float


def add_bounds(table: MetricTable, stage: StageContext, task: Task, network: Any, examples: Examples) -> None:
    """Add the bound, its variance, and, for characters, what it gains over counts and by the preceding blocks."""
    params: EvaluateParams = stage.params
    own = nats(stage, task, network, examples)

    def add(metric: str, values: Tensor, unit: str = "nats/token", normaliser: str = "tokens") -> None:
        table.add_items(metric, values.tolist(), unit=unit, items=examples.names, normaliser=normaliser)

    add("nll_bound", own.values)
    if params.network != "causal":
        table.add("bound_variance", own.variance, unit="nats^2/token^2", samples=len(own.values), normaliser="tokens")
    if not isinstance(task, Characters):
        return
    add("bits_per_byte", own.values / math.log(2), "bits/byte", "bytes")
    unigram = UnigramCounts(task.training, task.words).nats(examples.tokens).mean(1)
    add("unigram_nats", unigram)
    add("bigram_nats", BigramCounts(task.training, task.words).nats(examples.tokens).mean(1))
    add("below_unigram", unigram - own.values)
    if params.network != "bidirectional":
        # The same masks as above, so that only what comes before differs.
        other = nats(stage, task, network, examples, examples.tokens[examples.other])
        add("context_gain", other.values - own.values)


def nats(stage: StageContext, task: Task, network: Any, examples: Examples, context: Tensor | None = None) -> Nats:
    """Return -ln p of sequences, or its bound, per token.

    Args:
        stage: The evaluation; its seed decides the masks, which are the same for every arm with the same blocks.
        task: Its vocabulary.
        network: The network of the arm.
        examples: The sequences.
        context: Tokens that preceding blocks are taken from instead, int64 (B, N); None for the sequences themselves.
    """
    params: EvaluateParams = stage.params
    estimator = BoundEstimator(
        params.bound_over, params.bound_draw, params.bound_draws, params.bound_repeats, params.block_size
    )
    generator = torch.Generator(stage.device).manual_seed(derive_seed(stage.seed, _DRAWS))
    values, variance = [], 0.0
    for first in range(0, len(examples.tokens), _ROWS):
        rows = slice(first, first + _ROWS)
        prompt, tokens = (part[rows].to(stage.device) for part in (examples.prompt, examples.tokens))
        before = None if context is None else context[rows].to(stage.device)
        if params.network == "causal":
            values.append(_causal(network, tokens, params.block, before))
            continue
        if params.network == "bidirectional":
            cost = _bidirectional(network, prompt, tokens)
        else:
            cost = block_nats(network, prompt, tokens, params.block, before)
        bound = estimator.estimate(cost, tokens, task.noise, LinearSchedule(), generator)
        values.append(bound.nats.cpu() / params.length)
        variance += float(bound.variance.sum())
    total = examples.tokens.numel()
    return Nats(torch.cat(values), variance / total**2)


def _bidirectional(network: Any, prompt: Tensor, tokens: Tensor):
    def cost(noisy: Tensor, masked: Tensor, times: Tensor) -> Tensor:
        logits = networks.parallel_logits(network, prompt, noisy).float()
        return F.cross_entropy(logits.transpose(1, 2), tokens, reduction="none")

    return cost


@torch.no_grad()
def _causal(network: Any, tokens: Tensor, block: int, context: Tensor | None) -> Tensor:
    """Return the exact -ln p per token; with a context, block by block behind that context's preceding blocks."""
    if context is None:
        log_p = network.along(tokens[:, :-1])
        return -log_p.gather(-1, tokens[..., None])[..., 0].mean(1).cpu()
    total = torch.zeros(len(tokens), dtype=torch.float64, device=tokens.device)
    for first in range(0, tokens.shape[1], block):
        own = slice(first, first + block)
        mixed = torch.cat([context[:, :first], tokens[:, own]], 1)
        log_p = network.along(mixed[:, :-1])[:, own]
        total -= log_p.gather(-1, tokens[:, own, None])[..., 0].sum(1)
    return (total / tokens.shape[1]).cpu()
