import functools
import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from components.data.markov import Chain, random_binary_chain
from components.language.byte_conversion import (
    CoverCorrection,
    DirectPrompting,
    MaxPrefixCorrection,
    Truncated,
    cover,
    max_prefix_log_probability,
    truncated_calls,
)
from components.language.causal_lm import CausalLM, CausalLMConfig
from components.language.exact_token_model import ExactTokenModel
from components.language.generation import PrefixSession
from components.tokenizers.text import bpe
from components.tokenizers.text.max_prefix import MaxPrefixTokenizer
from components.tokenizers.text.validity import Validity, is_valid
from components.training.loop import Optimisation, fit

PAPER_VOCABULARY = ["A", "B", "AA", "BA", "BBA", "BAA", "BAAB", "BBAA", "BBBA"]
extra_tokens = st.lists(st.text("AB", min_size=2, max_size=4), max_size=4, unique=True)


def all_texts(longest: int, shortest: int = 0) -> list[str]:
    return ["".join(letters) for n in range(shortest, longest + 1) for letters in product("AB", repeat=n)]


def chain_bpe(chain: Chain, size: int) -> bpe.BytePairTokenizer:
    return bpe.train(chain.texts(chain.sample(200, 100, np.random.default_rng(0))), size)


def log_probability(chain: Chain, text: str) -> float:
    return chain.log_probability(np.array([["AB".index(c) for c in text]]).reshape(1, -1))[0]


def truth(chain: Chain, texts: list[str]) -> torch.Tensor:
    """P(next | text) of the chain from string probabilities, also for texts shorter than its order."""
    rows = [[log_probability(chain, text + c) - log_probability(chain, text) for c in "AB"] for text in texts]
    return torch.tensor(rows, dtype=torch.float64).exp()


class RandomModel:
    """An arbitrary consistent model of tokens: a distribution of its own behind every sequence."""

    def __init__(self, size: int, seed: int = 0) -> None:
        self._size, self._seed = size, seed
        self._rows: dict[tuple[int, ...], torch.Tensor] = {}

    def along(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.stack([self._row(row[:k]) for k in range(len(row) + 1)]) for row in tokens.tolist()])

    def _row(self, context: list[int]) -> torch.Tensor:
        if tuple(context) not in self._rows:
            generator = np.random.default_rng([self._seed, *(token + 1 for token in context)])
            self._rows[tuple(context)] = torch.from_numpy(np.log(generator.dirichlet(np.ones(self._size))))
        return self._rows[tuple(context)]


def possible_sequences(tokenizer, longest: int) -> set[tuple[int, ...]]:
    """Token sequences spelling at most `longest` characters that begin the encoding of a much longer text."""
    found = set()
    for text in all_texts(longest + 4, longest + 4):
        encoding = tokenizer.encode(text)
        for end in range(len(encoding) + 1):
            if len(tokenizer.decode(encoding[:end])) <= longest:
                found.add(tuple(encoding[:end]))
    return found


def enumerate_covers(model, tokenizer, possible: set[tuple[int, ...]], text: str) -> float:
    """P(text) by walking every token sequence, with impossible continuations zeroed and the rest renormalised."""

    @functools.cache
    def walk(context: tuple[int, ...]) -> float:
        row = model.along(torch.tensor([context], dtype=torch.int64))[0, -1].exp()
        allowed = [token for token in range(len(tokenizer.vocabulary)) if (*context, token) in possible]
        total, probability = sum(row[token].item() for token in allowed), 0.0
        for token in allowed:
            spelled = tokenizer.decode((*context, token))
            if spelled.startswith(text):
                probability += row[token].item() / total
            elif text.startswith(spelled):
                probability += row[token].item() / total * walk((*context, token))
        return probability

    return walk(())


def untrained(tokenizer, context: int = 24) -> CausalLM:
    torch.manual_seed(0)
    model = CausalLM(CausalLMConfig(len(tokenizer.vocabulary), context, width=32, layers=2, heads=4))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model.double().eval()


def trained(tokenizer, chain: Chain) -> CausalLM:
    torch.manual_seed(1)
    model = CausalLM(CausalLMConfig(len(tokenizer.vocabulary), 24, width=32, layers=1, heads=4))
    texts = chain.texts(chain.sample(500, 250, np.random.default_rng(2)))
    windows = torch.from_numpy(tokenizer.first_tokens(texts, 24))
    fit(
        model,
        lambda step, generator: windows[torch.randint(len(windows), (32,), generator=generator)],
        lambda model, batch, generator: (model.loss(batch), {}),
        Optimisation(steps=40, learning_rate=3e-3),
        seed=0,
    )
    return model.double()


