"""What a token model says about real text: bits per character, and how far direct prompting is off where it cuts."""

from __future__ import annotations

import math

import numpy as np
import torch

from components.language.byte_conversion import CoverCorrection, DirectPrompting, Truncated
from components.metrics.tables import MetricTable
from components.tokenizers.text.validity import Validity
from flows.studies.context import StageContext
from flows.studies.decoding.models import trained_model, trained_tokenizer
from flows.studies.decoding.params import EvaluateParams
from flows.studies.decoding.sources import part, stream, text_directory

_CHUNK = 40
_SHORTEST_CUT = 8


def measure(stage: StageContext, table: MetricTable) -> None:
    """Measure one arm on texts that begin at random pieces of the held-out part."""
    params: EvaluateParams = stage.params
    tokenizer = trained_tokenizer(stage)
    validity = Validity(tokenizer)
    model = trained_model(stage)
    truncated = Truncated(model, validity)
    corrected, direct = CoverCorrection(truncated, validity), DirectPrompting(model, tokenizer)
    held_out = part(text_directory(stage), "test")
    generator = stream(stage.seed, "held out")
    # A text cut inside a token may need more tokens than it needs whole; the longest token bounds how many.
    room = params.context - max(map(len, tokenizer.vocabulary))
    done, total = 0, params.text_chunks + 2 * params.text_cuts

    chunks = [
        text[: params.chunk_characters]
        for text, _ in passages(tokenizer, held_out, room, params.text_chunks, generator)
    ]
    bits, token_bits = [], []
    for start in range(0, len(chunks), _CHUNK):
        batch = chunks[start : start + _CHUNK]
        lengths = np.array([len(text) for text in batch])
        bits += (-corrected.log_probabilities(batch).cpu().numpy() / math.log(2) / lengths).tolist()
        token_bits += (_token_nats(model, tokenizer, batch) / math.log(2) / lengths).tolist()
        stage.progress(done := done + len(batch), total)
    table.add_items("bits_per_character", bits, unit="bits/character", normaliser="characters")
    table.add_items("token_bits_per_character", token_bits, unit="bits/character", normaliser="characters")

    worst, texts = 0.0, 0
    for where, cuts in mixed_cuts(tokenizer, held_out, room, params.text_cuts, generator).items():
        divergences = []
        for start in range(0, len(cuts), _CHUNK):
            batch = cuts[start : start + _CHUNK]
            right = corrected.next_log_probabilities(batch).cpu()
            wrong = direct.next_log_probabilities(batch).cpu()
            divergences += (kl_divergence(right, wrong) / math.log(2)).tolist()
            worst = max(worst, float((right.exp().sum(-1) - 1).abs().max()))
            texts += len(batch)
            stage.progress(done := done + len(batch), total)
        table.add_items("kl", divergences, unit="bits", at={"cut": where})
    table.add("mass_error", worst, unit="probability", samples=texts)


def passages(
    tokenizer, text: str, tokens: int, count: int, generator: np.random.Generator
) -> list[tuple[str, list[int]]]:
    """Draw passages of `tokens` tokens from random piece starts; return each with its tokens."""
    encoded, pieces = tokenizer.encode_with_pieces(text)
    starts = np.flatnonzero(np.diff(pieces, prepend=-1))
    chosen = generator.choice(starts[starts <= len(encoded) - tokens], size=count)
    parts = [encoded[start : start + tokens] for start in chosen.tolist()]
    return [(tokenizer.decode(part), part) for part in parts]


def mixed_cuts(tokenizer, text: str, tokens: int, count: int, generator: np.random.Generator) -> dict[str, list[str]]:
    """Draw contexts that end inside a token of the full text's encoding, and as many that end with a token."""
    cuts: dict[str, list[str]] = {"inside": [], "end": []}
    while min(map(len, cuts.values())) < count:
        for passage, encoded in passages(tokenizer, text, tokens, count, generator):
            ends = np.cumsum([len(tokenizer.vocabulary[token]) for token in encoded])
            places = np.arange(_SHORTEST_CUT, len(passage))
            at_end = np.isin(places, ends)
            for where, candidates in (("end", places[at_end]), ("inside", places[~at_end])):
                if len(candidates) and len(cuts[where]) < count:
                    cuts[where].append(passage[: generator.choice(candidates)])
    return cuts


def kl_divergence(right: torch.Tensor, wrong: torch.Tensor) -> torch.Tensor:
    """Return KL(right || wrong) in nats of log-probabilities (B, A), each normalised over its characters first."""
    right, wrong = right.log_softmax(-1), wrong.log_softmax(-1)
    terms = right.exp() * (right - wrong)
    return terms.masked_fill(right == -math.inf, 0.0).sum(-1)


def _token_nats(model, tokenizer, texts: list[str]) -> np.ndarray:
    encodings = [tokenizer.encode(text) for text in texts]
    tokens = torch.zeros(len(texts), max(map(len, encodings)), dtype=torch.int64)
    for row, encoding in enumerate(encodings):
        tokens[row, : len(encoding)] = torch.tensor(encoding)
    inside = torch.arange(tokens.shape[1]) < torch.tensor([len(encoding) for encoding in encodings])[:, None]
    chosen = model.along(tokens[:, :-1]).cpu().gather(-1, tokens[..., None])[..., 0]
    return -(chosen * inside).sum(1).numpy()
