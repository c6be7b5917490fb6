"""Whether fillings of a text small enough to enumerate have the joint law of the network that filled them.

Letters: B fillings, C completions of the text, N tokens, V letters.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch
from scipy.stats import chisquare
from torch import Tensor

from components.language.any_order import Order, joint_nats, lattice_order
from components.language.context_ngram import ContextBigram
from components.language.speculative.any_subset import fill_in_parallel, fill_speculatively
from components.metrics.tables import MetricTable
from components.nn.two_stream_transformer import TwoStreamTransformer
from components.training.determinism import derive_seed
from flows.studies.context import StageContext
from flows.studies.decoding.assd import texts
from flows.studies.decoding.assd.density import gaps
from flows.studies.decoding.assd.params import EvaluateParams

_BATCH = 4096
_TEXT, _DRAWS = 8, 9  # random streams of this stage
_RARE, _LEVEL = 5, 0.01


def measure(stage: StageContext, model: TwoStreamTransformer, table: MetricTable) -> None:
    """Add how far fillings by every decoder are from the enumerated law of one text with a single token given."""
    params: EvaluateParams = stage.params
    generator = torch.Generator().manual_seed(derive_seed(stage.seed, _TEXT))
    text = texts.training(stage)[0].draw(1, generator)
    order = lattice_order(gaps(1, params.context, 1 - 1 / params.context, generator))
    every = _completions(text, order, model.vocabulary_size)
    joint = torch.cat(
        [
            -joint_nats(model, part.to(stage.device), _repeated(order, len(part)).to(stage.device)).double().sum(1)
            for part in every.split(_BATCH)
        ]
    )
    joint = joint.detach().exp().cpu().numpy()
    table.add("enumerated_mass", joint.sum(), unit="probability", samples=len(joint))
    joint /= joint.sum()
    apart = 0.5 * np.abs(joint - _product_of_marginals(joint, order, model.vocabulary_size)).sum()
    table.add("dependence", apart, unit="probability", samples=len(joint))
    k, size = params.speculative_k, model.vocabulary_size
    decoders = {
        "sequential": lambda *given: fill_in_parallel(model, *given[:2], 1, given[2]),
        "speculative": lambda *given: fill_speculatively(model, *given[:2], k, given[2]),
        "context": lambda *given: fill_speculatively(model, *given[:2], k, given[2], drafter=ContextBigram(size)),
        "parallel": lambda *given: fill_in_parallel(model, *given[:2], k, given[2]),
    }
    for number, (name, fill) in enumerate(decoders.items()):
        stage.progress(number, len(decoders))
        draws = torch.Generator(stage.device).manual_seed(derive_seed(stage.seed, _DRAWS, number))
        found = np.zeros(len(joint), np.int64)
        for rows in torch.arange(params.samples).split(_BATCH):
            many = text.expand(len(rows), -1).to(stage.device), _repeated(order, len(rows)).to(stage.device)
            filled = fill(*many, draws).tokens.cpu()
            found += np.bincount(_place(filled, order, size).numpy(), minlength=len(joint))
        _compare(table, found, joint, {"decoder": name})


def _repeated(order: Order, count: int) -> Order:
    return Order(order.ranks.expand(count, -1), order.prompt.expand(count))


def _completions(text: Tensor, order: Order, vocabulary_size: int) -> Tensor:
    """Return all texts with the given tokens, the last masked one changing fastest, (C, N)."""
    masked = order.masked[0]
    every = torch.tensor(list(itertools.product(range(vocabulary_size), repeat=int(masked.sum()))))
    whole = text.expand(len(every), -1).clone()
    whole[:, masked] = every
    return whole


def _place(filled: Tensor, order: Order, vocabulary_size: int) -> Tensor:
    """Return which completion each filling is, (B, N) to (B,)."""
    tokens = filled[:, order.masked[0]]
    return tokens @ vocabulary_size ** torch.arange(tokens.shape[1] - 1, -1, -1)


def _product_of_marginals(joint: np.ndarray, order: Order, vocabulary_size: int) -> np.ndarray:
    axes = int(order.masked.sum())
    cube = joint.reshape((vocabulary_size,) * axes)
    product = np.ones(1)
    for axis in range(axes):
        marginal = cube.sum(tuple(other for other in range(axes) if other != axis))
        product = np.multiply.outer(product, marginal).ravel()
    return product


def _compare(table: MetricTable, found: np.ndarray, joint: np.ndarray, at: dict) -> None:
    samples = int(found.sum())
    apart = 0.5 * np.abs(found / samples - joint).sum()
    table.add("total_variation", apart, unit="probability", at=at, samples=samples)
    expected = joint * samples
    rare = expected < _RARE
    if rare.any():
        found = np.append(found[~rare], found[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
    p = float(chisquare(found, expected).pvalue) if len(expected) > 1 else 1.0
    table.add("fit_p", p, unit="probability", at=at, samples=samples)
    table.add("fit_rejected", float(p <= _LEVEL), unit="", at=at, samples=samples)
