"""Block diffusion: 256 tokens in blocks of 16, keys and values kept, beside reading everything again in every step.

The peer is the same network and sampler without a cache: for every denoising step the prompt and all finished blocks
are read, as a plain implementation of the definition does. Both write the same tokens. One thread.
"""

from __future__ import annotations

from collections.abc import Callable

import limits
import pytest
import torch
import turns
from torch import Tensor

from components.diffusion.block import BlockMasks, block_masks, sample_blocks
from components.diffusion.block_costs import BlockCosts
from components.diffusion.noise import AbsorbingNoise
from components.diffusion.samplers import sample_committing
from components.nn.encoder_decoder_block import TiedBlock

pytestmark = pytest.mark.benchmark_bar

WORDS, PROMPT, BLOCK, BLOCKS, STEPS, BATCH = 2048, 32, 16, 16, 8, 1
WIDTH, LAYERS, HEADS = 192, 4, 4
BAR = 2.0


@torch.no_grad()
def without_cache(network: TiedBlock, prompt: Tensor, noise: AbsorbingNoise) -> Tensor:
    """Write the blocks, reading all that is finished in every step."""
    done = prompt
    everywhere = torch.ones(len(prompt), BLOCK, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    reading = block_masks(PROMPT, BLOCK * BLOCKS, BLOCK).reading
    for _ in range(BLOCKS):
        length = done.shape[1]
        seen = torch.ones(BLOCK, length + BLOCK, dtype=torch.bool)
        masks = BlockMasks(length, BLOCK, reading[:length, :length], seen, seen)
        sampled = sample_committing(
            reading_again(network, done, masks), torch.full_like(everywhere, noise.mask_token_id, dtype=torch.int64),
            everywhere, noise, STEPS, generator,
        )  # fmt: skip
        done = torch.cat([done, sampled.tokens], 1)
    return done[:, prompt.shape[1] :]


def reading_again(network: TiedBlock, done: Tensor, masks: BlockMasks) -> Callable[..., Tensor]:
    def denoiser(tokens: Tensor, times: Tensor, rows: Tensor, wanted: Tensor) -> Tensor:
        logits = network.recall(tokens, network.remember(done[rows], masks), masks)
        return logits.flatten(0, 1)[wanted]

    return denoiser


def test_block_diffusion_with_a_cache_beside_reading_everything_again(one_thread, benchmark):
    torch.manual_seed(0)
    network = TiedBlock(
        words=WORDS, special=1, context=PROMPT + BLOCK * BLOCKS, width=WIDTH, heads=HEADS, feed_forward=4 * WIDTH,
        layers=LAYERS,
    ).eval()  # fmt: skip
    noise = AbsorbingNoise(WORDS + 1, WORDS)
    prompt = torch.randint(WORDS, (BATCH, PROMPT), generator=torch.Generator().manual_seed(1))
    written = {}

    def ours() -> None:
        generator = torch.Generator().manual_seed(0)
        written["ours"] = sample_blocks(network, prompt, BLOCKS, BLOCK, noise, STEPS, generator)

    def peer() -> None:
        written["peer"] = without_cache(network, prompt, noise)

    times = turns.in_turns(benchmark, {"ours": ours, "peer": peer}, rounds=3)
    assert torch.equal(written["ours"].tokens, written["peer"])
    tokens = BATCH * BLOCK * BLOCKS
    costs = BlockCosts("decoder_only", LAYERS, LAYERS, WIDTH, 4 * WIDTH, False, WORDS, PROMPT, BLOCK * BLOCKS, BLOCK)
    operations = BATCH * costs.sampling(STEPS, written["ours"].positions // BATCH)
    found = turns.facts(times["ours"], times["peer"], amount=tokens)
    benchmark.extra_info.update(found, limit=tokens * limits.products_per_second() / operations)
    print(benchmark.extra_info)
    assert found["ratio"] >= BAR
