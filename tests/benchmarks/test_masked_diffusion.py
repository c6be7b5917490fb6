"""Masked diffusion, 6 layers x 384 x 256 tokens: a training step and a sample in 64 steps, beside MDLM's design.

The peer is rebuilt here at equal size as Sahoo et al. 2024 publish it: a diffusion transformer with adaptive norms,
logits of every position, the "subs" parameterization over the whole vocabulary, and an ancestral sampler that draws
every position in every step. Ours computes logits where they decide something: at masked positions in training, at
positions whose coin fell in sampling. Both run in turns on one thread.
"""

from __future__ import annotations

import statistics
import time

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.diffusion.noise import AbsorbingNoise, corrupt
from components.diffusion.samplers import sample_ancestral
from components.diffusion.schedules import Grid, LinearSchedule
from components.nn.rotary import rotary_angles, rotate
from components.nn.transformer import Transformer, TransformerConfig
from components.training.determinism import machine_class, reset

pytestmark = pytest.mark.benchmark_bar

# The vocabulary of the One Billion Words experiments, and the mask.
VOCABULARY, LENGTH, WIDTH, LAYERS, HEADS, STEPS = 30_522, 256, 384, 6, 6, 64
MASK = VOCABULARY
BATCH, ROUNDS, BAR = 2, 3, 1.2


class Own(nn.Module):
    """The house transformer; logits of chosen positions only."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY + 1, WIDTH)
        self.transformer = Transformer(TransformerConfig(WIDTH, LAYERS, HEADS))
        self.output = nn.Linear(WIDTH, VOCABULARY)
        self.register_buffer("angles", rotary_angles(torch.arange(LENGTH), WIDTH // HEADS))

    def forward(self, tokens: Tensor, wanted: Tensor) -> Tensor:
        hidden = self.transformer(self.embedding(tokens), angles=self.angles)
        return self.output(hidden.flatten(0, 1)[wanted])

    def loss(self, tokens: Tensor, generator: torch.Generator) -> Tensor:
        times = torch.rand(len(tokens), 1, generator=generator).clamp(min=1e-3)
        noisy = corrupt(tokens, 1 - times, AbsorbingNoise(VOCABULARY + 1, MASK), generator)
        wanted = (noisy == MASK).flatten().nonzero()[:, 0]
        nats = F.cross_entropy(self(noisy, wanted), tokens.flatten()[wanted], reduction="none")
        return (nats / times.expand_as(tokens).flatten()[wanted]).sum() / tokens.numel()

    @torch.no_grad()
    def sample(self, batch: int, generator: torch.Generator) -> Tensor:
        start = torch.full((batch, LENGTH), MASK)
        sampled = sample_ancestral(
            lambda tokens, times, rows, wanted: self(tokens, wanted), start, start == MASK,
            AbsorbingNoise(VOCABULARY + 1, MASK), Grid(LinearSchedule(), STEPS), STEPS, generator, temperature=1.0,
        )  # fmt: skip
        return sampled.tokens


class PeerBlock(nn.Module):
    """Adaptive norms with gates, rotary attention, GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH, bias=False) for _ in range(2))
        self.modulation = nn.Linear(128, 6 * WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(approximate="tanh"), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor, condition: Tensor, angles: Tensor) -> Tensor:
        shift, scale, gate, shift2, scale2, gate2 = self.modulation(condition)[:, None].chunk(6, dim=2)
        heads = self.qkv(self.norms[0](x) * (1 + scale) + shift).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(rotate(heads[0], angles), rotate(heads[1], angles), heads[2])
        x = x + gate * self.out(attended.transpose(1, 2).flatten(-2))
        return x + gate2 * self.mlp(self.norms[1](x) * (1 + scale2) + shift2)


