"""Recipe of the scan of a vocabulary for sticky tokens: a ranking of all usable ones, and the similarity they pull to.

The scan survives interruptions: vectors of single tokens and finished blocks lie in the checkpoint.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import torch

from components.analysis.sticky_pairs import mean_similarity, pair_sets
from components.analysis.sticky_scan import scan
from components.analysis.sticky_scoring import moved_fractions, prepare, token_scores
from components.analysis.sticky_vocabulary import usable_tokens, vocabulary
from components.data.sentence_pool import CORPORA, pool, sample
from components.encoders.sentence import SentenceEncoder, load_sentence_encoder
from components.metrics.tables import MetricTable, write_parquet
from components.training import atomic
from components.training.determinism import derive_seed
from components.training.weights import read_tensors, write_tensors
from flows.studies.context import StageContext

RANKING, DESCRIPTION = "ranking.parquet", "scan.json"
_PLACES = 1  # random stream of this stage


def train(stage: StageContext) -> None:
    """Score every usable token, write the ranking, the mean similarity of tokens, measures and a card."""
    params = stage.params
    encoder = load_sentence_encoder(stage.inputs[f"data/{params.encoder}"]).to(stage.device)
    names = vocabulary(encoder)
    usable = usable_tokens(encoder)
    tokens = [names[place] for place in usable]
    vectors = _token_vectors(encoder, tokens, stage.checkpoint)
    centre = mean_similarity(vectors)
    corpora = {corpus: stage.inputs[f"data/{corpus}"] for corpus in CORPORA if f"data/{corpus}" in stage.inputs}
    sentences = sample(pool(corpora, (params.shortest, params.longest)), 0, params.sentences, params.samples)
    pairs = pair_sets(encoder.encode(sentences), centre, scoring=params.pairs, verification=0).scoring
    first, second = ([sentences[row] for row in rows] for rows in (pairs.first, pairs.second))
    generator = np.random.default_rng(derive_seed(stage.seed, _PLACES))
    edits = prepare(encoder, first, second, params.copies, generator)
    distances, realised = scan(encoder, tokens, edits, stage.checkpoint, progress=stage.progress)
    apart = 1 - (vectors.double() @ edits.first.t().to(vectors.device)).cpu().numpy()
    ranking = pl.DataFrame(
        {
            "id": usable.astype(np.int32),
            "token": tokens,
            "score": token_scores(distances, apart),
            "no_distance": token_scores(distances, np.zeros_like(apart)),
            "moved": moved_fractions(distances).mean(1),
            "realised": realised.mean(1),
        }
    ).sort("score", descending=True, maintain_order=True)
    write_parquet(ranking, stage.output / RANKING)
    description = {
        "encoder": params.encoder,
        "mean_similarity": centre,
        "usable": len(tokens),
        "vocabulary": len(names),
        "first": first,
        "second": second,
        "similarity": pairs.similarity.tolist(),
        "copies": list(params.copies),
        "sentences": params.sentences,
        "samples": params.samples,
        "words": [params.shortest, params.longest],
    }
    _write_text(stage.output / DESCRIPTION, json.dumps(description, indent=1, ensure_ascii=False) + "\n")
    table = MetricTable()
    table.add("usable_tokens", description["usable"], unit="tokens", samples=len(names))
    table.add("mean_similarity", centre, unit="", samples=len(vectors))
    table.add("read_as_one_token", float((realised == 1).mean()), unit="share", samples=realised.size)
    table.write(stage.output)
    _write_text(stage.output / "card.md", _card(stage, description, ranking))


def _token_vectors(encoder: SentenceEncoder, tokens: list[str], checkpoint: Path) -> torch.Tensor:
    """Return the unit vectors of single tokens (T, D), from the checkpoint where they were computed before."""
    path = checkpoint / "single-tokens.safetensors"
    if not path.is_file():
        write_tensors({"vectors": encoder.encode(tokens)}, path)
    return read_tensors(path)["vectors"]


def _write_text(path: Path, text: str) -> None:
    with atomic.replacing(path) as temporary:
        Path(temporary).write_text(text, encoding="utf-8")


def _card(stage: StageContext, described: dict, ranking: pl.DataFrame) -> str:
    params = stage.params
    top = ", ".join(f"`{token}`" for token in ranking["token"].head(25))
    return f"""# {stage.paper}

How sticky each token of {params.encoder} is: the stage-3 score of "Sticking to the Mean" for {ranking.height:,} tokens.

- `{RANKING}`: id, text, score, score without the distance term, share of cases moved toward the mean, and how many ids
  one inserted copy became; by score, the highest first. `{DESCRIPTION}`: the pairs and the mean similarity of tokens.
- Usable: {described["usable"]:,} of {described["vocabulary"]:,} tokens are read as themselves between two words.
- Mean cosine of single tokens, each with itself included: {described["mean_similarity"]:.4f}.
- Scored on {params.pairs} pairs of sentences of {params.shortest} to {params.longest} words (Multi30k, UD English, WikiText-2), in front, behind and
  at random places, {", ".join(map(str, params.copies))} copies, on sentences that no paper's sample holds. Seed {stage.seed}.
- The first 25: {top}.
- Use: a shortlist to verify on other pairs. With few pairs the order is noisy: a high score alone is no proof.
- Encoder: Apache 2.0, the sentence-transformers project.
"""  # noqa: E501
