"""The networks of the arms: how they are described, what they are trained with.

Letters: B sequences, P tokens of the prompt, N tokens that are predicted, V words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from components.bases import specification
from components.diffusion.block import block_loss, masked_nats, with_prompt
from components.diffusion.noise import block_times, mask_blocks
from flows.studies.discrete_diffusion.e2d2.params import BLOCK_NETWORKS, CAUSAL_NETWORK, TrainParams
from flows.studies.discrete_diffusion.e2d2.tasks import Task

Loss = Callable[[nn.Module, tuple[Tensor, Tensor], torch.Generator], tuple[Tensor, dict[str, Tensor]]]


def describe(params: TrainParams, words: int, special: int = 2) -> dict[str, Any]:
    """Describe the network of an arm over V words, for `components.bases.construct`."""
    context = params.prompt + params.length
    style = {"norm": params.norm, "activation": params.activation, "bias": params.bias}
    if params.network == "causal":
        return specification(
            CAUSAL_NETWORK,
            vocabulary_size=words,
            context=context,
            width=params.width,
            layers=params.encoder_layers,
            heads=params.heads,
            mlp_ratio=params.feed_forward / params.width,
            tied=params.tied_output,
            positions="rotary",
            **style,
        )
    layers: dict[str, int] = {"layers": params.encoder_layers}
    if params.network == "encoder_decoder":
        layers = {"encoder_layers": params.encoder_layers, "decoder_layers": params.decoder_layers}
    elif params.network == "shared_keys":
        layers["decoder_layers"] = params.decoder_layers
    return specification(
        BLOCK_NETWORKS,
        words=words,
        special=special,
        context=context,
        width=params.width,
        heads=params.heads,
        feed_forward=params.feed_forward,
        tied_output=params.tied_output,
        **layers,
        **style,
    )


def parallel_logits(network: Any, prompt: Tensor, noisy: Tensor) -> Tensor:
    """Return logits (B, N, V) of noisy tokens that all see each other and the prompt (B, P)."""
    return network.logits(network.parallel(with_prompt(prompt, noisy))[:, prompt.shape[1] :])


def loss_of(params: TrainParams, task: Task) -> Loss:
    """Return the training loss of an arm, in nats per predicted token."""

    def causal(network, batch, generator):
        return network.loss(batch[1]), {}

    def bidirectional(network, batch, generator):
        prompt, tokens = batch
        length = tokens.shape[1]
        times = block_times(*tokens.shape, length, generator, tokens.device)
        noisy = mask_blocks(tokens, times, task.noise, length, generator)
        return masked_nats(parallel_logits(network, prompt, noisy), tokens, noisy, task.noise), {}

    def blocks(network, batch, generator):
        return block_loss(network, *batch, params.block, task.noise, generator), {}

    return {"causal": causal, "bidirectional": bidirectional}.get(params.network, blocks)