class Peer(nn.Module):
    """MDLM's network, parameterization, loss and sampler."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY + 1, WIDTH)
        self.time = nn.Sequential(nn.Linear(256, 128), nn.SiLU(), nn.Linear(128, 128))
        self.blocks = nn.ModuleList(PeerBlock() for _ in range(LAYERS))
        self.norm, self.modulation = nn.LayerNorm(WIDTH, bias=False), nn.Linear(128, 2 * WIDTH)
        self.output = nn.Linear(WIDTH, VOCABULARY + 1)
        self.register_buffer("angles", rotary_angles(torch.arange(LENGTH), WIDTH // HEADS))

    def forward(self, tokens: Tensor) -> Tensor:
        # No time is given to the network: the condition is that of time zero.
        condition = F.silu(self.time(tokens.new_zeros(len(tokens), 256, dtype=torch.float32)))
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, condition, self.angles)
        shift, scale = self.modulation(condition)[:, None].chunk(2, dim=2)
        logits = self.output(self.norm(x) * (1 + scale) + shift)
        # Never the mask; what is clean is copied.
        logits[:, :, MASK] += -1e6
        logits = logits - torch.logsumexp(logits, dim=-1, keepdim=True)
        clean = tokens != MASK
        logits[clean] = -1e6
        logits[clean, tokens[clean]] = 0
        return logits

    def loss(self, tokens: Tensor, generator: torch.Generator) -> Tensor:
        times = torch.rand(len(tokens), 1, generator=generator).clamp(min=1e-3)
        noisy = torch.where(torch.rand(tokens.shape, generator=generator) < times, MASK, tokens)
        log_p = self(noisy).gather(-1, tokens[:, :, None])[:, :, 0]
        return -(log_p / times).mean()

    @torch.no_grad()
    def sample(self, batch: int, generator: torch.Generator) -> Tensor:
        x = torch.full((batch, LENGTH), MASK)
        times = torch.linspace(1, 0, STEPS + 1)
        for now, then in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
            q = self(x).exp() * (now - then)
            q[:, :, MASK] = then
            gumbel = 1e-10 - (torch.rand(q.shape, generator=generator) + 1e-10).log()
            drawn = (q / gumbel).argmax(-1)
            x = torch.where(x == MASK, drawn, x)
        return x


def in_turns(benchmark, own, peer, name: str, unit: str) -> None:
    seconds: dict[str, list[float]] = {"own": [], "peer": []}

    def round_() -> None:
        for which, run in (("own", own), ("peer", peer)):
            began = time.perf_counter()
            run()
            seconds[which].append(time.perf_counter() - began)

    benchmark.pedantic(round_, rounds=ROUNDS, warmup_rounds=1)
    ratio = statistics.median(p / o for o, p in zip(seconds["own"][1:], seconds["peer"][1:], strict=True))
    benchmark.extra_info.update(
        {f"own_{unit}": round(statistics.median(seconds["own"]), 3)},
        **{f"peer_{unit}": round(statistics.median(seconds["peer"]), 3)},
        speed_over_peer=round(ratio, 3),
        bar_ratio=BAR,
        machine=machine_class(),
    )
    print(name, benchmark.extra_info)
    assert ratio >= BAR, f"{name}: {ratio:.2f} times the peer's speed"


@pytest.fixture(scope="module")
def networks() -> tuple[Own, Peer]:
    reset(0)
    own, peer = Own(), Peer()
    sizes = [sum(parameter.numel() for parameter in network.parameters()) for network in (own, peer)]
    assert abs(sizes[0] / sizes[1] - 1) < 0.08
    return own, peer


@pytest.mark.timeout(900)
def test_a_training_step_is_faster_than_the_peers(benchmark, networks):
    tokens = torch.randint(VOCABULARY, (BATCH, LENGTH), generator=torch.Generator().manual_seed(0))

    def step(network: nn.Module):
        optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
        generator = torch.Generator().manual_seed(1)

        def run() -> None:
            network.loss(tokens, generator).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

        return run

    in_turns(benchmark, *(step(network.train()) for network in networks), "training step", "seconds_per_step")


@pytest.mark.timeout(1800)
def test_a_sample_in_64_steps_is_faster_than_the_peers(benchmark, networks):
    own, peer = (network.eval() for network in networks)
    generator = torch.Generator().manual_seed(0)
    for network in (own, peer):
        assert not bool((network.sample(1, generator) == MASK).any())
    in_turns(
        benchmark, lambda: own.sample(1, generator), lambda: peer.sample(1, generator), "sample", "seconds_per_sample"
    )
