"""What a learned prior makes of an arm's tokens: bits of an image under a causal model, beside the unigram's.

Tokens of different arms carry different amounts, so it is bits per image that are compared, together with distortion.

Letters: `B` images, `P` cells of an image, `K` symbols of a cell.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.errors import TesseraError
from components.language.causal_lm import CausalLM, CausalLMConfig
from components.metrics.tables import MetricTable
from components.training.determinism import derive_seed
from components.training.loop import Optimisation, fit
from flows.studies.context import StageContext
from flows.studies.image_tokenizer.discrete_tokenization_survey import codes
from flows.studies.image_tokenizer.evaluate import BATCH, encode
from flows.studies.image_tokenizer.sources import training_images

_PRIOR = 6  # stream of the prior's weights and batches


class PriorError(TesseraError):
    """Tokens have too many values for a model of single tokens."""


def prior_metrics(stage: StageContext, table: MetricTable, codec: nn.Module, indices: Tensor) -> None:
    """Train a causal model and a unigram on tokens of training images; add the bits they give to test images.

    Args:
        stage: The evaluate stage.
        table: Where `prior_bits` and `unigram_bits` go, one value per image.
        codec: The trained codec.
        indices: Codes of the test images, (B, P) or (B, P, M).
    """
    params = stage.params
    images = training_images(stage)[: params.prior_images]
    learned, size = _tokens(codec, encode(codec, images, stage.device))
    test, _ = _tokens(codec, indices)
    frequencies = torch.bincount(learned.flatten(), minlength=size).double() + 0.5
    unigram = -(frequencies / frequencies.sum()).log2()[test].sum(1)
    table.add_items("unigram_bits", unigram.tolist(), unit="bits")
    table.add_items("prior_bits", _causal_bits(stage, learned, test, size).tolist(), unit="bits")


def _tokens(codec: nn.Module, indices: Tensor) -> tuple[Tensor, int]:
    """Return one token (B, P) per cell, all of its indices together, and the number of tokens there are."""
    joint = codes.joint_symbols(*codes.index_columns(codec.quantizer, indices))
    if joint is None:
        raise PriorError(f"a cell has {list(codec.codebook_sizes)} codes; a prior of single tokens takes at most 4096.")
    return joint[0].view(indices.shape[:2]), joint[1]


def _causal_bits(stage: StageContext, learned: Tensor, test: Tensor, size: int) -> Tensor:
    """Return -log2 P(tokens) of each test image, float64 (B,), under a causal model of the learned tokens."""
    params, seed = stage.params, derive_seed(stage.seed, _PRIOR)
    torch.manual_seed(seed)
    config = CausalLMConfig(
        vocabulary_size=size,
        context=learned.shape[1],
        width=params.prior_width,
        layers=params.prior_layers,
        heads=params.prior_heads,
    )
    model = CausalLM(config)
    fit(
        model,
        lambda step, generator: learned[torch.randint(len(learned), (params.prior_batch,), generator=generator)],
        lambda model, tokens, _: (model.loss(tokens), {}),
        Optimisation(
            steps=params.prior_steps,
            learning_rate=params.prior_learning_rate,
            warmup_steps=params.warmup_steps,
            final_fraction=params.final_fraction,
            weight_decay=params.weight_decay,
        ),
        seed=seed,
        device=stage.device,
        checkpoint=stage.checkpoint / "prior",
        progress=stage.progress,
        units={"loss": "nats"},
    )
    return torch.cat([_bits(model, part.to(stage.device)).cpu() for part in test.split(BATCH)])


@torch.no_grad()
def _bits(model: CausalLM, tokens: Tensor) -> Tensor:
    logits = model(model.with_start(tokens[:, :-1])).float()
    nats = F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none")
    return nats.view(tokens.shape).double().sum(1) / math.log(2)