CHAIN = random_binary_chain(0, 3)
GREEDY = MaxPrefixTokenizer(PAPER_VOCABULARY)
MERGED = chain_bpe(CHAIN, 9)


def correction(model, tokenizer):
    if isinstance(tokenizer, MaxPrefixTokenizer):
        return MaxPrefixCorrection(model, tokenizer)
    return CoverCorrection(model, Validity(tokenizer))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["max_prefix", "bpe"])
def test_with_the_exact_token_model_the_corrected_conditional_is_the_chains(seed, kind):
    chain = random_binary_chain(seed, 3)
    tokenizer = GREEDY if kind == "max_prefix" else chain_bpe(chain, 9)
    model = ExactTokenModel.of_chain(chain, tokenizer, 11)
    texts = all_texts(10)
    got = correction(model, tokenizer).next_log_probabilities(texts).exp()
    assert (got - truth(chain, texts)).abs().max() < 1e-9
    biased = DirectPrompting(model, tokenizer).next_log_probabilities(all_texts(6, 4)).exp()
    assert (biased - truth(chain, all_texts(6, 4))).abs().mean() > 0.05


def test_after_the_token_a_direct_prompting_is_certain_of_b_and_the_correction_is_not():
    chain = Chain("AB", 1, np.array([[0.7, 0.3], [0.4, 0.6]]))
    tokenizer = MaxPrefixTokenizer(["A", "B", "AA"])
    model = ExactTokenModel.of_chain(chain, tokenizer, 10)
    assert DirectPrompting(model, tokenizer).next_log_probabilities(["BA"]).exp()[0].tolist() == pytest.approx([0, 1])
    corrected = MaxPrefixCorrection(model, tokenizer).next_log_probabilities(["BA"]).exp()[0]
    assert corrected.tolist() == pytest.approx([0.7, 0.3], abs=1e-12)


def test_a_cut_behind_a_token_without_extension_would_be_wrong():
    chain = random_binary_chain(4, 2)
    tokenizer = MaxPrefixTokenizer(["A", "B", "ABB"])
    model = ExactTokenModel.of_chain(chain, tokenizer, 10)
    for text in ("AB", "BAB", "AAB"):
        corrected = MaxPrefixCorrection(model, tokenizer).next_log_probabilities([text]).exp()
        assert (corrected - truth(chain, [text])).abs().max() < 1e-9
    # What conditioning on the tokens (A, B) says: no B follows, or the token ABB would have been made.
    after_b = model.along(torch.tensor([[0, 1]]))[0, -1].exp()
    assert after_b[1].item() == 0


@settings(deadline=None, derandomize=True, max_examples=6)
@given(extra_tokens, st.integers(0, 100))
def test_max_prefix_correction_is_the_sum_over_all_covering_token_sequences(extra, seed):
    tokenizer = MaxPrefixTokenizer(["A", "B", *extra])
    validity = Validity(tokenizer)
    model = RandomModel(len(tokenizer.vocabulary), seed)
    possible = possible_sequences(tokenizer, 9)
    texts = all_texts(6, 1)[:: 1 + seed % 3]
    batched = MaxPrefixCorrection(Truncated(model, validity), tokenizer).log_probabilities(texts).exp()
    for text, got in zip(texts, batched.tolist(), strict=True):
        assert got == pytest.approx(enumerate_covers(model, tokenizer, possible, text), abs=1e-12)


@pytest.mark.parametrize("size", [4, 6])
@pytest.mark.parametrize("seed", range(3))
def test_cover_correction_is_the_sum_over_all_covering_token_sequences(size, seed):
    tokenizer = chain_bpe(random_binary_chain(seed, 3), size)
    longest = max(map(len, tokenizer.vocabulary))
    validity = Validity(tokenizer)
    model = RandomModel(size, seed)
    possible = possible_sequences(tokenizer, 5 + longest)
    texts = all_texts(5, 1)[::2]
    batched = CoverCorrection(Truncated(model, validity), validity).log_probabilities(texts).exp()
    for text, got in zip(texts, batched.tolist(), strict=True):
        assert got == pytest.approx(enumerate_covers(model, tokenizer, possible, text), abs=1e-12)


