"""How an arm's network writes: blocks behind a cache, all tokens at once, or one after the other.

Letters: B sequences, P tokens of the prompt, N tokens that are written, S tokens of a block, T denoising steps of a
block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from components.diffusion.block import sample_blocks, with_prompt
from components.diffusion.samplers import categorical, sample_committing
from components.nn.transformer import KeyValueCache
from flows.studies.discrete_diffusion.e2d2.params import EvaluateParams
from flows.studies.discrete_diffusion.e2d2.tasks import Task


@dataclass(frozen=True)
class Setting:
    """In how many steps a block is written.

    Attributes:
        steps: T, at most.
        threshold: Probability above which tokens are written at once; None for an equal share in each step.
        one_by_one: Whether every step writes one token.
    """

    steps: int
    threshold: float | None
    one_by_one: bool

    @property
    def at(self) -> dict[str, float]:
        """Condition of the metrics."""
        return {"steps": self.steps} if self.threshold is None else {"threshold": self.threshold}

    @property
    def name(self) -> str:
        """The condition in words."""
        return f"{self.steps} steps" if self.threshold is None else f"above {self.threshold:g}"


@dataclass(frozen=True)
class Written:
    """What was written, int64 (B, N) on the CPU, and in how many calls (see `components.diffusion.block`)."""

    tokens: Tensor
    evaluations: Tensor
    readings: int
    denoisings: int


def settings_of(params: EvaluateParams) -> list[Setting]:
    """Return the settings at which an arm writes; T = S, one token a step, is always among them."""
    block = params.block
    if params.network == "causal":
        return [Setting(block, None, True)]
    steps = sorted({step for step in params.steps_per_block if step < block} | {block})
    by_steps = [Setting(step, None, step == block) for step in steps]
    return by_steps + [Setting(block, threshold, False) for threshold in params.thresholds]


@torch.no_grad()
def write(
    params: EvaluateParams,
    task: Task,
    network: Any,
    prompt: Tensor,
    setting: Setting,
    temperature: float,
    generator: torch.Generator,
) -> Written:
    """Write N tokens behind each prompt (B, P)."""
    if params.network == "causal":
        return _continued(network, len(prompt), params.length, temperature, generator)
    if params.network == "bidirectional":
        return _at_once(params, task, network, prompt, setting, temperature, generator)
    blocks = params.length // params.block
    drawn = sample_blocks(
        network, prompt, blocks, params.block, task.noise, setting.steps, generator,
        threshold=setting.threshold, temperature=temperature,
    )  # fmt: skip
    return Written(drawn.tokens.cpu(), drawn.evaluations.cpu(), drawn.readings, drawn.denoisings)


def _at_once(
    params: EvaluateParams,
    task: Task,
    network: Any,
    prompt: Tensor,
    setting: Setting,
    temperature: float,
    generator: torch.Generator,
) -> Written:
    """All tokens in as many steps as blocks would take together, without a cache."""

    def denoiser(tokens: Tensor, times: Tensor, rows: Tensor, wanted: Tensor) -> Tensor:
        hidden = network.parallel(with_prompt(prompt[rows], tokens))[:, prompt.shape[1] :]
        return network.logits(hidden.flatten(0, 1)[wanted])

    blank = torch.full((len(prompt), params.length), task.mask, device=prompt.device)
    steps = setting.steps * params.length // params.block
    drawn = sample_committing(
        denoiser, blank, torch.ones_like(blank, dtype=torch.bool), task.noise, steps, generator,
        threshold=setting.threshold, temperature=temperature,
    )  # fmt: skip
    return Written(drawn.tokens.cpu(), drawn.calls.cpu(), 0, int(drawn.calls.max()))


def _continued(network: Any, count: int, length: int, temperature: float, generator: torch.Generator) -> Written:
    """One token after the other behind the start, with cached keys."""
    cache = KeyValueCache(length)
    token = torch.full((count, 1), network.start_token, device=network.device)
    written = []
    for _ in range(length):
        log_p = network(token, cache)[:, 0].float().log_softmax(-1)
        if temperature == 0:
            token = log_p.argmax(-1, keepdim=True)
        else:
            uniform = torch.rand(count, generator=generator, device=generator.device).to(log_p.device)
            token = categorical(log_p / temperature, uniform)[:, None]
        written.append(token)
    return Written(torch.cat(written, 1).cpu(), torch.full((count,), length), 0, length)
