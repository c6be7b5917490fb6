"""Recipe of the small causal language models over characters that judge what other models write."""

from __future__ import annotations

import torch
from torch import Tensor

from components.bases import save_base
from components.data import tables
from components.data.corpora import documents
from components.language.causal_lm import CausalLM
from components.language.count_models import BigramCounts, UnigramCounts
from components.language.pretrained import save_tokens
from components.language.stream_windows import StreamWindows
from components.metrics.tables import MetricTable
from components.tokenizers.text import bpe
from flows.studies.bases.causal_models import trained
from flows.studies.context import StageContext

_BATCH = 50
_WEIGHTS = 1  # random stream of this stage


def train(stage: StageContext) -> None:
    """Train a model on the training part of a text, measure it on all that is held out, write both and a card."""
    params = stage.params
    (directory,) = (path for name, path in stage.inputs.items() if name.startswith("data/"))
    training = "".join(documents(directory, "train"))
    held_out = "".join(
        text for split in tables.split_names(directory) if split != "train" for text in documents(directory, split)
    )
    # The alphabet of the whole text: a character that only the held-out part has still gets a token.
    alphabet = sorted(set(training) | set(held_out))
    tokenizer = bpe.train([], len(alphabet), alphabet="".join(alphabet))
    windows = StreamWindows(torch.tensor(tokenizer.encode(training)), params.context)
    model, description, curves = trained(stage, windows, len(alphabet), _WEIGHTS)
    table = MetricTable()
    test = StreamWindows(torch.tensor(tokenizer.encode(held_out)), params.context).disjoint()
    facts = _measure(model, windows.tokens, test[: params.held_out_windows], table)
    table.write(stage.output)
    curves.write(stage.output)
    save_tokens(stage.output, tokenizer, bpe.__name__, [])
    save_base(stage.output, model, description, _card(stage, model, facts, directory.name, len(windows.tokens)))


@torch.no_grad()
def _measure(model: CausalLM, training: Tensor, windows: Tensor, table: MetricTable) -> dict[str, float]:
    """Measure a model beside counts of its training characters, on all characters of windows but the first."""
    rows = [model.along(part[:, :-1]).cpu() for part in windows.split(_BATCH)]
    nats = -torch.cat(rows).gather(-1, windows[..., None])[:, 1:, 0]
    values = {
        "nats_per_token": nats,
        "bigram_nats_per_token": BigramCounts(training, model.vocabulary_size).nats(windows),
        "unigram_nats_per_token": UnigramCounts(training, model.vocabulary_size).nats(windows[:, 1:]),
    }
    for name, each in values.items():
        table.add_items(name, each.mean(1).tolist(), unit="nats/token", normaliser="tokens")
    facts = {name: float(each.mean()) for name, each in values.items()}
    margin = facts["bigram_nats_per_token"] - facts["nats_per_token"]
    table.add("below_bigram", margin, unit="nats/token", samples=len(windows))
    return {**facts, "below_bigram": margin, "windows": len(windows)}


def _card(stage: StageContext, model: CausalLM, facts: dict[str, float], data: str, characters: int) -> str:
    params = stage.params
    count = sum(parameter.numel() for parameter in model.parameters())
    seen = params.steps * params.batch * params.context
    return f"""# {stage.paper}

A causal transformer over {model.vocabulary_size} characters: {params.layers} layers, width {params.width}, {params.heads} heads, rotary
positions, tied embedding, context {params.context}, {count:,} parameters.

- Trained on: {data} ({characters:,} characters), {params.steps:,} steps of {params.batch} windows of {params.context} characters
  ({seen / 1e6:.1f} million, {seen / characters:.1f} passes) that begin anywhere, AdamW {params.learning_rate:g}, seed {stage.seed}.
- Held out ({facts["windows"]:,.0f} windows of what is not for training): {facts["nats_per_token"]:.3f} nats per character.
  Counts of the training characters: bigram {facts["bigram_nats_per_token"]:.3f}, unigram {facts["unigram_nats_per_token"]:.3f}; the
  model is {facts["below_bigram"]:.3f} nats below the bigram.
- Use: a judge of text that other models of the same characters write. It reads from left to right and had no part in
  their training, so its nats are no model's own measure of itself.
- Not for: writing text. Its nats say how likely a text looks to a small model, not how good it is.

```python
from pathlib import Path

from components.language.pretrained import load_language_model

judge = load_language_model(Path("bases/{stage.paper}"))
tokens = torch.tensor([judge.tokenizer.encode("Good sir, ")])
rows = judge.model.along(tokens)   # ln P(next character), (1, T + 1, {model.vocabulary_size})
```
"""  # noqa: E501
