"""Held-out prompts of the two language models, and which of them are judged.

A small model decodes greedily into loops, where copying the text always wins. Judged are prompts whose plain greedy
continuation, a property of no arm, does not loop.

Letters: T tokens of a prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from components.data import corpora, tables
from components.errors import TesseraError
from components.language.causal_lm import CausalLM
from components.language.corpus_windows import CorpusWindows
from components.language.fill_in_middle import END
from components.language.pretrained import LanguageModel, load_language_model
from components.language.speculative.choices import Choice, CoupledSampling, Greedy
from components.language.speculative.decoding import continue_plainly
from components.metrics.repetition import distinct_ngrams
from components.tokenizers.text.byte_level import to_symbols
from components.training.determinism import derive_seed
from flows.studies.context import StageContext
from flows.studies.decoding.sources import stream
from flows.studies.decoding.token_recycling.params import TrainParams

BASES = {"code": "lm-code-2m", "math": "lm-math-2m"}
DATA = {"code": "python-source", "math": "gsm8k"}
_CHUNK = 50  # candidates that are continued together; the rest are not needed when enough of them qualify


class TooFewPrompts(TesseraError):
    """The held-out texts do not hold as many prompts as a set needs."""


@dataclass(frozen=True)
class Prompt:
    """One held-out prompt.

    Attributes:
        name: Its number among all candidates of all sets.
        tokens: Its tokens, (T,).
        noise: Seed of the noise of coupled sampling, None where it is continued greedily.
    """

    name: int
    tokens: list[int]
    noise: int | None = None


@dataclass(frozen=True)
class PromptSet:
    """The prompts of one model and one seed.

    Attributes:
        judged: Those that decide claims.
        unfiltered: The first candidates, whatever they are continued with.
        looked_at: Candidates whose continuations were looked at.
        qualified: How many of them are full and do not loop.
        coupled: Whether the model is judged under coupled sampling.
    """

    judged: list[Prompt]
    unfiltered: list[Prompt]
    looked_at: int
    qualified: int
    coupled: bool


def load(stage: StageContext, model: str) -> LanguageModel:
    """Read one of the language models, on the stage's device."""
    language = load_language_model(stage.inputs[f"bases/{BASES[model]}"])
    language.model.to(stage.device)
    return language


def data(stage: StageContext, model: str) -> Path:
    """Return the data set that a language model learned from and whose held-out part the prompts come from."""
    return stage.inputs[f"data/{DATA[model]}"]


def prompt_set(stage: StageContext, model: str, language: LanguageModel, seed: int) -> PromptSet:
    """Return the prompts of one seed.

    Where fewer than `fewest_judged` candidates of any set qualify, the model is judged on the first candidates under
    coupled sampling instead, on every seed alike.
    """
    params: TrainParams = stage.params
    everything = candidates(data(stage, model), model, language, params)
    own = _of_seed(everything, seed, params)
    good, looked_at = _qualifying(language, own, params.judged_prompts, params)
    coupled = len(good) < params.fewest_judged
    for other in params.prompt_seeds:
        if other != seed and not coupled:
            known = _qualifying(language, _of_seed(everything, other, params), params.fewest_judged, params)
            coupled = len(known[0]) < params.fewest_judged
    first = own[: params.judged_prompts]
    judged = good[: params.judged_prompts]
    if coupled:
        judged = [Prompt(each.name, each.tokens, derive_seed(seed, each.name)) for each in first]
    return PromptSet(judged, first, looked_at, len(good), coupled)


def candidates(directory: Path, model: str, language: LanguageModel, params: TrainParams) -> list[Prompt]:
    """Return every candidate in a fixed random order: beginnings of held-out code, or held-out questions.

    Code is cut where the training windows begin, at the start of a line, and after a random number of tokens; windows
    do not overlap. A question is a whole one, up to "Answer:".
    """
    generator = stream(0, f"prompts {model}")
    if model == "code":
        found = _beginnings(directory, language, params.longest_prompt)
        lengths = generator.integers(params.shortest_prompt, params.longest_prompt, size=len(found), endpoint=True)
        found = [tokens[:length] for tokens, length in zip(found, lengths.tolist(), strict=True)]
    else:
        questions = tables.read_split(directory, "test", ["question"])["question"]
        found = [language.tokenizer.encode(to_symbols(f"Question: {question}\nAnswer:")) for question in questions]
        found = [tokens for tokens in found if params.shortest_prompt <= len(tokens) <= params.longest_prompt]
    found = [tokens for tokens in found if language.specials[END] not in tokens]
    return [Prompt(name, found[index]) for name, index in enumerate(generator.permutation(len(found)).tolist())]


def _beginnings(directory: Path, language: LanguageModel, length: int) -> list[list[int]]:
    texts = [to_symbols(text) for text in corpora.documents(directory, "test")]
    windows = CorpusWindows(texts, language.tokenizer, language.specials, language.model.config.context)
    return windows.windows(windows.disjoint())[:, :length].tolist()


def _of_seed(everything: list[Prompt], seed: int, params: TrainParams) -> list[Prompt]:
    # Sets do not overlap, so that seeds are independent and another set's matrix has not seen this one's prompts.
    own = everything[seed * params.candidates : (seed + 1) * params.candidates]
    if len(own) < params.candidates:
        raise TooFewPrompts(
            f"Seed {seed} needs prompts {seed * params.candidates} to {(seed + 1) * params.candidates - 1}, the "
            f"held-out texts hold {len(everything)}; choose smaller seeds or fewer candidates."
        )
    return own


def _qualifying(
    language: LanguageModel, own: list[Prompt], enough: int, params: TrainParams
) -> tuple[list[Prompt], int]:
    """Return the candidates that qualify, in order, and how many were looked at until there were enough."""
    good: list[Prompt] = []
    looked_at = 0
    while looked_at < len(own) and len(good) < enough:
        chunk = own[looked_at : looked_at + _CHUNK]
        new = continue_plainly(
            language.model, [each.tokens for each in chunk], params.new_tokens, stop=language.specials[END]
        )
        good += [each for each, tokens in zip(chunk, new, strict=True) if _is_full_and_does_not_loop(tokens, params)]
        looked_at += len(chunk)
    return good, looked_at


def _is_full_and_does_not_loop(tokens: list[int], params: TrainParams) -> bool:
    full = len(tokens) == params.new_tokens
    return full and float(distinct_ngrams(torch.tensor([tokens]))) >= params.distinct_share


def rule(prompt: Prompt, model: CausalLM, params: TrainParams) -> Choice:
    """Return how the next token of a prompt is chosen."""
    if prompt.noise is None:
        return Greedy()
    return CoupledSampling(params.temperature, model.config.context + 1, model.vocabulary_size, prompt.noise)


def plain(language: LanguageModel, prompts: list[Prompt], params: TrainParams) -> list[list[int]]:
    """Return what plain decoding continues each prompt with, in the model's present precision."""
    coupled = prompts[0].noise is not None
    return continue_plainly(
        language.model,
        [prompt.tokens for prompt in prompts],
        params.new_tokens,
        [rule(prompt, language.model, params) for prompt in prompts] if coupled else None,
        language.specials[END],
    )
