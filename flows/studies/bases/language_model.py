"""Recipe of the small causal language models that decoding, detection and tokenizer papers share."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.bases import save_base
from components.data.corpora import documents, training_documents
from components.language.causal_lm import CausalLM
from components.language.corpus_windows import Arrangement, CorpusWindows
from components.language.count_models import BigramCounts, UnigramCounts
from components.language.fill_in_middle import END, MIDDLE, PREFIX, SUFFIX
from components.language.generation import generate
from components.language.pretrained import save_tokens, special_ids
from components.metrics.repetition import LOOP_SHARE, distinct_ngrams
from components.metrics.tables import MetricTable
from components.tokenizers.text.bpe import WORD_PIECES
from components.tokenizers.text.byte_level import BYTES, SPACED_PIECES, byte_lengths, to_symbols
from components.training.determinism import derive_seed
from flows.studies.bases.causal_models import trained
from flows.studies.context import StageContext

_PIECES = {"spaced": SPACED_PIECES, "words": WORD_PIECES}
_HELD_OUT_WINDOWS = 1000
_BATCH = 20
_PROMPT, _CONTINUATION = 64, 64
_TOKENIZER_TEXTS, _SPANS, _WEIGHTS = 1, 2, 3  # random streams of this stage


def train(stage: StageContext) -> None:
    """Train tokenizer and model on the training documents, measure the held-out ones, write both and a card."""
    params = stage.params
    sources = [path for name, path in sorted(stage.inputs.items()) if name.startswith("data/")]
    corpus = [to_symbols(text) for path in sources for text in training_documents(path)]
    module = f"components.tokenizers.text.{params.tokenizer}"
    tokenizer = importlib.import_module(module).train(
        _sample(corpus, params.tokenizer_bytes, derive_seed(stage.seed, _TOKENIZER_TEXTS)),
        params.vocabulary_size,
        alphabet=BYTES,
        pieces=_PIECES[params.pieces],
    )
    fill = params.psm + params.spm > 0
    names = [END, PREFIX, SUFFIX, MIDDLE] if fill else [END]
    specials = special_ids(len(tokenizer.vocabulary), names)
    windows = CorpusWindows(
        corpus,
        tokenizer,
        specials,
        params.context,
        Arrangement(params.psm, params.spm, params.joint),
        np.random.default_rng(derive_seed(stage.seed, _SPANS)),
    )

    vocabulary_size = len(tokenizer.vocabulary) + len(specials)
    model, description, curves = trained(stage, windows, vocabulary_size, _WEIGHTS)

    held_out = [to_symbols(text) for path in sources for text in documents(path, "test")]
    test = CorpusWindows(held_out, tokenizer, specials, params.context)
    table = MetricTable()
    facts = _measure(model, tokenizer, windows.tokens, test, vocabulary_size, params.loop_prompts, table)
    table.write(stage.output)
    curves.write(stage.output)
    save_tokens(stage.output, tokenizer, module, names)
    save_base(stage.output, model, description, _card(stage, model, facts, sources))


def _sample(corpus: list[str], limit: int, seed: int) -> list[str]:
    """Draw documents without replacement until they have `limit` symbols; the last one is cut there."""
    drawn, length = [], 0
    for index in np.random.default_rng(seed).permutation(len(corpus)).tolist():
        if length >= limit:
            break
        drawn.append(corpus[index][: limit - length])
        length += len(drawn[-1])
    return drawn


@torch.no_grad()
def _measure(
    model: CausalLM,
    tokenizer: Any,
    training: Tensor,
    test: CorpusWindows,
    vocabulary_size: int,
    loop_prompts: int,
    table: MetricTable,
) -> dict[str, float]:
    """Measure a model on disjoint held-out windows, beside the counts of its training tokens, and add the metrics.

    Every model predicts the same tokens: all of a window but the first, which counts cannot see a predecessor of.
    """
    windows = test.windows(test.disjoint()[:_HELD_OUT_WINDOWS])
    nats = torch.cat([_nats(model, part) for part in windows.split(_BATCH)])[:, 1:].cpu()
    lengths = torch.from_numpy(np.append(byte_lengths(tokenizer.vocabulary), [0] * vocabulary_size))
    spelled = lengths[windows[:, 1:]].sum(1)
    bigram = BigramCounts(training, vocabulary_size).nats(windows)
    unigram = UnigramCounts(training, vocabulary_size).nats(windows[:, 1:])
    tokens = nats.shape[1]
    for name, values in (
        ("nats_per_token", nats),
        ("bigram_nats_per_token", bigram),
        ("unigram_nats_per_token", unigram),
    ):
        table.add_items(name, values.mean(1).tolist(), unit="nats/token", normaliser="tokens")
    prompts = windows[:loop_prompts, :_PROMPT]
    continued = generate(model, prompts.to(model.device), _CONTINUATION, torch.Generator(model.device), temperature=0)
    looping = (distinct_ngrams(continued.cpu()) < LOOP_SHARE).double()
    facts = {
        "bits_per_byte": float(nats.sum() / spelled.sum() / np.log(2)),
        "bigram_ratio": float(nats.sum() / bigram.sum()),
        "bytes_per_token": float(spelled.sum() / (len(windows) * tokens)),
    }
    units = {"bits_per_byte": "bits/byte", "bigram_ratio": "", "bytes_per_token": "bytes/token"}
    for name, value in facts.items():
        table.add(name, value, unit=units[name], samples=len(windows))
    table.add_items("looping", looping.tolist(), unit="share")
    return {
        **facts,
        "nats": float(nats.mean()),
        "bigram": float(bigram.mean()),
        "unigram": float(unigram.mean()),
        "looping": float(looping.mean()),
        "windows": len(windows),
        "training_tokens": len(training),
    }


def _nats(model: CausalLM, windows: Tensor) -> Tensor:
    windows = windows.to(model.device)
    rows = model.along(windows[:, :-1])
    return -rows.gather(-1, windows[..., None])[..., 0]


def _card(stage: StageContext, model: CausalLM, facts: dict[str, float], sources: list[Path]) -> str:
    params = stage.params
    count = sum(parameter.numel() for parameter in model.parameters())
    seen = params.steps * params.batch * params.context
    data = ", ".join(path.name for path in sources)
    fill = ""
    if params.psm + params.spm:
        how = "jointly" if params.joint else "apart"
        fill = (
            f"\n- Fill in the middle: {100 * params.psm:g}% of the chunks as prefix, suffix, middle and "
            f"{100 * params.spm:g}% as suffix, prefix with middle (encoded {how}),\n  spans drawn over bytes, every "
            "chunk ended by `<eos>`."
        )
    return f"""# {stage.paper}

