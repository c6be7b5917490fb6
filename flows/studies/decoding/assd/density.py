"""Joint density of masked tokens of held-out windows, beside counts of the training text.

Letters: B windows, N tokens of a window.
"""

from __future__ import annotations

import torch
from torch import Tensor

from components.language.any_order import (
    Order,
    hide,
    joint_nats,
    lattice_order,
    random_order,
    sequential_nats,
)
from components.language.count_models import BigramCounts, UnigramCounts
from components.metrics.tables import MetricTable
from components.nn.two_stream_transformer import TwoStreamTransformer
from components.training.determinism import derive_seed
from flows.studies.context import StageContext
from flows.studies.decoding.assd import texts
from flows.studies.decoding.assd.params import EvaluateParams

_BATCH = 64
_GAPS = 5  # random stream of what is masked, the same for all seeds and arms


def measure(stage: StageContext, model: TwoStreamTransformer, table: MetricTable) -> None:
    """Add the density of the network in both orders, and that of counts, at every share masked."""
    params: EvaluateParams = stage.params
    language = texts.judge(stage)
    windows = texts.disjoint(texts.held_out(stage, language), params.density_windows)
    stream = texts.training(stage)[0].tokens
    counts = BigramCounts(stream, model.vocabulary_size), UnigramCounts(stream, model.vocabulary_size)
    # A network whose masked tokens are blind to each other has a joint law by decoding one after the other only.
    nats_of = joint_nats if params.objective == "joint" else sequential_nats
    for done, share in enumerate(params.density_shares):
        stage.progress(done, len(params.density_shares))
        visible = gaps(len(windows), params.context, share, torch.Generator().manual_seed(derive_seed(_GAPS, done)))
        generator = torch.Generator().manual_seed(derive_seed(_GAPS, done, 1))
        for name, order in (("lattice", lattice_order(visible)), ("random", random_order(visible, generator))):
            found = _nats(nats_of, model, windows, order, stage.device)
            _add(table, found, order, {"mask": share, "order": name, "model": "network"})
        order = lattice_order(visible)
        unigram = counts[1].nats(windows)
        bigram = torch.cat([unigram[:, :1], counts[0].nats(windows)], 1)
        for name, nats in (("bigram", bigram), ("unigram", unigram)):
            _add(table, nats * order.masked, order, {"mask": share, "model": name})


def gaps(count: int, length: int, share: float, generator: torch.Generator) -> Tensor:
    """Mask a share of the tokens of each window, at least one and not all, and return what is visible, (B, N)."""
    masked = min(max(round(share * length), 1), length - 1)
    return hide(torch.full((count,), masked), length, generator)


@torch.no_grad()
def _nats(nats_of, model: TwoStreamTransformer, windows: Tensor, order: Order, device: str) -> Tensor:
    rows = torch.arange(len(windows)).split(_BATCH)
    return torch.cat([nats_of(model, windows[part].to(device), order[part].to(device)).cpu() for part in rows])


def _add(table: MetricTable, nats: Tensor, order: Order, at: dict) -> None:
    values = nats.double().sum(1) / order.masked.sum(1)
    visible = float((~order.masked).double().mean())
    table.add_items(
        "joint_nll", values.tolist(), unit="nats/token", at=at, normaliser="masked tokens", masked_share=visible
    )
