"""Parameters and metrics of tokens over phonemes and units of speech: three tasks, with and without merges."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from flows.declarations.metric import Metric
from flows.studies.speech_task import params as study


class TrainParams(study.TrainParams):
    """What an arm learns, and over which tokens."""

    task: Literal["g2p", "g2dau", "lm", "speed", "balance"] = "g2p"
    """Text to phonemes; text to units; units one after the other; time of decoding; statistics without any model."""
    merging: Literal["bpe", "random", "unigram"] = "bpe"
    """How tokens are learned from base symbols."""
    vocabulary: int = Field(0, ge=0)
    """Tokens, base symbols included; 0 for the base symbols themselves."""
    cross_word: bool = False
    """Phonemes: whether merges may cross the mark between words."""
    equal_flops: bool = False
    """Whether the run has the operations, not the steps, of the run over base symbols."""
    width: int = Field(128, ge=4)
    """Channels."""
    encoder_layers: int = Field(2, ge=1)
    """Blocks of the encoder."""
    decoder_layers: int = Field(2, ge=1)
    """Blocks of the decoder."""
    lm_layers: int = Field(3, ge=1)
    """Blocks of the model of units."""
    heads: int = Field(4, ge=1)
    """Attention heads."""
    feed_forward: int = Field(512, ge=4)
    """Hidden channels of the MLPs."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of attention weights and of residual updates dropped in training of encoder and decoder."""
    batch_size: int = Field(24, ge=1)
    """Utterances per step; stretches of the model of units."""
    smoothing: float = Field(0.1, ge=0, lt=1)
    """Label smoothing."""
    guided_weight: float = Field(5.0, ge=0)
    """Units: weight of guided attention."""
    guided_width: float = Field(0.15, gt=0)
    """Units: width of its diagonal."""
    guided_steps: int = Field(1_000, ge=0)
    """Units: steps with guided attention."""
    context: int = Field(128, ge=8)
    """Tokens of a stretch of the model of units."""
    lm_hours: float = Field(3.0, gt=0)
    """Hours of training audio whose units are modelled."""


class EvaluateParams(TrainParams):
    """What a trained arm is tried on."""

    beams: int = Field(5, ge=1)
    """Beams of the second decoding; the first is greedy."""
    together: int = Field(100, ge=1)
    """Utterances decoded side by side."""
    test_utterances: int = Field(1_000, ge=2)
    """Most test phrases or utterances."""
    swept: tuple[int, ...] = (256, 512, 1_000, 2_048, 4_000)
    """Statistics: sizes of vocabularies beside the base symbols."""
    generated: int = Field(60, ge=0)
    """Utterances drawn from the model of units, rendered and read."""
    temperatures: tuple[float, ...] = (0.7, 1.0)
    """At which they are drawn."""
    timed_utterances: int = Field(60, ge=1)
    """Test utterances that are decoded at batch 1, one after the other."""
    timed_runs: int = Field(5, ge=1)
    """Times they are decoded; the median counts."""


_RATE = "edits over base symbols of the references, after expansion; one row for each sequence, whose mean is the rate"
METRICS = {
    "per": Metric("percent", "lower", f"Phoneme error rate: {_RATE}. `progress` is the percentage of the steps done."),
    "beam_per": Metric("percent", "lower", "The same with beam search."),
    "sequence_errors": Metric("percent", "lower", "Share of sequences with an error, decoded greedily."),
    "uer": Metric("percent", "lower", f"Unit error rate: {_RATE}. `text` is own, or other: of another utterance."),
    "beam_uer": Metric("percent", "lower", "The same with beam search."),
    "bleu": Metric("percent", "higher", "Corpus BLEU-4 over base units, one row for each utterance, whose mean it is."),
    "token_errors": Metric(
        "percent", "lower", "Error rate over tokens, not expanded: not comparable over vocabularies, for reference."
    ),
    "decoder_steps": Metric("steps", "lower", "Tokens of a test utterance's reference and its end."),
    "decoding_seconds": Metric(
        "s",
        "lower",
        "Wall time of decoding test utterances greedily at batch 1, median of runs; `tokens` is base or bpe.",
    ),
    "bits_per_unit": Metric(
        "bits",
        "lower",
        "-log2 P of a held-out utterance's tokens and its end over its base units: of the canonical segmentation, an "
        "upper bound of the marginal. One row for each utterance, whose mean is the ratio of all. `model` is network, "
        "or bigram: an interpolated Kneser-Ney bigram of the training units.",
    ),
    "order_accuracy": Metric(
        "percent", "higher", "Share of held-out sentences that are likelier than with two neighbouring words exchanged."
    ),
    "steps_run": Metric("steps", "neither", "Optimiser steps of the run."),
    "evenness": Metric(
        "",
        "higher",
        "Entropy of the training tokens' frequencies over its maximum; `symbols` is phonemes, units or runs.",
    ),
    "corpus_length_ratio": Metric("share", "lower", "Tokens over base symbols of the training sequences; as above."),
    "transcript_nats": Metric(
        "nats/word", "lower", "Of the judge's transcripts of generated units, by a trigram of sentences; `temperature`."
    ),
    "transcript_distinct": Metric(
        "share", "higher", "Different bigrams among all of these transcripts; `temperature`."
    ),
    "natural_wer": Metric("percent", "lower", "Word error rate of natural units, rendered as generated ones are."),
    "judge_wer": Metric("percent", "lower", "Word error rate of the judge on the recordings of the same sentences."),
    "sign_turns": Metric(
        "", "lower", "How often the difference of error rates to the base symbols changes its sign in the last quarter."
    ),
}

SEQ2SEQ, UNIT_LM = "components.speech.seq2seq", "components.language.causal_lm"
_TOKENIZERS = {
    "bpe": "components.tokenizers.audio.unit_bpe",
    "random": "components.tokenizers.audio.unit_bpe",
    "unigram": "components.tokenizers.audio.unit_unigram",
}
_UNITS = ("components.tokenizers.audio.ssl_kmeans", "components.speech.ssl_encoder")
_JUDGED = ("components.speech.unit_vocoder", "components.audio.mel_vocoder", "components.speech.recogniser")


def tokenizer_module(merging: str) -> str:
    """Return the module that learns and reads tokens."""
    return _TOKENIZERS[merging]


def components(params: TrainParams, kind: str) -> tuple[str, ...]:
    """Return the modules that an arm chooses by name, which its stages import dynamically."""
    own = [tokenizer_module(params.merging)]
    if params.task in ("g2p", "g2dau", "speed"):
        own.append(SEQ2SEQ)
    if params.task in ("g2dau", "speed"):
        own += _UNITS
    if params.task == "lm":
        own += [UNIT_LM, *(_JUDGED if kind == "evaluate" else ())]
    return tuple(own)