@pytest.mark.parametrize("tokenizer", [GREEDY, MERGED])
@pytest.mark.parametrize("make", [lambda tokenizer: untrained(tokenizer), lambda tokenizer: trained(tokenizer, CHAIN)])
def test_truncated_networks_are_consistent_processes_over_characters(tokenizer, make):
    model = Truncated(make(tokenizer), Validity(tokenizer))
    ask = correction(model, tokenizer)
    drawn = CHAIN.texts(CHAIN.sample(30, 20, np.random.default_rng(3)))
    texts = [*all_texts(4), *(text[:length] for length, text in enumerate(drawn))]
    conditionals = ask.next_log_probabilities(texts)
    assert (conditionals.exp().sum(-1) - 1).abs().max() < 1e-6

    longest = texts[-12]
    steps = ask.next_log_probabilities([longest[:place] for place in range(len(longest))])
    chained = sum(steps[place, "AB".index(c)].item() for place, c in enumerate(longest))
    whole = ask.log_probabilities([longest[: place + 1] for place in range(len(longest))])
    assert chained == pytest.approx(whole[-1].item(), abs=1e-9)
    assert (whole.diff() <= 1e-12).all()


def test_without_truncation_the_next_characters_do_not_sum_to_1():
    ask = MaxPrefixCorrection(untrained(GREEDY), GREEDY)
    assert (ask.next_log_probabilities(all_texts(5)).exp().sum(-1) - 1).abs().max() > 1e-3


