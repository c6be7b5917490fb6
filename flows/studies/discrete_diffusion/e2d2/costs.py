"""What an arm's network costs: by formula, and by torch's count of one training step."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from components.diffusion.block_costs import BlockCosts
from components.metrics.tables import MetricTable
from flows.studies.discrete_diffusion.e2d2 import networks
from flows.studies.discrete_diffusion.e2d2.params import TrainParams
from flows.studies.discrete_diffusion.e2d2.tasks import Task

_ROWS = 2  # sequences of the step that torch counts


def costs_of(params: TrainParams, words: int) -> BlockCosts:
    """Return the formulas of an arm's network over so many words."""
    return BlockCosts(
        params.network,
        params.encoder_layers,
        params.decoder_layers,
        params.width,
        params.feed_forward,
        params.activation == "swiglu",
        words,
        params.prompt,
        params.length,
        params.block_size,
    )


def add_costs(table: MetricTable, params: TrainParams, task: Task, network: nn.Module) -> None:
    """Add costs in training and in sampling with one token a step, and how far the formula is from torch's count."""
    costs = costs_of(params, task.words)
    length, block = params.length, params.block_size
    positions = length if params.network == "causal" else length * (block + 1) // 2
    count = sum(parameter.numel() for parameter in network.parameters())
    table.add("parameters", count, unit="parameters", samples=1)
    table.add("training_flops", params.batch * costs.training(), unit="FLOPs/step", samples=1)
    deviation = abs(_ROWS * costs.training() / _counted(params, task, network) - 1)
    table.add("flops_deviation", deviation, unit="", samples=1)
    layers = costs.training_token_layers() / length
    table.add("training_token_layers", layers, unit="token-layers/token", samples=1, normaliser="tokens")
    layers = costs.sampling_token_layers(block) / length
    table.add("sampling_token_layers", layers, unit="token-layers/token", samples=1, normaliser="tokens")
    flops = costs.sampling(block, positions) / length
    table.add("sampling_flops", flops, unit="FLOPs/token", samples=1, normaliser="tokens")


def _counted(params: TrainParams, task: Task, network: nn.Module) -> int:
    device = next(network.parameters()).device
    batch = tuple(part.to(device) for part in task.draw(_ROWS, torch.Generator().manual_seed(0)))
    loss = networks.loss_of(params, task)
    # The fused attention of the CPU is not counted; the plain one is made of products.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        loss(network, batch, torch.Generator(device).manual_seed(0))[0].backward()
    network.zero_grad(set_to_none=True)
    return counter.get_total_flops()
