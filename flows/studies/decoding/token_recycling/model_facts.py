"""Facts about the language models themselves: held-out nats beside a bigram's, and the time of a forward pass."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable

import polars as pl
import torch
from torch import Tensor

from components.data import corpora
from components.language.causal_lm import CausalLM
from components.language.corpus_windows import CorpusWindows, encode_documents
from components.language.count_models import BigramCounts
from components.language.pretrained import LanguageModel
from components.language.speculative.tree import recycling_tree
from components.metrics.tables import MetricTable
from components.nn.transformer import KeyValueCache
from components.tokenizers.text.byte_level import to_symbols
from flows.studies.context import StageContext
from flows.studies.decoding.token_recycling import prompts
from flows.studies.decoding.token_recycling.train import SETS

_HELD_OUT_WINDOWS, _BATCH = 200, 20
TIMED_SIZES = (1, 9, 25, 49, 81)
_TIMED_PAST, _TIMED_ROUNDS = 96, 15


def bigram(stage: StageContext, model: str, language: LanguageModel) -> BigramCounts:
    """Count the training text of a language model in its own tokens."""
    texts = map(to_symbols, corpora.training_documents(prompts.data(stage, model)))
    tokens = encode_documents(texts, language.tokenizer, language.specials)
    return BigramCounts(tokens, language.model.vocabulary_size)


@torch.no_grad()
def measure(stage: StageContext, model: str, language: LanguageModel, table: MetricTable) -> None:
    """Add held-out nats of network and bigram, over the same tokens, and what the choice of prompts found."""
    network = language.model
    texts = [to_symbols(text) for text in corpora.documents(prompts.data(stage, model), "test")]
    held_out = CorpusWindows(texts, language.tokenizer, language.specials, network.config.context)
    windows = held_out.windows(held_out.disjoint()[:_HELD_OUT_WINDOWS])
    nats = torch.cat([_nats(network, part.to(stage.device)).cpu() for part in windows.split(_BATCH)])
    nats = nats[:, 1:]  # a bigram cannot predict the first token
    counted = bigram(stage, model, language).nats(windows)
    for name, values in (("network", nats), ("bigram", counted)):
        where = {"base": model, "model": name}
        table.add_items("held_out_nats", values.mean(1), unit="nats/token", at=where, normaliser="tokens")
    looked_at, qualified, coupled = (
        pl.read_parquet(stage.inputs["train"] / SETS)
        .filter(pl.col("model") == model)
        .select("looked_at", "qualified", "coupled")
        .row(0)
    )
    at = {"base": model}
    table.add("qualifying_share", qualified / looked_at, unit="share", at=at, samples=looked_at)
    table.add("coupled", float(coupled), unit="", at=at, samples=1)


def _nats(network: CausalLM, windows: Tensor) -> Tensor:
    return -network.along(windows[:, :-1]).gather(-1, windows[..., None])[..., 0]


@torch.no_grad()
def forward_times(language: LanguageModel, sizes: Iterable[int]) -> dict[int, float]:
    """Time one forward pass over trees of several sizes behind some cached tokens: median seconds by nodes."""
    network, tree = language.model, recycling_tree(language.model.device)
    past = min(_TIMED_PAST, network.config.context - tree.depth - 1)
    cache = KeyValueCache(past + tree.nodes)
    network(network.with_start(torch.zeros(1, past - 1, dtype=torch.int64, device=network.device)), cache)
    times = {}
    for size in sizes:
        part = tree.first(size - 1)
        tokens = torch.arange(size, device=network.device)[None] % network.vocabulary_size
        seconds = []
        for _ in range(_TIMED_ROUNDS):
            began = time.perf_counter()
            network(tokens, cache, places=part.depths + past, mask=part.mask(past)).sum().item()
            seconds.append(time.perf_counter() - began)
            cache.truncate(past)
        times[size] = statistics.median(seconds)
    return times
