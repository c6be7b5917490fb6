"""Parameters and metrics of byte-probabilities: how language models of tokens are asked for bytes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from flows.declarations.metric import Metric
from flows.declarations.parameters import StudyParams


class TrainParams(StudyParams):
    """Nothing is trained: the language models are shared bases."""


class EvaluateParams(TrainParams):
    """What one arm asks of the language models of its seed, and how."""

    query: Literal["byte_exact", "byte_fast", "token_direct", "token_healing", "token_psm", "text"] = "byte_exact"
    """How bytes are read off the model behind prompts and around gaps; `text` scores whole texts by exact bytes."""
    models: tuple[Literal["bpe", "unigram"], ...] = ("bpe",)
    """Tokenizers of the models asked; of `text` these are the members of an ensemble, elsewhere there is one."""
    bpe_base: str = "lm-python-bpe-s{seed}"
    """Name of the base whose tokenizer is BPE; {seed} is the arm's seed."""
    unigram_base: str = "lm-python-unigram-s{seed}"
    """Name of the base whose tokenizer is unigram."""
    prompts: int = Field(400, ge=2)
    """Prompts cut inside a token, and as many cut at the end of one."""
    following_bytes: int = Field(16, ge=1)
    """Bytes behind a prompt that are predicted one after the other, each with all bytes before it given."""
    shortest_prompt: int = Field(32, ge=1)
    """Fewest bytes of a prompt."""
    gaps: int = Field(400, ge=2)
    """Spans of held-out lines that are to be filled in."""
    shortest_gap: int = Field(2, ge=1)
    """Fewest characters of such a span."""
    longest_gap: int = Field(8, ge=1)
    """Most characters of such a span."""
    passage_bytes: int = Field(400, ge=16)
    """Most bytes of the whole lines that a prompt or a gap is taken from."""
    text_bytes: int = Field(40_000, ge=16)
    """Bytes of held-out text that are scored."""
    scored_passage_bytes: int = Field(240, ge=16)
    """Most bytes of the whole lines that are scored at once: below a model's context, since a token may be one byte."""
    counted_prompts: int = Field(20, ge=1)
    """Prompts behind which the calls of the model are counted, streaming."""
    enumerated_models: int = Field(8, ge=2)
    """Random token models, half of them of BPE and half of maximum prefix encoding, that are enumerated."""
    enumerated_symbols: int = Field(8, ge=2, le=10)
    """Symbols of the longest enumerated string, over an alphabet of two."""
    enumerated_vocabulary: int = Field(8, ge=3, le=12)
    """Most tokens of an enumerated model."""

    @model_validator(mode="after")
    def _fits(self) -> EvaluateParams:
        if self.shortest_gap > self.longest_gap:
            raise ValueError(f"shortest_gap is {self.shortest_gap} and longest_gap {self.longest_gap}.")
        if not self.models or (self.query != "text" and len(self.models) > 1):
            raise ValueError(f"query {self.query} of the models {list(self.models)}; expected one, several for text.")
        return self

    def base_of(self, tokens: str, seed: int) -> str:
        """Return the name of the base with this kind of tokens."""
        return (self.bpe_base if tokens == "bpe" else self.unigram_base).format(seed=seed)


METRICS = {
    "enumeration_error": Metric(
        "probability",
        "lower",
        "Largest |P(next byte | text) - enumeration over all token sequences|, over random token models that only give "
        "valid sequences probability, all texts of an alphabet of two, and every next byte or end.",
    ),
    "next_byte_bits": Metric(
        "bits",
        "lower",
        "-log2 P(true byte | text) at a number of bytes behind the cut (distance), by where the prompt was cut: inside "
        "a token of the whole text's encoding or at the end of one. The end of the text is among the outcomes.",
    ),
    "rest_of_line_match": Metric(
        "%",
        "higher",
        "Share of prompts cut inside a token whose greedy continuation up to the line's end is the true one.",
    ),
    "middle_match": Metric(
        "%",
        "higher",
        "Share of gaps whose greedy filling, as many bytes as the gap has, is the true one; also by where the text in "
        "front of the gap ends: inside a token of the text with the gap filled, or at the end of one.",
    ),
    "best_middle_match": Metric("%", "neither", "The highest middle_match of any arm with the same seed."),
    "bits_per_byte": Metric(
        "bits/byte", "lower", "-log2 P of held-out texts over their bytes, from exact next-byte probabilities."
    ),
    "token_bits_per_byte": Metric(
        "bits/byte",
        "lower",
        "-log2 P of the same texts' tokens but the first of each, over the bytes of these tokens, by who predicts: the "
        "network, or counts of token pairs in the training part, 0.1 added.",
    ),
    "conversion_gap": Metric(
        "bits",
        "lower",
        "Largest |bits of a text and its end, byte by byte - bits of its one encoding and the end under the truncated "
        "token model|: a whole text has one valid encoding, so the two are the same number.",
    ),
    "truncation_gain": Metric(
        "bits/byte",
        "higher",
        "Bits of the texts' tokens and ends before truncation minus after, over the texts' bytes.",
    ),
    "truncated_mass": Metric(
        "probability",
        "lower",
        "Mean next-token probability on encoded text that full truncation takes away: of tokens that make the sequence "
        "invalid, and of special tokens other than the end.",
    ),
    "first_calls": Metric("calls", "lower", "Calls of the model for the first cover of a prompt, streaming."),
    "calls_per_byte": Metric("calls/byte", "lower", "Calls of the model for every byte behind the prompt, streaming."),
}


def components(params: EvaluateParams, kind: str) -> tuple[str, ...]:
    """Return the modules that an arm chooses by name: editing one makes only its arms stale."""
    if kind != "evaluate":
        return ()
    return tuple(f"components.tokenizers.text.{tokens}" for tokens in params.models)
