"""Sanity gates: what each metric must score on inputs whose answer is known before anything is measured.

A copy must be perfect, noise must look like noise, shuffled labels must tell nothing, a constant must be as good as
knowing nothing. Tests run every gate; the ledger prints them beside the metrics, so that a reader knows which end of a
scale is which. A new function of components.metrics joins by a gate here.

Nothing is imported but the standard library until a gate is scored.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True)
class Gate:
    """One input with a known score.

    Attributes:
        metric: Module below `components` and function, such as "metrics.image.psnr".
        given: The input, in words.
        must: What it must score, in words.
        score: Computes the score.
        low: Smallest score that passes.
        high: Largest score that passes.
    """

    metric: str
    given: str
    must: str
    score: Callable[[], float]
    low: float
    high: float

    def holds(self) -> bool:
        """Score the input and tell whether it passes."""
        return self.low <= self.score() <= self.high


def _exactly(metric: str, given: str, value: float, score: Callable[[], float], must: str = "") -> Gate:
    margin = 1e-6 * max(1.0, abs(value))
    return Gate(metric, given, must or f"{value:.3g}", score, value - margin, value + margin)


def _about(metric: str, given: str, value: float, score: Callable[[], float], within: float) -> Gate:
    return Gate(metric, given, f"{value:.3g} ± {within:g}", score, value - within, value + within)


@functools.cache
def _images(seed: int, side: int = 32) -> Tensor:
    """Eight images of independent uniform pixels, (8, 3, side, side)."""
    import torch

    return torch.rand((8, 3, side, side), generator=torch.Generator().manual_seed(seed))


def _image(name: str, one: int, other: int, side: int = 32) -> float:
    from components.metrics import image

    return float(getattr(image, name)(_images(one, side), _images(other, side)).mean())


@functools.cache
def _normal(seed: int, *shape: int) -> np.ndarray:
    import numpy as np

    return np.random.default_rng(seed).standard_normal(shape)


def _spectra(louder: float) -> float:
    import torch

    from components.metrics.audio import log_spectral_distance

    spectra = torch.randn(4, 10, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return float(log_spectral_distance(spectra + louder, spectra).mean())


def _voice() -> Tensor:
    """One second of a voice-like sound at 8 kHz: syllables, a pitch gliding from 100 to 150 Hz, a little noise."""
    import torch

    time = torch.arange(8_000, dtype=torch.float64) / 8_000
    phase = 2 * math.pi * (100 * time + 25 * time.square())
    harmonics = sum(torch.sin(order * phase) / order for order in range(1, 12))
    noise = 0.01 * torch.randn(8_000, generator=torch.Generator().manual_seed(1))
    return (0.2 * harmonics * (1.1 + torch.sin(2 * math.pi * 4 * time)) / 2).float() + noise


def _heard(measure: str, change: str) -> float:
    """Score a voice that was changed in one way against itself."""
    import torch

    from components.audio.spectra import LogMelFrames
    from components.metrics import speech_quality

    voice = _voice()
    noise = 0.1 * torch.randn(8_000, generator=torch.Generator().manual_seed(0))
    changed = {
        "copy": voice,
        "half": voice / 2,
        "inverted": -voice,
        "silent": torch.zeros_like(voice),
        "noise": noise,
        "late": voice.roll(4),
        "clipped": voice.clamp(-0.1, 0.1),
    }[change]
    frames = [LogMelFrames()] if measure.startswith("mel") else []
    return getattr(speech_quality, measure)(changed, voice, *frames)


def _alike(sign: float) -> float:
    import torch

    from components.metrics.speech_quality import speaker_similarity

    vectors = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    return float(speaker_similarity(sign * vectors, vectors).mean())


def _misheard(counted: str, transcript: str) -> float:
    from components.metrics import word_error

    return word_error.error_rate(getattr(word_error, counted)([transcript], ["one two three four"]))


def _rank(equal: bool = False) -> float:
    import torch

    from components.metrics.link_prediction import filtered_ranks

    scores = torch.zeros(1, 9) if equal else torch.arange(9.0)[None]
    known = torch.zeros(1, 9, dtype=torch.bool)
    if not equal:
        known[:, 6:] = True
    return float(filtered_ranks(scores, torch.tensor([6]), known)[0])


def _ranked(name: str, **options: int) -> float:
    import torch

    from components.metrics import link_prediction

    return getattr(link_prediction, name)(torch.full((5,), 2.0), **options)


def _rouge(candidate: list[int]) -> float:
    import torch

    from components.metrics.rouge import rouge_l

    return float(rouge_l(torch.tensor([candidate]), torch.tensor([[1, 2, 3, 4]]))[0])


def _frechet(shift: float, seed: int = 0) -> float:
    from components.metrics.frechet import frechet_distance

    return frechet_distance(_normal(seed, 4000, 4) + shift, _normal(0, 4000, 4))


def _generation(name: str, shift: float, seed: int) -> float:
    from components.metrics import generation

    return float(getattr(generation, name)(_normal(seed, 400, 4) + shift, _normal(0, 400, 4)))


def _codebook(name: str, codes: list[int], *sizes: object) -> float:
    import torch

    from components.metrics import codebook

    return float(getattr(codebook, name)(torch.tensor(codes), *sizes))


def _columns(name: str, codes: list[list[int]], *sizes: object) -> float:
    import torch

    from components.metrics import codebook

    found = getattr(codebook, name)(torch.tensor(codes), *sizes)
    return float(torch.as_tensor(found).double().mean())


def _bits_per_byte(probability: float) -> float:
    import numpy as np

    from components.metrics.bits_per_byte import bits, bits_per_byte

    lengths = np.array([3.0, 10.0, 250.0])
    return bits_per_byte(np.asarray(bits(lengths * math.log(probability))), lengths)


def _numeric(name: str, predicted: np.ndarray, *others: object) -> float:
    import numpy as np

    from components.metrics import numeric

    return float(np.mean(getattr(numeric, name)(predicted, *others)))


def _answers(shuffled: bool) -> float:
    import numpy as np

    rng = np.random.default_rng(0)
    answers = [str(digit) for digit in rng.integers(0, 10, 5000)]
    texts = [answers[index] for index in rng.permutation(5000)] if shuffled else [f" {answer}\n" for answer in answers]
    return _numeric("exact_match", texts, answers)


_SENTENCES = (["two", "young", "men", "stand", "near", "a", "bush"], ["a", "girl", "climbs", "into", "a", "hut"])


def _texts(name: str, hypotheses: object, *, joined: bool = False) -> float:
    from components.metrics import text_generation

    pair = hypotheses, _SENTENCES
    if joined:
        pair = [[" ".join(words) for words in texts] for texts in pair]
    return getattr(text_generation, name)(*pair)


def _text(name: str, given: object) -> float:
    from components.metrics import text_generation

    return getattr(text_generation, name)(given)


def _distinct(tokens: list[int]) -> float:
    import torch

    from components.metrics.repetition import distinct_ngrams

    return float(distinct_ngrams(torch.tensor([tokens])))


def _spearman(kind: str) -> float:
    from components.metrics.stats import spearman

    first = _normal(0, 2000)
    return float(spearman(first, {"itself": first, "reversed": -first, "shuffled": _normal(1, 2000)}[kind]))


def _class_information(*, shuffled: bool) -> float:
    import torch

    from components.analysis.token_contribution import class_information

    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(4000) % 8
    codes = labels[torch.randperm(4000, generator=generator)] if shuffled else labels
    return float(class_information(codes[:, None], labels, shuffles=4, generator=generator))


def _told_apart(kind: str) -> float:
    import torch

    from components.metrics.verification import equal_error_rate

    same = torch.arange(4000) % 2 == 0
    scores = {"right": same.double(), "wrong": (~same).double(), "noise": torch.from_numpy(_normal(3, 4000))}
    return equal_error_rate(scores[kind], same)


def _units(field: str, *, told: bool) -> float:
    import torch

    from components.metrics.unit_quality import unit_quality

    phones = torch.arange(400) % 8
    return getattr(unit_quality(phones, phones if told else torch.zeros_like(phones)), field)


def _interval(values: np.ndarray) -> float:
    from components.metrics.bootstrap import mean_interval

    low, high = mean_interval(values, 2000, 0)
    return high - low


def _found(name: str, given: str) -> float:
    """Score 500 queries among 200 documents of which one each is relevant."""
    import numpy as np

    from components.metrics import retrieval

    relevant = np.arange(500) % 200
    scores = np.random.default_rng(0).random((500, 200))
    if given == "equal":
        scores[:] = 0
    if given in ("first", "second"):
        scores[np.arange(500), relevant] = 2
    if given == "second":
        scores[np.arange(500), (relevant + 1) % 200] = 3
    return float(getattr(retrieval, name)(scores, relevant).mean())


def _grouped(shuffled: bool) -> float:
    import numpy as np

    from components.metrics.retrieval import v_measure

    classes = np.arange(4_000) % 4
    return v_measure(classes, np.random.default_rng(0).permutation(classes) if shuffled else (classes + 1) % 4)


def _overlap(given: str) -> float:
    from components.metrics.word_overlap import jaccard, words

    if given == "words":
        return len(words("The dog, the cat!"))
    pairs = {"order": ("The dog bites", "Bites dog? the"), "apart": ("one two", "three"), "one": ("a dog", "a cat")}
    return jaccard(*pairs[given])


def gates() -> tuple[Gate, ...]:
    """Return every gate, by metric."""
    truth = lambda: _normal(2, 400)  # noqa: E731 - drawn when a gate is scored, not when gates are listed
    return (
        _exactly(
            "metrics.image.psnr", "a copy", 120.0, lambda: _image("psnr", 0, 0), "120 dB, which stands for infinite"
        ),
        _about("metrics.image.psnr", "unrelated noise", 10 * math.log10(6), lambda: _image("psnr", 0, 1), 0.2),
        _exactly("metrics.image.ssim", "a copy", 1.0, lambda: _image("ssim", 0, 0)),
        _about("metrics.image.ssim", "unrelated noise", 0.0, lambda: _image("ssim", 0, 1), 0.03),
        _exactly("metrics.image.ms_ssim", "a copy", 1.0, lambda: _image("ms_ssim", 0, 0, 192)),
        Gate("metrics.image.ms_ssim", "unrelated noise", "< 0.3", lambda: _image("ms_ssim", 0, 1, 192), -1.0, 0.3),
        _exactly("metrics.frechet.frechet_distance", "a set and itself", 0.0, lambda: _frechet(0.0)),
        _about(
            "metrics.frechet.frechet_distance", "two draws of one distribution", 0.0, lambda: _frechet(0.0, 1), 0.02
        ),
        _about(
            "metrics.frechet.frechet_distance", "a set shifted by 1 in 4 features", 4.0, lambda: _frechet(1.0), 1e-3
        ),
        _exactly("metrics.generation.precision", "a set and itself", 1.0, lambda: _generation("precision", 0.0, 0)),
        _exactly("metrics.generation.precision", "a set far away", 0.0, lambda: _generation("precision", 50.0, 1)),
        _exactly("metrics.generation.recall", "a set and itself", 1.0, lambda: _generation("recall", 0.0, 0)),
        _exactly("metrics.generation.recall", "a set far away", 0.0, lambda: _generation("recall", 50.0, 1)),
        _exactly("metrics.codebook.usage", "every code once", 1.0, lambda: _codebook("usage", list(range(16)), 16)),
        _exactly("metrics.codebook.usage", "one code of 16", 1 / 16, lambda: _codebook("usage", [3] * 9, 16)),
        _exactly(
            "metrics.codebook.perplexity", "every code once", 16.0, lambda: _codebook("perplexity", list(range(16)), 16)
        ),
        _exactly("metrics.codebook.perplexity", "one code of 16", 1.0, lambda: _codebook("perplexity", [3] * 9, 16)),
        _exactly(
            "metrics.codebook.entropy_bits", "every code once", 4.0, lambda: _codebook("entropy_bits", list(range(16)))
        ),
        _exactly("metrics.codebook.entropy_bits", "one code of 16", 0.0, lambda: _codebook("entropy_bits", [3] * 9)),
        _exactly(
            "metrics.codebook.entropy_bits_per_index",
            "two equal indices, each value once",
            4.0,
            lambda: _columns("entropy_bits_per_index", [[i, i] for i in range(16)]),
        ),
        _exactly(
            "metrics.codebook.joint_entropy_bits",
            "two equal indices, each value once",
            4.0,
            lambda: _columns("joint_entropy_bits", [[i, i] for i in range(16)]),
            "4, not 8: the second tells nothing new",
        ),
        _exactly(
            "metrics.codebook.usage_per_index",
            "half of each codebook",
            0.5,
            lambda: _columns("usage_per_index", [[i, i] for i in range(4)], [8, 8]),
        ),
        _exactly(
            "metrics.bits_per_byte.bits_per_byte", "all bytes equally likely", 8.0, lambda: _bits_per_byte(1 / 256)
        ),
        _exactly("metrics.bits_per_byte.bits_per_byte", "certainty", 0.0, lambda: _bits_per_byte(1.0)),
        _exactly("metrics.numeric.exact_match", "the answers, with space around", 1.0, lambda: _answers(False)),
        _about("metrics.numeric.exact_match", "shuffled digits", 0.1, lambda: _answers(True), 0.015),
        _exactly("metrics.numeric.r2", "the truth", 1.0, lambda: _numeric("r2", truth(), truth())),
        _exactly("metrics.numeric.r2", "its mean", 0.0, lambda: _numeric("r2", 0 * truth() + truth().mean(), truth())),
        _about("metrics.numeric.r2", "shuffled truth", -1.0, lambda: _numeric("r2", _normal(3, 400), truth()), 0.5),
        _exactly(
            "metrics.numeric.median_absolute_error",
            "the truth",
            0.0,
            lambda: _numeric("median_absolute_error", truth(), truth()),
        ),
        _exactly(
            "metrics.numeric.normalised_error",
            "the truth",
            0.0,
            lambda: _numeric("normalised_error", truth(), truth(), 1.0),
        ),
        _about(
            "metrics.numeric.normalised_error",
            "a constant answer",
            0.9,
            lambda: _numeric("normalised_error", 0 * truth(), truth(), abs(truth()).mean()),
            0.1,
        ),
        _exactly(
            "metrics.numeric.normalised_error",
            "no number at all",
            2.0,
            lambda: _numeric("normalised_error", truth() * float("nan"), truth(), 1.0),
        ),
        _exactly("metrics.numeric.rmse_rows", "the truth", 0.0, lambda: _numeric("rmse_rows", truth(), truth())),
        _exactly("metrics.numeric.rmse_rows", "off by 2", 2.0, lambda: _numeric("rmse_rows", truth() + 2, truth())),
        _exactly(
            "metrics.numeric.unparsable_share",
            "no number at all",
            1.0,
            lambda: _numeric("unparsable_share", truth() * float("nan")),
        ),
        _exactly("metrics.numeric.unparsable_share", "numbers", 0.0, lambda: _numeric("unparsable_share", truth())),
        _exactly(
            "metrics.repetition.distinct_ngrams", "a text that never repeats", 1.0, lambda: _distinct(list(range(50)))
        ),
        _exactly("metrics.repetition.distinct_ngrams", "one token 50 times", 1 / 47, lambda: _distinct([7] * 50)),
        _exactly("metrics.text_generation.bleu", "the references", 100.0, lambda: _texts("bleu", _SENTENCES)),
        _exactly(
            "metrics.text_generation.bleu",
            "no word of the references",
            0.0,
            lambda: _texts("bleu", [["x"] * len(each) for each in _SENTENCES]),
        ),
        _exactly(
            "metrics.text_generation.chrf", "the references", 100.0, lambda: _texts("chrf", _SENTENCES, joined=True)
        ),
        _exactly(
            "metrics.text_generation.chrf",
            "no character of the references",
            0.0,
            lambda: _texts("chrf", [["x"] * len(each) for each in _SENTENCES], joined=True),
        ),
        _exactly(
            "metrics.text_generation.distinct_share",
            "51 words, none twice",
            1.0,
            lambda: _text("distinct_share", [list(range(51))]),
        ),
        _exactly(
            "metrics.text_generation.distinct_share",
            "one word 51 times",
            0.02,
            lambda: _text("distinct_share", [[7] * 51]),
        ),
        _exactly(
            "metrics.text_generation.repeated_bigrams",
            "one word over and over",
            1.0,
            lambda: _text("repeated_bigrams", [7] * 9),
        ),
        _exactly(
            "metrics.text_generation.repeated_bigrams",
            "no word twice",
            0.0,
            lambda: _text("repeated_bigrams", list(range(9))),
        ),
        _exactly("metrics.audio.log_spectral_distance", "a copy", 0.0, lambda: _spectra(0.0)),
        _exactly("metrics.audio.log_spectral_distance", "3 dB louder everywhere", 3.0, lambda: _spectra(3.0)),
        _exactly("metrics.speech_quality.mel_distance", "a copy", 0.0, lambda: _heard("mel_distance", "copy")),
        _about(
            "metrics.speech_quality.mel_distance", "half as loud", 6.02, lambda: _heard("mel_distance", "half"), 0.3
        ),
        Gate(
            "metrics.speech_quality.mel_distance",
            "silence",
            "more than 20 dB",
            lambda: _heard("mel_distance", "silent"),
            20.0,
            80.0,
        ),
        _exactly(
            "metrics.speech_quality.mel_cepstral_distortion",
            "a copy",
            0.0,
            lambda: _heard("mel_cepstral_distortion", "copy"),
        ),
        _about(
            "metrics.speech_quality.mel_cepstral_distortion",
            "half as loud: loudness does not count",
            0.0,
            lambda: _heard("mel_cepstral_distortion", "half"),
            0.6,
        ),
        Gate(
            "metrics.speech_quality.mel_cepstral_distortion",
            "clipped",
            "more than 1 dB",
            lambda: _heard("mel_cepstral_distortion", "clipped"),
            1.0,
            80.0,
        ),
        _about("metrics.speech_quality.si_sdr", "a copy", 100.0, lambda: _heard("si_sdr", "copy"), 0.1),
        _about("metrics.speech_quality.si_sdr", "half as loud", 100.0, lambda: _heard("si_sdr", "half"), 0.1),
        Gate(
            "metrics.speech_quality.si_sdr", "noise", "less than -20 dB", lambda: _heard("si_sdr", "noise"), -101, -20
        ),
        Gate(
            "metrics.speech_quality.si_sdr",
            "half a millisecond late",
            "less than 15 dB: a delay counts as distortion",
            lambda: _heard("si_sdr", "late"),
            -101.0,
            15.0,
        ),
        _about("metrics.speech_quality.stoi", "a copy", 1.0, lambda: _heard("stoi", "copy"), 1e-3),
        _about("metrics.speech_quality.stoi", "half as loud", 1.0, lambda: _heard("stoi", "half"), 1e-3),
        Gate("metrics.speech_quality.stoi", "noise", "less than 0.4", lambda: _heard("stoi", "noise"), -1.0, 0.4),
        _exactly("metrics.speech_quality.pitch_errors", "a copy", 0.0, lambda: _heard("pitch_errors", "copy").cents),
        _exactly(
            "metrics.speech_quality.pitch_errors",
            "upside down: pitch has no sign",
            0.0,
            lambda: _heard("pitch_errors", "inverted").cents,
        ),
        Gate(
            "metrics.speech_quality.pitch_errors",
            "silence",
            "more than 0.8 of the frames lose their voice",
            lambda: _heard("pitch_errors", "silent").voicing,
            0.8,
            1.0,
        ),
        _about("metrics.speech_quality.speaker_similarity", "a copy", 1.0, lambda: _alike(1.0), 1e-5),
        _about("metrics.speech_quality.speaker_similarity", "the opposite", -1.0, lambda: _alike(-1.0), 1e-5),
        _exactly(
            "metrics.word_error.error_rate",
            "the reference",
            0.0,
            lambda: _misheard("word_errors", "one two three four"),
        ),
        _exactly(
            "metrics.word_error.error_rate",
            "one word of four wrong, one left out",
            0.5,
            lambda: _misheard("word_errors", "one ten four"),
        ),
        _exactly("metrics.word_error.error_rate", "nothing heard", 1.0, lambda: _misheard("word_errors", "")),
        _exactly(
            "metrics.word_error.error_rate",
            "two characters of 18 wrong",
            2 / 18,
            lambda: _misheard("character_errors", "one two three fear"),
        ),
        _exactly("metrics.verification.equal_error_rate", "scores that are right", 0.0, lambda: _told_apart("right")),
        _exactly("metrics.verification.equal_error_rate", "scores upside down", 1.0, lambda: _told_apart("wrong")),
        _about("metrics.verification.equal_error_rate", "noise", 0.5, lambda: _told_apart("noise"), 0.03),
        _exactly(
            "metrics.unit_quality.unit_quality",
            "units that are 8 equally common phones: bits",
            3.0,
            lambda: _units("mutual_information", told=True),
        ),
        _exactly(
            "metrics.unit_quality.unit_quality",
            "one unit for all phones: share of their entropy",
            0.0,
            lambda: _units("normalised_information", told=False),
        ),
        _exactly(
            "metrics.bootstrap.mean_interval", "equal values: width", 0.0, lambda: _interval(_normal(4, 400) * 0 + 3)
        ),
        _about(
            "metrics.bootstrap.mean_interval",
            "400 normal values: width, 2 x 1.96 / 20",
            0.196,
            lambda: _interval(_normal(4, 400)),
            0.03,
        ),
        _exactly("metrics.link_prediction.filtered_ranks", "equal scores for 9 nodes", 5.0, lambda: _rank(equal=True)),
        _exactly("metrics.link_prediction.filtered_ranks", "only known answers score higher", 1.0, _rank),
        _exactly(
            "metrics.link_prediction.mean_reciprocal_rank",
            "always the second rank",
            0.5,
            lambda: _ranked("mean_reciprocal_rank"),
        ),
        _exactly(
            "metrics.link_prediction.hits", "always the second rank, within 1", 0.0, lambda: _ranked("hits", within=1)
        ),
        _exactly(
            "metrics.link_prediction.hits", "always the second rank, within 2", 1.0, lambda: _ranked("hits", within=2)
        ),
        _exactly("metrics.word_overlap.words", "four words, two of them the same", 3.0, lambda: _overlap("words")),
        _exactly("metrics.word_overlap.jaccard", "the same words in another order", 1.0, lambda: _overlap("order")),
        _exactly("metrics.word_overlap.jaccard", "texts without a common word", 0.0, lambda: _overlap("apart")),
        _exactly("metrics.word_overlap.jaccard", "one of three words in common", 1 / 3, lambda: _overlap("one")),
        _exactly("metrics.retrieval.ranks", "equal scores for 200 documents", 200.0, lambda: _found("ranks", "equal")),
        _exactly("metrics.retrieval.ndcg", "the relevant document first", 1.0, lambda: _found("ndcg", "first")),
        _about(
            "metrics.retrieval.ndcg", "random scores of 200 documents", 0.023, lambda: _found("ndcg", "random"), 0.015
        ),
        _exactly(
            "metrics.retrieval.reciprocal_rank",
            "the relevant document second",
            0.5,
            lambda: _found("reciprocal_rank", "second"),
        ),
        _exactly("metrics.retrieval.v_measure", "the classes under other names", 1.0, lambda: _grouped(shuffled=False)),
        _about("metrics.retrieval.v_measure", "shuffled classes", 0.0, lambda: _grouped(shuffled=True), 0.01),
        _exactly("metrics.rouge.rouge_l", "the reference", 1.0, lambda: _rouge([1, 2, 3, 4])),
        _exactly("metrics.rouge.rouge_l", "no token of the reference", 0.0, lambda: _rouge([5, 6, 7, 8])),
        _exactly("metrics.rouge.rouge_l", "the reference reversed", 0.25, lambda: _rouge([4, 3, 2, 1])),
        _exactly("metrics.stats.spearman", "a series and itself", 1.0, lambda: _spearman("itself")),
        _exactly("metrics.stats.spearman", "a series reversed", -1.0, lambda: _spearman("reversed")),
        _about("metrics.stats.spearman", "shuffled", 0.0, lambda: _spearman("shuffled"), 0.08),
        _about(
            "analysis.token_contribution.class_information",
            "codes that name one of 8 classes",
            3.0,
            lambda: _class_information(shuffled=False),
            0.02,
        ),
        _about(
            "analysis.token_contribution.class_information",
            "shuffled labels",
            0.0,
            lambda: _class_information(shuffled=True),
            0.02,
        ),
    )
