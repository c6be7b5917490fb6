"""The formulas of block diffusion's costs against torch's counter and against layers counted as they run."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from components.diffusion.block import block_masks, sample_blocks
from components.diffusion.block_costs import BlockCosts, UnknownNetwork
from components.diffusion.noise import AbsorbingNoise
from components.language import causal_lm
from components.nn.encoder_decoder_block import build
from components.nn.transformer import Block

WORDS, WIDTH, HIDDEN, PROMPT, LENGTH, BLOCK = 11, 16, 40, 3, 12, 4
NOISE = AbsorbingNoise(WORDS + 2, WORDS)
SIZES = {"words": WORDS, "special": 2, "context": PROMPT + LENGTH, "width": WIDTH, "heads": 2, "feed_forward": HIDDEN}
LAYERS = {
    "encoder_decoder": {"encoder_layers": 3, "decoder_layers": 2},
    "shared_keys": {"layers": 4, "decoder_layers": 2},
    "decoder_only": {"layers": 3},
}


def network(kind: str, activation: str = "gelu"):
    torch.manual_seed(0)
    return build(**SIZES, **LAYERS[kind], activation=activation)


def costs(kind: str, gated: bool = False) -> BlockCosts:
    layers = LAYERS.get(kind, {"layers": 3})
    reading = layers.get("encoder_layers", layers.get("layers"))
    return BlockCosts(
        kind, reading, layers.get("decoder_layers", reading), WIDTH, HIDDEN, gated, WORDS, PROMPT, LENGTH, BLOCK
    )


def counted(compute) -> int:
    # The fused kernel of the CPU is not counted; the plain one is made of products.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        compute()
    return counter.get_total_flops()


@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
@pytest.mark.parametrize("kind", LAYERS)
def test_training_costs_what_torch_counts(kind, activation):
    model = network(kind, activation)
    clean, noisy = torch.zeros(2, PROMPT + LENGTH, dtype=torch.int64), torch.zeros(2, LENGTH, dtype=torch.int64)
    masks = block_masks(PROMPT, LENGTH, BLOCK)
    own = costs(kind, activation == "swiglu")
    with torch.no_grad():
        assert counted(lambda: model(clean, noisy, masks)) == 2 * own.forward()
    assert counted(lambda: model(clean, noisy, masks).sum().backward()) == 2 * own.training()


def test_training_of_the_networks_without_blocks_costs_what_torch_counts():
    model, tokens = network("decoder_only"), torch.zeros(1, PROMPT + LENGTH, dtype=torch.int64)
    bidirectional = counted(lambda: model.logits(model.parallel(tokens)[:, PROMPT:]).sum().backward())
    assert bidirectional == costs("bidirectional").training()
    causal = causal_lm.build(
        vocabulary_size=WORDS, context=LENGTH, width=WIDTH, layers=3, heads=2, mlp_ratio=HIDDEN / WIDTH,
        positions="rotary",
    )  # fmt: skip
    assert counted(lambda: causal.loss(tokens[:, :LENGTH]).backward()) == costs("causal").training()


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize("kind", LAYERS)
def test_sampling_costs_what_torch_counts_and_passes_the_layers_of_the_formula(kind, steps):
    model, prompt = network(kind).eval(), torch.zeros(2, PROMPT, dtype=torch.int64)
    passed = []
    for module in model.modules():
        if isinstance(module, Block):
            module.register_forward_hook(lambda module, inputs, output: passed.append(inputs[0].shape[1]))
    drawn = []
    generator = torch.Generator().manual_seed(0)
    flops = counted(lambda: drawn.append(sample_blocks(model, prompt, LENGTH // BLOCK, BLOCK, NOISE, steps, generator)))
    assert flops == 2 * costs(kind).sampling(steps, drawn[0].positions // 2)
    assert sum(passed) == costs(kind).sampling_token_layers(steps)


def test_cached_greedy_continuation_costs_what_torch_counts():
    from components.nn.transformer import KeyValueCache

    causal = causal_lm.build(
        vocabulary_size=WORDS, context=LENGTH, width=WIDTH, layers=3, heads=2, mlp_ratio=HIDDEN / WIDTH,
        positions="rotary",
    )  # fmt: skip

    def write():
        cache, token = KeyValueCache(LENGTH), torch.full((1, 1), causal.start_token)
        for _ in range(LENGTH):
            token = causal(token, cache).argmax(-1)

    with torch.no_grad():
        assert counted(write) == costs("causal").sampling(1, LENGTH)


def test_per_token_layers_are_those_of_the_specification():
    """At S = T = 8, per token: 22 for six and two layers, 18 for two and 27 for three of one stack."""
    for kind, layers, expected in (
        ("encoder_decoder", (6, 2), 22),
        ("decoder_only", (2, 2), 18),
        ("decoder_only", (3, 3), 27),
    ):
        own = BlockCosts(kind, *layers, 96, 256, False, 65, 0, 64, 8)
        assert own.sampling_token_layers(8) == 64 * expected
    deep, split = (
        BlockCosts("decoder_only", 8, 8, 96, 256, False, 65, 0, 64, 8),
        BlockCosts("encoder_decoder", 6, 2, 96, 256, False, 65, 0, 64, 8),
    )
    assert deep.training_token_layers() == 2 * split.training_token_layers() == 2 * 8 * 64


def test_an_unknown_network_is_named():
    with pytest.raises(UnknownNetwork, match="'encoder'"):
        BlockCosts("encoder", 1, 1, 4, 4, False, 4, 1, 4, 2)
