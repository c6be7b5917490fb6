"""What the stages read: the encoder, the scan, the sample of a seed with its pairs, and the tokens to be measured."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

import numpy as np
import polars as pl

from components.analysis.sticky_insertion import MODES
from components.analysis.sticky_pairs import Pairs, PairSets, pair_sets
from components.analysis.sticky_scoring import Edits, prepare
from components.analysis.sticky_vocabulary import special_tokens, vocabulary
from components.data.sentence_pool import CORPORA, frequent_words, pool, sample
from components.encoders.sentence import SentenceEncoder, load_sentence_encoder
from components.errors import TesseraError
from components.training.determinism import derive_seed
from flows.studies.analysis.sticky_tokens.params import TrainParams
from flows.studies.context import StageContext

_PLACES, _TOKENS = 1, 2  # random streams
_FIXED = 0  # seed of what is the same in every sample


class TokensError(TesseraError):
    """The tokens or samples that the parameters ask for are not there."""


@dataclass(frozen=True)
class Sources:
    """The inputs of a stage.

    Attributes:
        params: The stage's parameters.
        seed: Its seed.
        encoder: Sentence encoder.
        ranking: Usable tokens with their scores, the highest first.
        centre: Mean similarity u.
        pooled: Sentences by corpus.
    """

    params: TrainParams
    seed: int
    encoder: SentenceEncoder
    ranking: pl.DataFrame
    centre: float
    pooled: dict[str, list[str]]

    def sentences(self) -> list[str]:
        """Return the sample of this seed; the scan has the one before the first."""
        params = self.params
        if self.seed + 1 >= params.samples:
            raise TokensError(
                f"seed {self.seed} has no sample of its own: `samples` is {params.samples}, of which the scan has one; "
                "use lower seeds, or scan again with more samples."
            )
        return sample(self.pooled, self.seed + 1, params.sentences, params.samples)

    def pairs(self, sentences: list[str]) -> PairSets:
        """Return the pairs of the sample."""
        params = self.params
        return pair_sets(
            self.encoder.encode(sentences),
            self.centre,
            scoring=params.scoring_pairs,
            verification=params.verification_pairs,
            above=params.above_pairs,
        )

    def edits(self, sentences: list[str], pairs: Pairs, copies: tuple[int, ...]) -> Edits:
        """Encode pairs and draw places of insertion, the same for every arm of a seed."""
        first, second = ([sentences[row] for row in rows] for rows in (pairs.first, pairs.second))
        generator = np.random.default_rng(derive_seed(self.seed, _PLACES))
        edits = prepare(self.encoder, first, second, copies, generator)
        return edits if self.params.joint == "spaced" else bare(edits)

    def tokens(self) -> pl.DataFrame:
        """Return the tokens that the parameters name: `token` (text to insert) and `kind`."""
        params = self.params
        if params.measure == "ranking":
            return self._study()
        if params.measure == "definition":
            top = self.ranking["token"].head(params.definition_tokens // 6).to_list()
            drawn = self._drawn(params.definition_tokens - len(top), set(top), _FIXED)
            return _frame({"top": top, "random": drawn})
        if params.tokens == "random":
            top = self.ranking["token"].head(params.scan_tokens).to_list()
            return _frame({"random": self._drawn(params.random_tokens, {*top, *params.published}, self.seed)})
        if params.tokens == "frequent_words":
            known = set(self.ranking["token"])
            return _frame({"frequent": frequent_words(self.pooled, params.frequent_words, known)})
        return _frame({"top": self.ranking["token"].head(params.scan_tokens).to_list()})

    def _study(self) -> pl.DataFrame:
        params = self.params
        names = vocabulary(self.encoder)
        specials = [names[place] for place in special_tokens(self.encoder)]
        known = set(names)
        if missing := [token for token in params.published if token not in known]:
            raise TokensError(f"the vocabulary lacks the published tokens {missing}; correct `published`.")
        drawn = self._drawn(params.study_tokens, {*params.published, *specials}, _FIXED)
        pieces = sorted(name.removeprefix("##") for name in names if name.startswith("##"))
        order = np.random.default_rng(derive_seed(_FIXED, _TOKENS)).permutation(len(pieces))[: params.fragments]
        return _frame(
            {
                "published": list(params.published),
                "random": drawn,
                "special": [name for name in specials if name not in params.published],
                "fragment": [pieces[place] for place in sorted(order)],
            }
        )

    def _drawn(self, count: int, without: set[str], seed: int) -> list[str]:
        """Draw usable tokens, in the order of their ids."""
        ordered = [token for token in self.ranking.sort("id")["token"] if token not in without]
        if len(ordered) < count:
            raise TokensError(f"{count} random tokens are wanted, {len(ordered)} are usable.")
        order = np.random.default_rng(derive_seed(seed, _TOKENS)).permutation(len(ordered))[:count]
        return [ordered[place] for place in sorted(order)]


def bare(edits: Edits) -> Edits:
    """Return the edits without spaces around copies in front and behind; copies at random places keep theirs."""
    touching = len(edits.counts) * (len(MODES) - 1)

    def closed(templates: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
        return [tuple(piece.strip() for piece in pieces) for pieces in templates[:touching]] + templates[touching:]

    return dataclasses.replace(edits, pieces=[closed(pair) for pair in edits.pieces])


def _frame(kinds: dict[str, list[str]]) -> pl.DataFrame:
    rows = [(token, kind) for kind, tokens in kinds.items() for token in tokens]
    return pl.DataFrame(rows, schema={"token": pl.String, "kind": pl.String}, orient="row")


def read_sources(stage: StageContext) -> Sources:
    """Read what a stage needs."""
    params: TrainParams = stage.params
    base = stage.inputs[f"bases/{params.scan}"]
    corpora = {corpus: stage.inputs[f"data/{corpus}"] for corpus in CORPORA if f"data/{corpus}" in stage.inputs}
    return Sources(
        params=params,
        seed=stage.seed,
        encoder=load_sentence_encoder(stage.inputs[f"data/{params.encoder}"]).to(stage.device),
        ranking=pl.read_parquet(base / "ranking.parquet"),
        centre=json.loads((base / "scan.json").read_text(encoding="utf-8"))["mean_similarity"],
        pooled=pool(corpora, (params.shortest, params.longest)),
    )