A causal transformer over byte-level {params.tokenizer} tokens ({params.vocabulary_size:,}, {params.pieces} pieces):
{params.layers} layers, width {params.width}, {params.heads} heads, rotary positions, tied embedding, context
{params.context}, {count:,} parameters.

- Trained on: {data} ({facts["training_tokens"]:,.0f} tokens), {params.steps:,} steps of {params.batch} windows of
  {params.context} tokens ({seen / 1e6:.1f} million, {seen / facts["training_tokens"]:.1f} passes), AdamW
  {params.learning_rate:g}, seed {stage.seed}. Windows begin with the start token at the beginning of a line.{fill}
- Held out ({facts["windows"]:,.0f} windows of the test part): {facts["nats"]:.3f} nats per token,
  {facts["bits_per_byte"]:.3f} bits per byte, {facts["bytes_per_token"]:.2f} bytes per token. Counts of the same tokens
  in training: bigram {facts["bigram"]:.3f}, unigram {facts["unigram"]:.3f} nats per token; the model needs
  {100 * facts["bigram_ratio"]:.1f}% of the bigram's.
- Loops: {100 * facts["looping"]:.0f}% of {params.loop_prompts} greedy continuations of {_CONTINUATION} tokens have
  fewer than {100 * LOOP_SHARE:.0f}% distinct 4-grams.
- Use: a real, small model for studies of decoding, tokens and detection. Compare it with models of other tokens in
  bits per byte only.
- Not for: writing text or code that anyone should use.

```python
from pathlib import Path

from components.language.pretrained import load_language_model
from components.tokenizers.text.byte_level import to_symbols

language = load_language_model(Path("bases/{stage.paper}"))
tokens = language.tokenizer.encode(to_symbols("import "))
rows = language.model.along(torch.tensor([tokens]))   # ln P(next token), (1, T + 1, {model.vocabulary_size})
```
"""
