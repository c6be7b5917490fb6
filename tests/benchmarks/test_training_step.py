"""What the loop costs: steps per second of `fit` against the same training written out in bare PyTorch.

The bare loop does the arithmetic only (batch, loss, backward, clip, AdamW, schedule). `fit` adds a reseeding in every
step, a check for non-finite values and the curves. Both run in turns, so that a slow moment of the machine hits both.
"""

from __future__ import annotations

import statistics
import time

import pytest
import torch
from torch import nn

from components.quantizers.vq import VectorQuantizer
from components.tokenizers.image.one_d import OneDTokenizer
from components.training import determinism
from components.training.loop import Optimisation, fit

BATCH, STEPS, ROUNDS, BAR = 16, 20, 20, 0.90
OPTIMISATION = Optimisation(steps=STEPS, learning_rate=1e-3, warmup_steps=10)


def build() -> OneDTokenizer:
    # 16 patches and 32 latents: 48 tokens in the encoder, as many in the decoder when none is dropped.
    determinism.reset(0)
    return OneDTokenizer(
        quantizer=VectorQuantizer(256, 16), image_side=32, patch_size=8, tokens=32, width=64, layers=3, heads=4,
        drop="none",
    )  # fmt: skip


def loss(model: nn.Module, images: torch.Tensor, generator: torch.Generator):
    result = model(images)
    error = (result.images - images).square().mean()
    return error + result.codes.loss, {"squared_error": error, "quantizer_loss": result.codes.loss}


@pytest.mark.benchmark_bar
def test_a_step_of_fit_keeps_nine_tenths_of_the_speed_of_a_bare_loop(benchmark):
    own, bare = build(), build()
    bare.train()
    images = torch.rand(512, 3, 32, 32)
    bare_seconds, own_seconds = [], []

    def draw(step: int, generator: torch.Generator) -> torch.Tensor:
        return images[torch.randint(len(images), (BATCH,), generator=generator)]

    def run_bare() -> None:
        start = time.perf_counter()
        optimiser = torch.optim.AdamW(bare.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
        generator = torch.Generator().manual_seed(0)
        for step in range(STEPS):
            for group in optimiser.param_groups:
                group["lr"] = OPTIMISATION.learning_rate_at(step)
            value, _ = loss(bare, draw(step, generator), generator)
            optimiser.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(bare.parameters(), 1.0)
            optimiser.step()
        bare_seconds.append(time.perf_counter() - start)

    def run_own() -> None:
        start = time.perf_counter()
        fit(own, draw, loss, OPTIMISATION, seed=0)
        own_seconds.append(time.perf_counter() - start)

    benchmark.pedantic(run_own, setup=run_bare, rounds=ROUNDS, warmup_rounds=1)
    pairs = zip(bare_seconds[1:], own_seconds[1:], strict=True)
    ratio = statistics.median(bare / own for bare, own in pairs)
    benchmark.extra_info.update(
        relative_throughput=round(ratio, 3),
        bare_steps_per_second=round(STEPS / statistics.median(bare_seconds), 1),
        fit_steps_per_second=round(STEPS / statistics.median(own_seconds), 1),
        machine=determinism.machine_class(),
    )
    print(benchmark.extra_info)
    assert ratio >= BAR
