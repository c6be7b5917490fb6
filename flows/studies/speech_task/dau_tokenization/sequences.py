"""Text to phonemes and text to units: training of an encoder and decoder over tokens, errors over base symbols.

Letters: `U` base symbols, `V` tokens, `S` characters of a text, `N` tokens of a target, `D` width, `F` of MLPs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import torch
from torch import Tensor, nn

from components.bases import construct, load_model, save_model, specification
from components.metrics.tables import MetricTable
from components.metrics.text_generation import bleu_counts, bleu_of, corpus_influence
from components.speech.recogniser import ALPHABET
from components.speech.seq2seq import padded_tokens
from components.tokenizers.audio.unit_bpe import UnitBPE
from components.training.determinism import derive_seed
from components.training.loop import Optimisation, fit
from components.training.weights import load_weights, save_weights
from flows.studies.audio_tokenizer.speech_sets import error_rows
from flows.studies.context import StageContext
from flows.studies.speech_task.dau_tokenization.params import SEQ2SEQ
from flows.studies.speech_task.dau_tokenization.symbols import (
    Corpus,
    characters_of,
    corpus_of,
    learned_tokens,
    load_tokens,
    save_tokens,
)

LATE = (75, 88)
"""Percentages of the run at which the network is kept, beside the end."""
_WEIGHTS = 3  # random stream of this stage
_SPARE = 1.5  # longest target that is written, over the longest of training


class Pair(NamedTuple):
    """A training batch: characters (B, S) and tokens (B, N) with their lengths (B,)."""

    source: Tensor
    source_lengths: Tensor
    target: Tensor
    target_lengths: Tensor
    guided: Tensor


def description(params: Any, tokens: int) -> dict[str, Any]:
    """Describe the network of an arm with so many tokens."""
    return specification(
        SEQ2SEQ,
        targets=tokens,
        source_tokens=len(ALPHABET),
        width=params.width,
        encoder_layers=params.encoder_layers,
        decoder_layers=params.decoder_layers,
        heads=params.heads,
        feed_forward=params.feed_forward,
        dropout=params.dropout,
    )


def example_operations(params: Any, characters: float, tokens: float, vocabulary: int) -> float:
    """Return multiplications of a forward pass for one text, attention scores aside.

        L_e (4 D^2 + 2 D F) S  +  L_d ((6 D^2 + 2 D F) N + 2 D^2 S)  +  (V + 1) D N

    Args:
        params: Sizes.
        characters: S.
        tokens: N, the end included.
        vocabulary: V.
    """
    square, hidden = params.width**2, 2 * params.width * params.feed_forward
    encoder = params.encoder_layers * (4 * square + hidden) * characters
    decoder = params.decoder_layers * ((6 * square + hidden) * tokens + 2 * square * characters)
    return encoder + decoder + (vocabulary + 1) * params.width * tokens


def steps_of(params: Any, corpus: Corpus, tokens: UnitBPE, targets: Sequence[Sequence[int]]) -> int:
    """Return the steps of a run: those of the parameters, or as many as cost the same as these over base symbols."""
    if not params.equal_flops:
        return params.steps
    characters = sum(map(len, corpus.train_texts)) / len(corpus.train_texts)
    base = 1 + sum(map(len, corpus.train)) / len(corpus.train)
    own = 1 + sum(map(len, targets)) / len(targets)
    ratio = example_operations(params, characters, base, corpus.size) / example_operations(
        params, characters, own, tokens.vocabulary_size
    )
    return max(1, round(params.steps * ratio))


def train(stage: StageContext) -> None:
    """Learn tokens and train the network; keep it at the end and at two places of the last quarter."""
    params = stage.params
    corpus = corpus_of(stage)
    tokens = learned_tokens(params, corpus.train, corpus.size, stage.seed, corpus.separator)
    sources = [characters_of(text) for text in corpus.train_texts]
    targets = [tokens.encode(symbols) for symbols in corpus.train]
    steps = steps_of(params, corpus, tokens, targets)
    described = description(params, tokens.vocabulary_size)
    torch.manual_seed(derive_seed(stage.seed, _WEIGHTS))
    model = construct(described)
    guides = params.task == "g2dau"

    def draw_batch(step: int, generator: torch.Generator) -> Pair:
        rows = torch.randint(len(sources), (params.batch_size,), generator=generator).tolist()
        guided = torch.tensor(guides and step < params.guided_steps)
        return Pair(
            *padded_tokens([sources[row] for row in rows]), *padded_tokens([targets[row] for row in rows]), guided
        )

    def loss(model: nn.Module, batch: Pair, _: torch.Generator) -> tuple[Tensor, dict]:
        width = params.guided_width if guides else None
        entropy, charge = model.loss(*batch[:4], smoothing=params.smoothing, guided=width)
        if not guides:
            return entropy, {}
        return entropy + params.guided_weight * charge * batch.guided, {"guided": charge}

    late = {share: max(1, steps * share // 100) for share in LATE}

    def keep(model: nn.Module, step: int, generator: torch.Generator) -> None:
        for share, place in late.items():
            if step + 1 == place:
                # In the folder that outlives a kill: a resumed run may be past this step.
                save_weights(model, stage.checkpoint / _late(share))

    curves = fit(
        model,
        draw_batch,
        loss,
        Optimisation(steps, params.learning_rate, params.warmup_steps),
        seed=stage.seed,
        device=stage.device,
        checkpoint=stage.checkpoint / "fit",
        progress=stage.progress,
        after_step=keep,
        units={"loss": "nats/token"},
    )
    curves.write(stage.output)
    save_model(stage.output, model, described)
    save_tokens(stage, tokens)
    for share in LATE:
        (stage.output / _late(share)).write_bytes((stage.checkpoint / _late(share)).read_bytes())


def _late(share: int) -> str:
    return f"after-{share}.safetensors"


def evaluate(stage: StageContext) -> None:
    """Write test sequences greedily and by beams, and count errors over base symbols."""
    params = stage.params
    corpus, tokens, table = corpus_of(stage), load_tokens(stage), MetricTable()
    model = load_model(stage.inputs["train"]).to(stage.device)
    references = [tokens.encode(symbols) for symbols in corpus.test]
    steps = [len(each) + 1 for each in references]
    table.add_items("decoder_steps", steps, unit="steps", items=corpus.names)
    ratio = sum(map(len, references)) / sum(map(len, corpus.test))
    table.add("length_ratio", ratio, unit="share", samples=len(references))
    task = "per" if params.task == "g2p" else "uer"
    longest = round(_SPARE * max(map(len, references)))
    greedy = _written(stage, model, corpus.test_texts, longest)
    rows = symbol_error_rows(greedy, corpus.test, tokens)
    if params.task == "g2p":
        _add_rows(table, "per", rows, corpus, {"progress": 100})
        wrong = [100.0 * (tokens.decode(one) != other) for one, other in zip(greedy, corpus.test, strict=True)]
        table.add_items("sequence_errors", wrong, unit="percent", items=corpus.names)
        for share in LATE:
            load_weights(model, Path(stage.inputs["train"]) / _late(share))
            early = symbol_error_rows(_written(stage, model, corpus.test_texts, longest), corpus.test, tokens)
            _add_rows(table, "per", early, corpus, {"progress": share})
        model = load_model(stage.inputs["train"]).to(stage.device)
    else:
        _add_rows(table, "uer", rows, corpus, {"text": "own"})
        # Another utterance's text: the outputs of the next utterance stand for it.
        _add_rows(
            table, "uer", symbol_error_rows(greedy[1:] + greedy[:1], corpus.test, tokens), corpus, {"text": "other"}
        )
        counts = bleu_counts([_spelled(tokens.decode(each)) for each in greedy], list(map(_spelled, corpus.test)))
        table.add_items("bleu", corpus_influence(bleu_of, counts), unit="percent", items=corpus.names)
    beams = _written(stage, model, corpus.test_texts, longest, params.beams)
    _add_rows(table, f"beam_{task}", symbol_error_rows(beams, corpus.test, tokens), corpus, None)
    plain = error_rows([" ".join(map(str, each)) for each in greedy], [" ".join(map(str, each)) for each in references])
    _add_rows(table, "token_errors", plain, corpus, None)
    last = int(_run_steps(stage))
    table.add("steps_run", last, unit="steps", samples=1)
    table.write(stage.output)


def _run_steps(stage: StageContext) -> int:
    return pl.read_parquet(stage.inputs["train"] / "curves.parquet")["step"].max()


def _add_rows(table: MetricTable, metric: str, rows: list[float], corpus: Corpus, at: dict | None) -> None:
    table.add_items(metric, rows, unit="percent", at=at, items=corpus.names, normaliser="symbols")


def _spelled(symbols: Sequence[int]) -> list[str]:
    return [str(symbol) for symbol in symbols]


def symbol_error_rows(
    written: Sequence[Sequence[int]], references: Sequence[Sequence[int]], tokens: UnitBPE
) -> list[float]:
    """Return one row for each sequence, percent, whose mean is the error rate over base symbols.

    Args:
        written: Tokens of each output; they are expanded first.
        references: Base symbols of each.
        tokens: Of the outputs.
    """
    expanded = [" ".join(_spelled(tokens.decode(each))) for each in written]
    return error_rows(expanded, [" ".join(_spelled(each)) for each in references])


@torch.no_grad()
def _written(
    stage: StageContext, model: nn.Module, texts: Sequence[str], longest: int, beams: int = 1
) -> list[list[int]]:
    # Texts of like lengths together: little of a batch is padding, and it ends with its longest output.
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    size = max(1, stage.params.together // beams)
    found: dict[int, list[int]] = {}
    for first in range(0, len(order), size):
        rows = order[first : first + size]
        source, lengths = padded_tokens([characters_of(texts[row]) for row in rows])
        outputs, _ = model.beam(source.to(stage.device), lengths.to(stage.device), longest, beams=beams)
        found |= dict(zip(rows, outputs, strict=True))
        stage.progress(len(found), len(texts))
    return [found[row] for row in range(len(texts))]
