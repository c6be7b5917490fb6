"""The time that greedy decoding takes with and without merges, side by side in one process.

Networks are not trained: a step costs what it costs. An utterance is given as many steps as its reference has tokens.
"""

from __future__ import annotations

import statistics
import time

import torch
from torch import Tensor, nn

from components.bases import construct
from components.metrics.tables import MetricTable
from components.nn.transformer import KeyValueCache
from components.training.determinism import derive_seed
from flows.studies.context import StageContext
from flows.studies.speech_task.dau_tokenization.sequences import description
from flows.studies.speech_task.dau_tokenization.symbols import characters_of, learned_tokens, narrated


@torch.no_grad()
def evaluate(stage: StageContext) -> None:
    """Decode test utterances one by one over base units and over merged ones, in turn; write medians."""
    params = stage.params
    corpus, table = narrated(stage), MetricTable()
    kept = range(len(corpus.test))[: params.timed_utterances]
    sources = [torch.tensor([characters_of(corpus.test_texts[row])], device=stage.device) for row in kept]
    models, steps = {}, {}
    for name, vocabulary in (("base", 0), ("bpe", params.vocabulary)):
        tokens = learned_tokens(
            params.model_copy(update={"vocabulary": vocabulary}), corpus.train, corpus.size, stage.seed
        )
        torch.manual_seed(derive_seed(stage.seed))
        models[name] = construct(description(params, tokens.vocabulary_size)).to(stage.device).eval()
        steps[name] = [len(tokens.encode(corpus.test[row])) + 1 for row in kept]
    times: dict[str, list[float]] = {name: [] for name in models}
    for run in range(params.timed_runs + 1):
        for name, model in models.items():
            began = time.perf_counter()
            for source, count in zip(sources, steps[name], strict=True):
                greedy_steps(model, source, count)
            if run:  # the first one warms up
                times[name].append(time.perf_counter() - began)
    for name, seconds in times.items():
        at = {"tokens": name}
        table.add("decoding_seconds", statistics.median(seconds), unit="s", at=at, samples=len(sources))
    table.write(stage.output)


def greedy_steps(model: nn.Module, source: Tensor, count: int) -> list[int]:
    """Return the likeliest token of each of `count` cached steps for one source (1, S), whatever ends it."""
    memory, present = model.memory(source, torch.tensor([source.shape[1]], device=source.device))
    cache, token, written = KeyValueCache(count), torch.tensor([[model.start]], device=source.device), []
    for _ in range(count):
        token = model.logits(token, memory, present, cache)[:, -1].argmax(-1, keepdim=True)
        written.append(int(token))
    return written