@pytest.mark.parametrize("truncate", [True, False])
def test_the_batched_recursion_is_the_recursion_call_by_call(truncate):
    model, validity = untrained(GREEDY, 40), Validity(GREEDY)
    texts = CHAIN.texts(CHAIN.sample(12, 30, np.random.default_rng(5)))
    batched = MaxPrefixCorrection(Truncated(model, validity) if truncate else model, GREEDY)
    expected_conditionals = []
    for text, got in zip(texts, batched.log_probabilities(texts).tolist(), strict=True):
        session = PrefixSession(model)
        ask = truncated_calls(session.next, validity) if truncate else session.next
        assert got == pytest.approx(max_prefix_log_probability(ask, GREEDY, text), abs=1e-10)
        assert session.calls == len(GREEDY.encode(text))
        context = GREEDY.encode(text)[: GREEDY.certain_tokens(text)]
        rest = text[len(GREEDY.decode(context)) :]
        below = max_prefix_log_probability(ask, GREEDY, rest, context) if rest else 0.0
        above = [max_prefix_log_probability(ask, GREEDY, rest + c, context) for c in "AB"]
        expected_conditionals.append([value - below for value in above])
    got = batched.next_log_probabilities(texts)
    expected = torch.tensor(expected_conditionals, dtype=torch.float64)
    assert torch.allclose(got, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("truncated", [True, False])
def test_any_certain_cut_gives_the_conditional_that_the_start_gives(truncated):
    model, validity = untrained(GREEDY, 40), Validity(GREEDY)
    ask = MaxPrefixCorrection(Truncated(model, validity) if truncated else model, GREEDY)
    texts = CHAIN.texts(CHAIN.sample(20, 25, np.random.default_rng(6)))
    from_start = ask.log_probabilities([text + "A" for text in texts]) - ask.log_probabilities(texts)
    assert (ask.next_log_probabilities(texts)[:, 0] - from_start).abs().max() < 1e-10


@settings(deadline=None, derandomize=True, max_examples=15)
@given(extra_tokens)
def test_covers_give_what_the_recursion_gives(extra):
    tokenizer = MaxPrefixTokenizer(["A", "B", *extra])
    validity = Validity(tokenizer)
    model = Truncated(RandomModel(len(tokenizer.vocabulary)), validity)
    texts = all_texts(5)
    by_recursion = MaxPrefixCorrection(model, tokenizer).next_log_probabilities(texts)
    by_covers = CoverCorrection(model, validity).next_log_probabilities(texts)
    assert torch.allclose(by_recursion, by_covers, rtol=0, atol=1e-10)


@pytest.mark.parametrize("tokenizer", [GREEDY, MERGED])
def test_a_cover_holds_each_valid_covering_sequence_once_and_none_extends_another(tokenizer):
    validity = Validity(tokenizer)
    encodings = map(tokenizer.encode, all_texts(11, 1))
    possible = {tuple(encoding[:end]) for encoding in encodings for end in range(1, len(encoding) + 1)}
    for text in all_texts(4, 1):
        members = cover(tokenizer, validity, text)
        assert len(set(members)) == len(members)
        assert all(is_valid(tokenizer, member) for member in members)
        expected = {
            sequence
            for sequence in possible
            if tokenizer.decode(sequence).startswith(text) and not tokenizer.decode(sequence[:-1]).startswith(text)
        }
        assert set(members) == expected


@pytest.mark.parametrize("truncate", [True, False])
def test_the_batched_cover_sum_adds_the_members_of_the_cover(truncate):
    validity = Validity(MERGED)
    model = Truncated(untrained(MERGED), validity) if truncate else untrained(MERGED)
    texts = all_texts(6, 1)
    for text, got in zip(texts[::7], CoverCorrection(model, validity).log_probabilities(texts[::7]), strict=True):
        members = [torch.tensor([member]) for member in cover(MERGED, validity, text)]
        chosen = [model.along(member[:, :-1])[0].gather(-1, member[0][:, None]).sum() for member in members]
        assert torch.stack(chosen).logsumexp(0).item() == pytest.approx(got.item(), abs=1e-10)


def test_pre_tokenised_covers_start_at_the_last_piece_and_change_nothing():
    words = np.random.default_rng(0).choice(["the", "then,", "ten", "hen\nnet", "he"], size=300)
    tokenizer = bpe.train([" ".join(words)], 24, pieces=bpe.WORD_PIECES)
    validity = Validity(tokenizer)
    model = Truncated(untrained(tokenizer, 32), validity)
    ask = CoverCorrection(model, validity)
    texts = ["the then", "the th", "hen\n", "ten, ", "the ", "t", "", "he then, t"]
    conditionals = ask.next_log_probabilities(texts)
    assert (conditionals.exp().sum(-1) - 1).abs().max() < 1e-9
    for text, row in zip(texts, conditionals, strict=True):
        longer = ask.log_probabilities([text + c for c in ask.alphabet])
        start = ask.log_probabilities([text]) if text else torch.zeros(1).double()
        assert torch.allclose(row, longer - start, rtol=0, atol=1e-9)


def test_with_single_characters_as_vocabulary_every_way_is_the_same():
    tokenizer = MaxPrefixTokenizer(["A", "B"])
    merged = bpe.train(["ABAB"], 2)
    assert merged.vocabulary == tokenizer.vocabulary
    model = untrained(tokenizer)
    texts = all_texts(6)
    expected = model.along(torch.tensor([[0, 1, 1]]))[0]
    ways = [
        DirectPrompting(model, tokenizer),
        MaxPrefixCorrection(model, tokenizer),
        MaxPrefixCorrection(Truncated(model, Validity(tokenizer)), tokenizer),
        CoverCorrection(model, Validity(tokenizer)),
        CoverCorrection(Truncated(model, Validity(merged)), Validity(merged)),
        DirectPrompting(model, merged),
    ]
    for way in ways:
        got = way.next_log_probabilities(texts)
        assert torch.allclose(got, ways[0].next_log_probabilities(texts), rtol=0, atol=1e-12)
        assert torch.allclose(got[texts.index("ABB")], expected[3], rtol=0, atol=1e-12)


def test_truncation_moves_the_lost_mass_and_never_raises_the_cross_entropy_of_encoded_text():
    validity = Validity(GREEDY)
    model = untrained(GREEDY)
    truncated = Truncated(model, validity)
    tokens = torch.from_numpy(GREEDY.first_tokens(CHAIN.texts(CHAIN.sample(50, 90, np.random.default_rng(7))), 20))
    plain, kept = (source.along(tokens[:, :-1]).gather(-1, tokens[..., None])[..., 0] for source in (model, truncated))
    assert (kept >= plain - 1e-12).all()
    lost = truncated.lost(tokens[:, :-1])
    assert torch.allclose(kept, plain - (1 - lost).log(), rtol=0, atol=1e-10)
    assert lost.max() > 0.01


def test_a_dead_end_gets_no_mass_so_that_none_is_lost_behind_it():
    tokenizer = MaxPrefixTokenizer(["A", "B", "AA", "AB"])
    validity = Validity(tokenizer)
    ask = MaxPrefixCorrection(Truncated(RandomModel(4), validity), tokenizer)
    assert (ask.next_log_probabilities(all_texts(4)).exp().sum(-1) - 1).abs().max() < 1e-12
    rows = Truncated(RandomModel(4), validity).along(torch.zeros(1, 0, dtype=torch.int64))[0, 0]
    assert rows[0].item() == -math.inf
